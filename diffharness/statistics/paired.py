"""Did the score change? Paired tests, intervals and the verdict on a task's gap (candidate − baseline).

Legend: N documents, G units (documents, or whole clusters of them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from diffharness.statistics.bootstrap import sign_flip_interval
from diffharness.statistics.discordant import mcnemar_mid_p, tango_interval
from diffharness.statistics.power import smallest_detectable
from diffharness.statistics.resampled import (
    N_EXCHANGES,
    N_RESAMPLES,
    Resampled,
    Sums,
    mean_of_sums,
    resampled_gap,
    sums_by_unit,
    unit_codes,
)

if TYPE_CHECKING:
    from jaxtyping import Float

Verdict = Literal["improved", "regressed", "no change", "inconclusive"]

_TOLERANCE = 1e-12
"""Scores are means of floats: 0.72 − 0.70 has to reach 0.02."""
FEW_DOCUMENTS, FEW_CLUSTERS, SKEWED = 200, 30, 1.0
"""Where intervals by resampling were found to cover 93 % and more (`tests/benchmarks/intervals.py`); elsewhere they are
called approximate."""
FEW_PAIRS = 10
"""The same for right and wrong, by Tango's interval."""
_FEW_DIFFERING = 30
"""Below so many units that differ, a bootstrap of them is widened to what flipping their signs does not refuse."""


@dataclass(frozen=True)
class PairedResult:
    """A gap with its interval and test."""

    gap: float
    """candidate − baseline."""
    low: float
    high: float
    level: float
    p_value: float
    """Two-sided, of no difference."""
    method: str
    """The interval and the test, in words."""
    n: int
    n_better: int
    """Documents on which the candidate did better."""
    n_worse: int
    standard_error: float | None = None
    """Of the gap; 0 where no document of a bounded score differs, `None` where nothing tells."""
    detectable: float | None = None
    """The smallest gap that the test finds with 80 % power."""
    n_clusters: int | None = None
    """Clusters that documents were drawn in; `None` where each counts by itself."""
    approximate_reason: str | None = None
    """Why the interval may cover less than it says; `None` inside the region where it was tried."""


def paired_difference(
    baseline_N: npt.ArrayLike,
    candidate_N: npt.ArrayLike,
    rng: np.random.Generator,
    level: float = 0.95,
    *,
    clusters: npt.ArrayLike | None = None,
    higher_is_better: bool = True,
    span: float | None = None,
) -> PairedResult:
    """The mean difference of two models' scores on the same documents.

    Scores that are all 0 or 1: McNemar's mid-p test and Tango's score interval. Other scores, or `clusters`
    (N,) that group the documents: sign-flip test and BCa bootstrap, whole clusters at a time. In both cases the
    interval is widened until it agrees with the test, so that it excludes 0 only where the test rejects: a
    bootstrap alone calls 4 differing documents of 60 a change (p = 0.125). Where no document differs, p = 1 and
    the interval is ± `span` z² / (n + z²), Tango's for right and wrong; (0, 0) without a `span`.

    Args:
        baseline_N: one score a document.
        candidate_N: the same documents'.
        rng: draws.
        level: of the interval.
        clusters: the cluster of each document.
        higher_is_better: of the score.
        span: the most that one document's score can change; 1 for scores that are all 0 or 1.

    Raises `ValueError` for no documents, unequal lengths or NaN.
    """
    base_N, cand_N = _pair(baseline_N, candidate_N)
    difference_N = cand_N - base_N
    n = len(difference_N)
    unit_N = unit_codes(clusters, n)
    n_units = int(unit_N.max()) + 1
    n_clusters = n_units if n_units < n else None
    n_up, n_down = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    better, worse = (n_up, n_down) if higher_is_better else (n_down, n_up)
    is_binary = bool(np.isin(base_N, (0.0, 1.0)).all() and np.isin(cand_N, (0.0, 1.0)).all())
    if n_up + n_down == 0:
        return no_difference(n, n_clusters, level, 1.0 if is_binary else span)
    if is_binary and n_clusters is None:
        return _paired_binary(n_up, n_down, n, level, better=better, worse=worse)
    return resampled_result(
        [(1.0, mean_sums(base_N, cand_N, unit_N))], rng, level, n=n, better=better, worse=worse, n_clusters=n_clusters,
        words="sign flips", flips=sign_flip_interval(difference_N, rng, level, clusters=unit_N)
        if np.count_nonzero(sums_by_unit(difference_N[:, None], unit_N)) < _FEW_DIFFERING else None,
        widest=float(np.abs(difference_N).max()),
    )  # fmt: skip


