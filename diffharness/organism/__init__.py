"""The embedded default: a tiny model trio with a planted, known difference."""
