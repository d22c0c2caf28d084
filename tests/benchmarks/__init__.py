"""Benchmarks: `python -m tests.benchmarks.NAME --json FILE`. They measure, and never fail on a time."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin stall a busy machine
