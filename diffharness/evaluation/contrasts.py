"""How much more one change of a score is than another on the same documents: (a − b) − (c − d), in the real metric.

Legend: N documents, G units (documents, or clusters of them), R resamples, B units or blocks left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from diffharness.evaluation.comparison import (
    Aggregation,
    clusters,
    document_metric,
    document_value,
    documents,
    measured,
)
from diffharness.evaluation.scores import Evaluation, MetricKey
from diffharness.statistics.paired import PairedResult, no_difference, resampled_result
from diffharness.statistics.resampled import Resampled, unit_codes

_RESAMPLES = 1000
"""Resamples, and as many exchanges: each recomputes four scores."""

Change = tuple[Evaluation, Evaluation]
"""Before and after: the change of a score is after − before."""


@dataclass(frozen=True)
class _Difference:
    """Two changes on the same units, drawn, left out and exchanged together."""

    change: Resampled
    other: Resampled

    @property
    def n_units(self) -> int:
        """Documents, or clusters of them."""
        return self.change.n_units

    @property
    def differs_G(self) -> Bool[np.ndarray, " G"]:
        """Units on which either changes."""
        return self.change.differs_G | self.other.differs_G

    def gaps(self, weights_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, " R"]:
        """The difference, given how often each unit was drawn."""
        return self.change.gaps(weights_RG) - self.other.gaps(weights_RG)

    def exchanged(self, swap_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, " R"]:
        """The difference with before and after exchanged, in both, on the units with 1."""
        return self.change.exchanged(swap_RG) - self.other.exchanged(swap_RG)

    def left_out(self) -> Float[np.ndarray, " B"]:
        """The difference without each unit, or block of units, in turn."""
        return self.change.left_out() - self.other.left_out()


def contrast(
    task: str, metric: MetricKey, change: Change, other: Change, aggregation: Aggregation, rng: np.random.Generator
) -> PairedResult:
    """change − other, with an interval and test in pairs of documents; a metric of the whole task is recomputed.

    Args:
        task: whose.
        metric: whose scores change.
        change: before and after of the first.
        other: before and after of what is subtracted.
        aggregation: lm-eval's own function from documents' values to the task's score.
        rng: draws.

    Raises:
        RunError: a score is not a number.
    """
    before, _ = documents(task, metric, *change)
    n, names = len(before), clusters(before)
    unit_N = unit_codes(names, n)
    n_clusters = int(unit_N.max()) + 1 if names is not None else None
    made = [measured(task, metric, *pair, aggregation) for pair in (change, other)]
    parts = [one.resampled(unit_N) for one in made]
    both = _Difference(*parts)
    if not both.differs_G.any():
        span = made[0].span
        return no_difference(n, n_clusters, 0.95, None if span is None else 2 * span)
    own = [v for v in differences(task, metric, change, other, aggregation).values() if v is not None]
    found = resampled_result(
        [(1.0, both)], rng, n=n, better=sum(v > 0 for v in own), worse=sum(v < 0 for v in own),
        words="exchanges of before and after", n_clusters=n_clusters, n_resamples=_RESAMPLES, n_exchanges=_RESAMPLES,
    )  # fmt: skip
    scores = [[e.task(task).scores[str(metric)] for e in pair] for pair in (change, other)]
    return replace(found, gap=(scores[0][1] - scores[0][0]) - (scores[1][1] - scores[1][0]))


def differences(
    task: str, metric: MetricKey, change: Change, other: Change | None, aggregation: Aggregation
) -> dict[int, float | None]:
    """The same of every document by itself, by number; `None` where the metric has no value of a single document."""
    worth = document_value(aggregation)
    sides = [e.of(task, metric.filter) for e in (*change, *(other or ()))]
    signs = (-1.0, 1.0, 1.0, -1.0)
    found: dict[int, float | None] = {}
    for doc_id in sorted(sides[0]):
        values = [document_metric(side[doc_id], metric, worth) for side in sides]
        known = [v for v in values if v is not None]
        whole = len(known) == len(values)
        found[doc_id] = sum(s * v for s, v in zip(signs, known, strict=False)) if whole else None
    return found
