"""Resampling: bootstrap intervals over documents (or clusters of them) and sign-flip tests.

Legend: N documents, G clusters, C columns (components, metrics), R resamples.
A resample is a vector of weights: how often each document was drawn. Everything is a statistic of weights, so
means, ratios and corpus metrics share one loop, in chunks that bound the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from diffharness.statistics.distributions import normal_cdf, student_quantile

if TYPE_CHECKING:
    from jaxtyping import Float, Int

N_RESAMPLES = 2000
_CHUNK_CELLS = 4_000_000
"""Cells of a weights or signs matrix held at a time (32 MB)."""

Statistic: TypeAlias = 'Callable[[Float[np.ndarray, "R N"]], Float[np.ndarray, "R ..."]]'


@dataclass(frozen=True)
class Intervals:
    """Two-sided intervals, one a column (0-dimensional for a single statistic)."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    level: float
    method: str

    def excludes_zero(self) -> npt.NDArray[np.bool_]:
        """Whether zero lies outside each interval."""
        return (self.low > 0) | (self.high < 0)


def bootstrap_statistic(
    statistic: Statistic,
    n: int,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    clusters: npt.ArrayLike | None = None,
) -> Float[np.ndarray, "R ..."]:
    """Draws of a statistic recomputed on resampled documents.

    `statistic` maps weights (r, N), how often each of the N documents was drawn in each of r resamples, to
    values (r,) or (r, C). A corpus metric that needs the documents themselves takes
    `np.repeat(np.arange(N), weights[i].astype(int))` for resample i.
    `clusters` (N,) names the cluster of each document; whole clusters are drawn.
    """
    if n < 1:
        raise ValueError("a bootstrap needs at least one document")
    cluster_N = _codes(clusters, n)
    draws = [
        np.asarray(statistic(weights_RG[:, cluster_N]), dtype=np.float64)
        for weights_RG in _weights(int(cluster_N.max()) + 1, n, rng, n_resamples)
    ]
    return np.concatenate(draws)


def bootstrap_means(
    values_NC: Float[np.ndarray, "N C"],
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    clusters: npt.ArrayLike | None = None,
) -> Float[np.ndarray, "R C"]:
    """Bootstrap draws of the column means; every column sees the same resamples, so sums stay sums.

    With `clusters` (N,) whole clusters are drawn and a mean is the sum over the number of documents drawn.
    """
    values_NC = np.asarray(values_NC, dtype=np.float64)
    n = len(values_NC)
    if n < 1:
        raise ValueError("a bootstrap needs at least one document")
    cluster_N = _codes(clusters, n)
    sums_GC, sizes_G = _cluster_sums(values_NC, cluster_N)
    draws = [
        (weights_RG @ sums_GC) / (weights_RG @ sizes_G)[:, None]
        for weights_RG in _weights(len(sizes_G), len(sizes_G), rng, n_resamples)
    ]
    return np.concatenate(draws)


def bootstrap_ratio(
    numerator_N: Float[np.ndarray, " N"],
    denominator_N: Float[np.ndarray, " N"],
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    clusters: npt.ArrayLike | None = None,
) -> Float[np.ndarray, " R"]:
    """Bootstrap draws of Σ numerator / Σ denominator over documents (bits per byte, perplexity's log)."""
    pair_N2 = np.stack([numerator_N, denominator_N], axis=1)
    mean_R2 = bootstrap_means(pair_N2, rng, n_resamples, clusters)
    return mean_R2[:, 0] / mean_R2[:, 1]


def percentile_interval(draws: Float[np.ndarray, "R ..."], level: float = 0.95, n: int | None = None) -> Intervals:
    """Percentiles of bootstrap draws along the first axis.

    With `n`, the number of documents (or clusters) resampled, the percentiles are moved outwards so that for
    a mean of n normal values the interval has Student's width, not one too narrow by √((n−1)/n) · z/t:
    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", the expanded percentile interval.
    """
    tail = (1 - level) / 2
    method = "percentile bootstrap"
    if n is not None and n > 1:
        tail = float(normal_cdf(np.sqrt(n / (n - 1)) * student_quantile(tail, n - 1)))
        method = "expanded percentile bootstrap"
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return Intervals(low=np.asarray(low), high=np.asarray(high), level=level, method=method)


def paired_bootstrap(
    difference_NC: Float[np.ndarray, "N ..."],
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
    clusters: npt.ArrayLike | None = None,
) -> Intervals:
    """Expanded percentile intervals of the mean paired difference, one a column (or one for a vector)."""
    difference = np.asarray(difference_NC, dtype=np.float64)
    columns_NC = difference.reshape(len(difference), -1)
    draws_RC = bootstrap_means(columns_NC, rng, n_resamples, clusters)
    n_units = int(_codes(clusters, len(difference)).max()) + 1
    found = percentile_interval(draws_RC, level, n_units)
    shape = difference.shape[1:]
    return Intervals(found.low.reshape(shape), found.high.reshape(shape), level, found.method)


