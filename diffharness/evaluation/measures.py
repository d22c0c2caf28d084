"""What a metric is made of, so that it can be recomputed on any documents: means, ratios, counts, or lm-eval's own.

Legend: N documents, C counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.evaluation.corpus_metrics import Counts, count
from diffharness.evaluation.scores import DocumentScore, MetricKey
from diffharness.statistics.paired import (
    PairedResult,
    mean_sums,
    no_difference,
    paired_difference,
    paired_ratio,
    ratio_sums,
    resampled_result,
)
from diffharness.statistics.resampled import Recomputed, Resampled, Sums, sums_by_unit, unit_codes

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RATIOS = ("bits_per_byte", "byte_perplexity", "word_perplexity")
"""Metrics of which a document has a log-likelihood and what it is divided by."""
_MEANS = ("brier_score",)
"""Metrics that are means of what they make of a single document."""
_BRIER_SPAN = 2.0
"""The most that one document's brier score can change."""
_GENERIC_RESAMPLES = 500
"""Resamples of a metric that only lm-eval's own function can aggregate, and as many exchanges."""
_COUNTED_RESAMPLES = 2000
"""The same of a metric that is a function of counts."""

Aggregation = Callable[[list[Any]], float]


@dataclass(frozen=True)
class Means:
    """A mean of documents' own scores."""

    base_N: Float[np.ndarray, " N"]
    cand_N: Float[np.ndarray, " N"]
    span: float | None
    """The most that one document's score can change; `None` where that is not known."""

    def resampled(self, unit_N: Int[np.ndarray, " N"]) -> Resampled:
        """For drawing units of documents."""
        return mean_sums(self.base_N, self.cand_N, unit_N)

    def result(self, rng: np.random.Generator, clusters: Sequence[str] | None, *, better: bool) -> PairedResult:
        """Gap, interval and test; `better` says whether higher is."""
        return paired_difference(
            self.base_N, self.cand_N, rng, clusters=clusters, higher_is_better=better, span=self.span
        )


@dataclass(frozen=True)
class Ratios:
    """A ratio of sums over documents, and what a function makes of it."""

    base_N2: Float[np.ndarray, "N 2"]
    cand_N2: Float[np.ndarray, "N 2"]
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    span: None = None

    def resampled(self, unit_N: Int[np.ndarray, " N"]) -> Resampled:
        """For drawing units of documents."""
        return ratio_sums(self.base_N2, self.cand_N2, unit_N, self.transform)

    def result(self, rng: np.random.Generator, clusters: Sequence[str] | None, *, better: bool) -> PairedResult:
        """Gap, interval and test; `better` says whether higher is."""
        return paired_ratio(
            self.base_N2, self.cand_N2, rng, clusters=clusters, transform=self.transform, higher_is_better=better
        )


@dataclass(frozen=True)
class Whole:
    """A metric of the whole task, by counts where it is made of such, else by lm-eval's own aggregation."""

    raw: tuple[list[Any], list[Any]]
    scores: tuple[float, float]
    aggregation: Aggregation
    counts: tuple[Counts, ...] | None
    span: None = None

    def resampled(self, unit_N: Int[np.ndarray, " N"]) -> Resampled:
        """For drawing units of documents."""
        if self.counts is not None:
            sides = [sums_by_unit(side.counts_NC, unit_N) for side in self.counts]
            return Sums(sides[0], sides[1], self.counts[0].score)
        same = [b == c for b, c in zip(*self.raw, strict=True)]
        return Recomputed(self._gap_of, unit_N, np.array(same, dtype=bool))

    def _gap_of(self, chosen: Sequence[tuple[int, bool]]) -> float:
        base, cand = ([self.raw[side != swapped][i] for i, swapped in chosen] for side in (False, True))
        return float(self.aggregation(cand)) - float(self.aggregation(base))

    def result(self, rng: np.random.Generator, clusters: Sequence[str] | None, *, better: bool) -> PairedResult:
        """Gap, interval and test; documents have no score of their own to be better or worse."""
        del better
        n = len(self.raw[0])
        unit_N = unit_codes(clusters, n)
        n_units = int(unit_N.max()) + 1
        n_clusters = n_units if n_units < n else None
        resampled = self.resampled(unit_N)
        if not resampled.differs_G.any():
            return no_difference(n, n_clusters, 0.95, None)
        n_resamples = _GENERIC_RESAMPLES if self.counts is None else _COUNTED_RESAMPLES
        found = resampled_result(
            [(1.0, resampled)], rng, n=n, better=0, worse=0, words="the metric recomputed, exchanges",
            n_clusters=n_clusters, n_resamples=n_resamples, n_exchanges=n_resamples,
        )  # fmt: skip
        return replace(found, gap=self.scores[1] - self.scores[0])


Measure = Means | Ratios | Whole


def measure(
    metric: MetricKey,
    base: Sequence[DocumentScore],
    cand: Sequence[DocumentScore],
    aggregation: Aggregation,
    scores: tuple[float, float],
) -> Measure:
    """How a metric is made of the same documents on both sides.

    Args:
        metric: whose.
        base: the baseline's documents.
        cand: the candidate's, in the same order.
        aggregation: lm-eval's own function from documents' values to the task's score.
        scores: what lm-eval made of both sides.
    """
    name = metric.metric
    raw = [d.values[name] for d in base], [d.values[name] for d in cand]
    scalar = all(isinstance(v, float) and math.isfinite(v) for side in raw for v in side)
    if scalar and name == "perplexity":
        sides = [np.stack([-np.asarray(side, dtype=float), np.ones(len(side))], axis=1) for side in raw]
        return Ratios(sides[0], sides[1], np.exp)
    if scalar and np.allclose([np.mean(side) for side in raw], scores, rtol=0, atol=1e-9):
        first, second = (np.asarray(side, dtype=float) for side in raw)
        bounded = bool(((first >= 0) & (first <= 1) & (second >= 0) & (second <= 1)).all())
        return Means(first, second, 1.0 if bounded else None)
    if name in RATIOS:
        sides = [np.asarray(side, dtype=float) * [-1.0, 1.0] for side in raw]
        if name == "bits_per_byte":
            return Ratios(sides[0] / [math.log(2), 1.0], sides[1] / [math.log(2), 1.0])
        return Ratios(sides[0], sides[1], np.exp)
    if name in _MEANS:
        each = [np.array([float(aggregation([value])) for value in side]) for side in raw]
        if np.allclose([np.mean(side) for side in each], scores, rtol=0, atol=1e-9):
            return Means(each[0], each[1], _BRIER_SPAN)
    return Whole(raw, scores, aggregation, count(name, raw, scores))
