"""Crosscoders without a benchmark: activations from models and texts or from stores, training, measuring, sharing."""