def sign_flip_p(
    values_NC: Float[np.ndarray, "N ..."],
    rng: np.random.Generator,
    n_flips: int = 9999,
    clusters: npt.ArrayLike | None = None,
) -> Float[np.ndarray, " *C"]:
    """Two-sided p-values that each column's mean is 0, by flipping the signs of documents (or clusters).

    All 2^N sign patterns are enumerated where they are at most `n_flips`; otherwise random ones with the
    observed one counted in (Phipson & Smyth 2010: (1 + hits) / (1 + flips)), so that a p-value is never 0.
    Columns share the flips. A column of zeros has p = 1.
    """
    values = np.asarray(values_NC, dtype=np.float64)
    columns_NC = values.reshape(len(values), -1)
    sums_GC, _ = _cluster_sums(columns_NC, _codes(clusters, len(values)))
    sums_GC = sums_GC[np.any(sums_GC != 0, axis=1)]
    observed_C = np.abs(sums_GC.sum(axis=0))
    threshold_C = observed_C - 1e-9 * np.abs(sums_GC).sum(axis=0)
    exact = len(sums_GC) < 60 and 2 ** len(sums_GC) <= n_flips
    hits_C = np.zeros(columns_NC.shape[1], dtype=np.int64)
    n_patterns = 0
    for signs_RG in _all_signs(len(sums_GC)) if exact else _random_signs(len(sums_GC), rng, n_flips):
        hits_C += (np.abs(signs_RG @ sums_GC) >= threshold_C).sum(axis=0)
        n_patterns += len(signs_RG)
    p_C = hits_C / n_patterns if exact else (hits_C + 1) / (n_patterns + 1)
    return p_C.reshape(values.shape[1:])


def sign_flip_interval(
    values_N: Float[np.ndarray, " N"],
    rng: np.random.Generator,
    level: float = 0.95,
    n_subsets: int = 9999,
    clusters: npt.ArrayLike | None = None,
) -> tuple[float, float]:
    """The means that the sign-flip test does not refuse: percentiles of the means of random subsets.

    Hartigan 1969, "Using Subsample Values as Typical Values": flipping the signs of a subset of values − δ
    beats the observed sum exactly when δ lies beyond the subset's mean. It stays honest where few documents
    differ: at 95 % it can not exclude 0 before six of them do, all in one direction. The empty subset has no
    mean and counts as beyond either end, so that fewer than six documents give (−∞, ∞).
    """
    mean_R = np.sort(subset_means(np.asarray(values_N)[:, None], rng, n_subsets, clusters)[:, 0])
    low_R = np.sort(np.where(np.isinf(mean_R), -np.inf, mean_R))
    cut = int(np.floor((1 - level) / 2 * (n_subsets + 1)))
    return float(low_R[max(cut - 1, 0)]), float(mean_R[min(n_subsets - cut, n_subsets - 1)])


def subset_means(
    values_NC: Float[np.ndarray, "N C"],
    rng: np.random.Generator,
    n_subsets: int = 9999,
    clusters: npt.ArrayLike | None = None,
) -> Float[np.ndarray, "R C"]:
    """Means of random subsets of documents (or clusters), columns sharing the subsets; infinite for an empty one."""
    sums_GC, sizes_G = _cluster_sums(np.asarray(values_NC, dtype=np.float64), _codes(clusters, len(values_NC)))
    means: list[npt.NDArray[np.float64]] = []
    for signs_RG in _random_signs(len(sizes_G), rng, n_subsets):
        chosen_RG = (signs_RG > 0).astype(np.float64)
        size_R1 = (chosen_RG @ sizes_G)[:, None]
        sum_RC = chosen_RG @ sums_GC
        means.append(np.divide(sum_RC, size_R1, out=np.full(sum_RC.shape, np.inf), where=size_R1 > 0))
    return np.concatenate(means)


def _codes(clusters: npt.ArrayLike | None, n: int) -> Int[np.ndarray, " N"]:
    if clusters is None:
        return np.arange(n)
    names_N = np.asarray(clusters)
    if names_N.shape != (n,):
        raise ValueError(f"{n} documents need {n} cluster names, got shape {names_N.shape}")
    return np.unique(names_N, return_inverse=True)[1]


def _cluster_sums(
    values_NC: Float[np.ndarray, "N C"], cluster_N: Int[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "G C"], Float[np.ndarray, " G"]]:
    sizes_G = np.bincount(cluster_N).astype(np.float64)
    if len(sizes_G) == len(values_NC):
        return values_NC, np.ones(len(values_NC))
    sums_GC = np.zeros((len(sizes_G), values_NC.shape[1]))
    np.add.at(sums_GC, cluster_N, values_NC)
    return sums_GC, sizes_G


def _weights(
    n_clusters: int, n_columns: int, rng: np.random.Generator, n_resamples: int
) -> Iterator[Float[np.ndarray, "r G"]]:
    """How often each cluster is drawn, in chunks of as many resamples as leave `n_columns` cells each."""
    chunk = max(1, _CHUNK_CELLS // n_columns)
    for start in range(0, n_resamples, chunk):
        rows = min(chunk, n_resamples - start)
        drawn = rng.integers(0, n_clusters, size=(rows, n_clusters))
        drawn += np.arange(rows)[:, None] * n_clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * n_clusters)
        yield counts.reshape(rows, n_clusters).astype(np.float64)


def _random_signs(n: int, rng: np.random.Generator, n_flips: int) -> Iterator[Float[np.ndarray, "r N"]]:
    chunk = max(1, _CHUNK_CELLS // max(n, 1))
    for start in range(0, n_flips, chunk):
        rows = min(chunk, n_flips - start)
        yield rng.integers(0, 2, size=(rows, n), dtype=np.int8).astype(np.float64) * 2 - 1


def _all_signs(n: int) -> Iterator[Float[np.ndarray, "r N"]]:
    bits = (np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1
    yield bits.astype(np.float64) * 2 - 1
