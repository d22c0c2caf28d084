"""The dictionary: model, training, checkpoints, quality."""
