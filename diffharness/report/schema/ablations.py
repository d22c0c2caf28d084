"""What if: one of the models without some categories, scored by lm-eval as a model of its own."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Interval, Model


class AblatedRow(Model):
    """One task's primary metric."""

    task: str
    metric: str
    baseline: float
    candidate: float
    ablated: float
    change: float
    """ablated − candidate."""
    interval: Interval
    n: int


class AblatedModel(Model):
    """A model with some latents changed at the layer, on all tasks."""

    name: str
    """What it is, in words: `candidate without safety`."""
    mode: Literal["put_back", "put_in", "remove"]
    """`put_back`: the candidate, with these latents in the baseline's version."""
    categories: tuple[str, ...]
    """Categories, or numbers of latents."""
    n_latents: int
    rows: tuple[AblatedRow, ...]
    reason: str | None = None
    """Why there are no rows."""
