"""The defaults of a run, in one place and free of imports, so that `--help` can show them at once."""

LAYER = "0.5"
"""A fraction of depth, or an index."""
LATENTS = 512
"""Crosscoder latents."""
K = 16
"""Wanted mean number of active latents a token."""
TRAIN_TOKENS = 400_000
"""Tokens harvested from the corpora, a tenth of them held out."""
BATCH_SIZE = 32
"""lm-eval's batch size, for both models alike."""
SMALLEST_EFFECT = 0.02
"""Gaps of a bounded metric below this are not called a change."""
SEED = 0
OUTPUT = "reports/run"
DEMO_OUTPUT = "reports/demo"
