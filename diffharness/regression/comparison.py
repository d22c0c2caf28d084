"""One score rule and the documents that it is decided from: numbers in, evidence out.

Legend: N documents, C numbers a document.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffharness.regression.evidence import Evidence, Pairs, Unseen
from diffharness.regression.resampled_evidence import FEW_DIFFERING, resampled_evidence
from diffharness.statistics.bootstrap import subset_means
from diffharness.statistics.paired import mean_sums, ratio_sums
from diffharness.statistics.resampled import N_EXCHANGES, N_RESAMPLES, Sums, resample, sums_by_unit, unit_codes

Aggregate = Literal["mean", "ratio", "exponential ratio"] | Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""How documents make a score: the mean of (N,) values, Σ numerator / Σ denominator of (N, 2), its exponential, or a
function from sums of (..., C) counts to scores (...)."""
_LEAST_IN_TAIL = 25
"""Resamples beyond the level of a corrected interval: its chance of error is then within a fifth of what it says."""
_MOST_DRAWS = 100_000


@dataclass(frozen=True)
class Terms:
    """What is asked of a score."""

    margin: float
    """The loss that is accepted, ≥ 0, in the metric's unit."""
    alpha: float = 0.05
    """One-sided."""
    correction: Literal["holm", "none"] = "holm"
    min_effect: float = 0.0
    """The noise floor: no smaller difference is called an improvement, no smaller margin is taken."""


@dataclass(frozen=True)
class ScoreComparison:
    """A score rule with the same documents' values on both sides."""

    rule: str
    task: str
    metric: str
    """`metric,filter`."""
    higher_is_better: bool
    terms: Terms
    baseline: NDArray[np.float64]
    """(N,) or (N, C), as `aggregate` takes them."""
    candidate: NDArray[np.float64]
    aggregate: Aggregate = "mean"
    clusters: NDArray[np.generic] | None = None
    """(N,) names: which documents are drawn together; `None`: each by itself."""
    span: float | None = None
    """The most that one document's score can change; 1 is taken for scores that are all 0 or 1."""
    groups: NDArray[np.generic] | None = None
    """(N,) names of the tasks that a group's score is made of; `None` for a task."""
    weights: Mapping[str, float] | None = None
    """By task of a group, its share in the score; they sum to 1. By the documents where `None`."""

    @property
    def n(self) -> int:
        """Documents."""
        return len(self.baseline)

    def problem(self) -> str | None:
        """Why nothing can be decided, in words.

        Raises:
            ValueError: arrays that do not fit together, or terms that are none.
        """
        terms = self.terms
        if not (terms.margin >= 0 and 0 < terms.alpha < 0.5 and terms.min_effect >= 0):
            raise ValueError(f"rule {self.rule!r}: {terms} are no terms")
        named = [names for names in (self.clusters, self.groups) if names is not None]
        if self.baseline.shape != self.candidate.shape or any(names.shape != (self.n,) for names in named):
            raise ValueError(f"rule {self.rule!r}: values, clusters and groups are not of the same documents")
        if self.n == 0:
            return "there is no document to compare; evaluate the task again"
        finite_N = (np.isfinite(self.baseline) & np.isfinite(self.candidate)).reshape(self.n, -1).all(axis=1)
        if not finite_N.all():
            missing = self.n - int(finite_N.sum())
            return (
                f"{missing} of {self.n} documents have a score that is no number; run the task again, or leave it out"
            )
        if not np.isfinite(self.scores()).all():
            return "its score is no number on these documents; leave the metric out"
        return None

    def scores(self) -> tuple[float, float]:
        """Both sides' scores on these documents."""
        parts = self._strata(np.arange(self.n))
        base, cand = (
            sum(share * float(sums.score(side.sum(axis=0)[None])[0]) for share, sums, side in sides)
            for sides in (
                [(share, part, part.baseline_GC) for share, part in parts],
                [(share, part, part.candidate_GC) for share, part in parts],
            )
        )
        return (base, cand) if self.higher_is_better else (cand, base)

    def evidence(self, alpha: float, seed: int = 0) -> Evidence:
        """What the documents say, turned so that higher is better.

        Right and wrong one by one: exact counts. Everything else, and clusters and groups: resamples, as many as
        `alpha`, the smallest one-sided level that will be asked for, takes. Draws depend on the rule's name and `seed`
        alone, and not on what other rules there are.
        """
        unit_N = unit_codes(self.clusters, self.n)
        n_units = int(unit_N.max()) + 1
        n_clusters = n_units if n_units < self.n else None
        binary = self.aggregate == "mean" and all(
            bool(np.isin(side, (0.0, 1.0)).all()) for side in (self.baseline, self.candidate)
        )
        strata = self._strata(unit_N)
        if not any(part.differs_G.any() for _, part in strata):
            return self._unseen(strata, n_units, n_clusters, 1.0 if binary else self.span)
        sign = 1.0 if self.higher_is_better else -1.0
        if binary and n_clusters is None and self.groups is None:
            difference_N = sign * (self.candidate - self.baseline)
            return Pairs(int((difference_N > 0).sum()), int((difference_N < 0).sum()), self.n)
        rng = np.random.default_rng([seed, zlib.crc32(self.rule.encode())])
        enough = math.ceil(_LEAST_IN_TAIL / alpha)
        draws = resample(
            strata, rng,
            n_resamples=min(max(N_RESAMPLES, enough), _MOST_DRAWS),
            n_exchanges=min(max(N_EXCHANGES, enough), _MOST_DRAWS),
        )  # fmt: skip
        means_R = None
        if self.aggregate == "mean" and self.groups is None and strata[0][1].differs_G.sum() < FEW_DIFFERING:
            difference_N1 = sign * (self.candidate - self.baseline)[:, None]
            means_R = subset_means(difference_N1, rng, n_subsets=N_EXCHANGES, clusters=unit_N)[:, 0]
        words = "exchanges" if self.groups is None else f"exchanges within each of {len(strata)} tasks"
        return resampled_evidence(
            draws, n=self.n, n_clusters=n_clusters, subset_means_RK=[means_R], words=words
        )[0]  # fmt: skip

    def _strata(self, unit_N: NDArray[np.intp]) -> list[tuple[float, Sums]]:
        """Each task's share and sums; the sides change places where lower is better."""
        sides = (self.baseline, self.candidate) if self.higher_is_better else (self.candidate, self.baseline)
        if self.groups is None:
            return [(1.0, self._sums(*sides, unit_N))]
        found = []
        for name in np.unique(self.groups):
            chosen = self.groups == name
            share = float(chosen.mean()) if self.weights is None else self.weights[str(name)]
            units = np.unique(unit_N[chosen], return_inverse=True)[1]
            found.append((share, self._sums(sides[0][chosen], sides[1][chosen], units)))
        return found

    def _sums(self, base: np.ndarray, cand: np.ndarray, unit_N: NDArray[np.intp]) -> Sums:
        if self.aggregate == "mean":
            return mean_sums(base, cand, unit_N)
        if self.aggregate == "ratio":
            return ratio_sums(base, cand, unit_N)
        if self.aggregate == "exponential ratio":
            return ratio_sums(base, cand, unit_N, np.exp)
        return Sums(sums_by_unit(base, unit_N), sums_by_unit(cand, unit_N), self.aggregate)

    def _unseen(
        self, strata: list[tuple[float, Sums]], n_units: int, n_clusters: int | None, span: float | None
    ) -> Unseen:
        """No document differs; of a group, the most that one unit moves the score, times the units."""
        if span is not None:
            span *= max(share / part.n_units for share, part in strata) * n_units
        return Unseen(n_units, span, n_clusters)
