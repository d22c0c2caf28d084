"""The gate: whether a fine-tune may ship, from a finished run's files alone; imports neither torch nor transformers."""