def paired_ratio(
    baseline_N2: Float[np.ndarray, "N 2"],
    candidate_N2: Float[np.ndarray, "N 2"],
    rng: np.random.Generator,
    level: float = 0.95,
    *,
    clusters: npt.ArrayLike | None = None,
    transform: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    higher_is_better: bool = False,
) -> PairedResult:
    """The difference of two ratios of sums over the same documents: bits per byte, word perplexity.

    Columns are numerator and denominator of each document; a side's score is
    transform(Σ numerator / Σ denominator), for example `np.exp` for a perplexity. The whole ratio is
    recomputed on every resample. The test exchanges the two sides of random documents (approximate
    randomisation), or of whole clusters (N,), and the interval is widened to hold 0 where it does not reject.
    `n_better` counts documents by their own ratio.
    """
    base_N2, cand_N2 = _pair(baseline_N2, candidate_N2)
    n = len(base_N2)
    unit_N = unit_codes(clusters, n)
    n_units = int(unit_N.max()) + 1
    n_clusters = n_units if n_units < n else None
    if np.array_equal(base_N2, cand_N2):
        return no_difference(n, n_clusters, level, None)
    own_N = _direction(base_N2, cand_N2)
    n_up, n_down = int((own_N > 0).sum()), int((own_N < 0).sum())
    better, worse = (n_up, n_down) if higher_is_better else (n_down, n_up)
    sums = ratio_sums(base_N2, cand_N2, unit_N, transform)
    words = "ratio recomputed, exchanges"
    return resampled_result(
        [(1.0, sums)], rng, level, n=n, better=better, worse=worse, n_clusters=n_clusters, words=words
    )


def mean_sums(base_N: Float[np.ndarray, " N"], cand_N: Float[np.ndarray, " N"], unit_N: npt.NDArray[np.intp]) -> Sums:
    """Mean scores as functions of sums over units."""
    sides = [sums_by_unit(np.stack([side, np.ones(len(side))], axis=1), unit_N) for side in (base_N, cand_N)]
    return Sums(sides[0], sides[1], mean_of_sums)


def ratio_sums(
    base_N2: Float[np.ndarray, "N 2"],
    cand_N2: Float[np.ndarray, "N 2"],
    unit_N: npt.NDArray[np.intp],
    transform: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
) -> Sums:
    """Ratios of sums, and what `transform` makes of them, as functions of sums over units."""
    link = transform or (lambda ratio: ratio)
    sides = [sums_by_unit(side, unit_N) for side in (base_N2, cand_N2)]
    return Sums(sides[0], sides[1], lambda sums: link(sums[..., 0] / sums[..., 1]))


def resampled_result(
    strata: Sequence[tuple[float, Resampled]],
    rng: np.random.Generator,
    level: float = 0.95,
    *,
    n: int,
    better: int,
    worse: int,
    words: str,
    n_clusters: int | None = None,
    n_resamples: int = N_RESAMPLES,
    n_exchanges: int = N_EXCHANGES,
    flips: tuple[float, float] | None = None,
    widest: float = np.inf,
) -> PairedResult:
    """A gap of scores that are recomputed on resamples (see `resampled_gap`), with what has to be said of it.

    `words` names the test, `n_clusters` the units where they are not documents; `flips` is an interval that the found
    one is widened to, within ± `widest`.
    """
    found = resampled_gap(strata, rng, level, n_resamples=n_resamples, n_exchanges=n_exchanges)
    low, high, error = float(found.low), float(found.high), float(found.standard_error)
    if flips is not None:
        low, high = min(low, max(flips[0], -widest)), max(high, min(flips[1], widest))
    interval = "BCa bootstrap" if bool(found.is_bca) else "percentile bootstrap (BCa is not defined here)"
    units = "documents" if n_clusters is None else f"{n_clusters} clusters of documents"
    return PairedResult(
        gap=float(found.gap), low=low, high=high, level=level, p_value=float(found.p_value),
        method=f"{interval} and {words} over {units}", n=n, n_better=better, n_worse=worse,
        standard_error=error if error > 0 else None,
        detectable=smallest_detectable(error, level, freedom=float(found.freedom)) if error > 0 else None,
        n_clusters=n_clusters, approximate_reason=_approximate(n, n_clusters, float(found.skewness)),
    )  # fmt: skip


