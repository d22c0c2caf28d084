"""Paired tests, intervals, corrections: plain arrays in, numbers out."""