def no_difference(n: int, n_clusters: int | None, level: float, span: float | None) -> PairedResult:
    """Where no document's score differs: how much may differ unseen, from the number of documents and their `span`."""
    method = "no document's score differs"
    if span is None:
        reason = "a score without bounds, of which no document differs, tells nothing of how it varies"
        return PairedResult(0.0, 0.0, 0.0, level, 1.0, method, n, 0, 0, None, None, n_clusters, reason)
    n_units = n_clusters or n
    high = span * tango_interval(0, 0, n_units, level)[1]
    reason = _approximate(n, n_clusters, 0.0) if n_clusters is not None else _few_pairs(n)
    method += "; the interval is what that leaves open (Tango)"
    return PairedResult(0.0, -high, high, level, 1.0, method, n, 0, 0, 0.0, None, n_clusters, reason)


def _paired_binary(n_up: int, n_down: int, n: int, level: float, *, better: int, worse: int) -> PairedResult:
    """Right and wrong, from the counts of documents on which the two disagree."""
    gap, share = (n_up - n_down) / n, (n_up + n_down) / n
    p_value = mcnemar_mid_p(n_up, n_down)
    low, high = tango_interval(n_up, n_down, n, level)
    if p_value >= 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return PairedResult(
        gap=gap, low=low, high=high, level=level, p_value=p_value, method="Tango score interval, McNemar mid-p test",
        n=n, n_better=better, n_worse=worse, standard_error=float(np.sqrt((share - gap**2) / n)) or None,
        detectable=smallest_detectable(float(np.sqrt(share / n)), level), approximate_reason=_few_pairs(n),
    )  # fmt: skip


def _few_pairs(n: int) -> str | None:
    return f"fewer than {FEW_PAIRS} documents" if n < FEW_PAIRS else None


def _approximate(n: int, n_clusters: int | None, skewness: float) -> str | None:
    """Why an interval by resampling lies outside the region where it was tried."""
    reasons = [
        f"fewer than {FEW_DOCUMENTS} documents" if n < FEW_DOCUMENTS else None,
        f"fewer than {FEW_CLUSTERS} clusters" if n_clusters is not None and n_clusters < FEW_CLUSTERS else None,
        f"the differences are skewed ({skewness:+.1f})" if abs(skewness) > SKEWED else None,
    ]
    return "; ".join(reason for reason in reasons if reason is not None) or None


def verdict(gap: float, low: float, high: float, smallest_effect: float, higher_is_better: bool = True) -> Verdict:
    """The word for a gap.

    *improved* or *regressed* where the interval excludes 0 and |gap| ≥ `smallest_effect`; *no change* where
    the interval lies inside ± `smallest_effect`; else *inconclusive*.
    """
    excludes_zero = low > 0 or high < 0
    if excludes_zero and abs(gap) >= smallest_effect - _TOLERANCE:
        return "improved" if (gap > 0) == higher_is_better else "regressed"
    if -smallest_effect - _TOLERANCE <= low and high <= smallest_effect + _TOLERANCE:
        return "no change"
    return "inconclusive"


def _pair(baseline: npt.ArrayLike, candidate: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    base, cand = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if base.shape != cand.shape:
        raise ValueError(f"paired scores have one shape, got {base.shape} and {cand.shape}")
    if len(base) == 0:
        raise ValueError("no documents to compare")
    if not (np.isfinite(base).all() and np.isfinite(cand).all()):
        raise ValueError("scores hold NaN or infinity")
    return base, cand


def _direction(base_N2: npt.NDArray[np.float64], cand_N2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sign of each document's own change of ratio, by cross-multiplication (a denominator may be 0)."""
    return np.sign(cand_N2[:, 0] * base_N2[:, 1] - base_N2[:, 0] * cand_N2[:, 1])
