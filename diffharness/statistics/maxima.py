"""Westfall–Young: many sparse scores against one two-way label, corrected for having looked at all of them.

Legend: D documents, L scores (latents), S strata, R permutations, r of them at a time, l scores at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import sparse

_LABEL_CELLS = 400_000
"""Cells of the permuted labels held at a time: 3 MB, so that the rows that a product gathers stay in the cache."""
_STATISTIC_CELLS = 4_000_000
"""Cells of permuted statistics held at a time (32 MB)."""
_CONSTANT = 1e-12
"""A score whose variance within strata is below this share of its sum of squares is constant but for rounding."""
_SMALLEST_SKEWNESS = 1e-6
"""Below it there is nothing to correct but rounding."""
_TIE = 1e-8
"""Statistics closer than this (in standard deviations) are equal but for rounding."""


@dataclass(frozen=True)
class MaxT:
    """One row a score; NaN throughout where the score is constant within every stratum that has both labels."""

    sum_L: NDArray[np.float64]
    """Σ over documents with the label of (score − mean of the score in the stratum)."""
    standardised_L: NDArray[np.float64]
    """`sum_L` over its standard deviation under permutation."""
    statistic_L: NDArray[np.float64]
    """The same with its skewness under permutation taken out: about a normal deviate, and comparable between scores."""
    p_L: NDArray[np.float64]
    """Two-sided, each score by itself."""
    p_adjusted_L: NDArray[np.float64]
    """Step-down max-T: the chance of any false call among all scores is at most the level."""


def stratified_max_t(
    score_DL: sparse.csr_array | sparse.csc_array,
    label_D: Bool[np.ndarray, " D"],
    stratum_D: Int[np.ndarray, " D"],
    rng: np.random.Generator,
    n_permutations: int = 999,
) -> MaxT:
    """Whether scores are larger with the label than without, by permuting labels within strata.

    The statistic is linear, so that all permutations of all scores are one product of a matrix of labels with the
    sparse scores, and what is constant in a stratum cancels: scores may be shifted so that most of them are 0. Its
    variance under permutation is known, Σ_s g_s (n_s − g_s) / (n_s (n_s − 1)) · Σ (score − mean)² with g_s labels
    among n_s documents, and so is its third moment. A score that is not 0 on few documents is skewed where labels
    are rare, and would alone set the height of the maximum; so all are brought to a normal shape first (Wilson &
    Hilferty 1931: a cube root, rising throughout, so p-values stay exact whatever the shape). They count the
    observed labels in (Phipson & Smyth 2010), so none is below 1 / (1 + R). Step-down: Westfall & Young 1993,
    algorithm 4.1 (strong control under subset pivotality).

    Raises `ValueError` where the lengths differ.
    """
    label_D = np.asarray(label_D, dtype=bool)
    if np.shape(stratum_D) != label_D.shape:
        raise ValueError(f"{label_D.shape} labels with {np.shape(stratum_D)} strata")
    stratum_D = np.unique(stratum_D, return_inverse=True)[1]
    score_LD = sparse.csr_array(score_DL.T, dtype=np.float64)
    deviation_L, skewness_L = _moments(score_LD, label_D, stratum_D)
    tested_L = np.flatnonzero(deviation_L > 0)
    sum_L = score_LD @ centred_labels(label_D, stratum_D)
    sum_L[deviation_L == 0] = np.nan
    standardised_L = np.divide(sum_L, deviation_L, out=np.full(len(sum_L), np.nan), where=deviation_L > 0)
    statistic_L = _normal(standardised_L, skewness_L)
    rising_L = tested_L[np.argsort(np.abs(statistic_L[tested_L]), kind="stable")]
    own_L, step_L = _exceedances(
        score_LD[rising_L],
        (deviation_L[rising_L], skewness_L[rising_L]),
        np.abs(statistic_L[rising_L]),
        permuted_labels(label_D, stratum_D, rng, n_permutations),
    )
    p_L, p_adjusted_L = np.full(len(sum_L), np.nan), np.full(len(sum_L), np.nan)
    p_L[rising_L] = (1 + own_L) / (1 + n_permutations)
    p_adjusted_L[rising_L] = np.maximum.accumulate((1 + step_L[::-1]) / (1 + n_permutations))[::-1]
    return MaxT(sum_L, standardised_L, statistic_L, p_L, p_adjusted_L)


def centred_labels(label_D: Bool[np.ndarray, " D"], stratum_D: Int[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """1 or 0 less the stratum's share of labels, so that what is constant in a stratum cancels. Strata from 0."""
    share_S = np.bincount(stratum_D, label_D) / np.maximum(np.bincount(stratum_D), 1)
    return label_D - share_S[stratum_D]


def permuted_labels(
    label_D: Bool[np.ndarray, " D"], stratum_D: Int[np.ndarray, " D"], rng: np.random.Generator, n_permutations: int
) -> Iterator[Float[np.ndarray, "D r"]]:
    """Centred labels shuffled within strata, some permutations at a time. Strata are numbered from 0."""
    centred_D = centred_labels(np.asarray(label_D, dtype=bool), stratum_D)
    members = [np.flatnonzero(stratum_D == s) for s in range(int(stratum_D.max(initial=-1)) + 1)]
    chunk = max(1, _LABEL_CELLS // max(len(centred_D), 1))
    for start in range(0, n_permutations, chunk):
        rows = min(chunk, n_permutations - start)
        shuffled_Dr = np.empty((len(centred_D), rows))
        for places in members:
            shuffled_Dr[places] = rng.permuted(np.tile(centred_D[places], (rows, 1)), axis=1).T
        yield shuffled_Dr


def _moments(
    score_LD: sparse.csr_array, label_D: NDArray[np.bool_], stratum_D: NDArray[np.intp]
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Standard deviation and skewness of the sums under permutation; exactly 0 where a score does not vary.

    With centred scores c and labels y, Σ c² Σ y² / (n − 1) and n Σ c³ Σ y³ / ((n − 1) (n − 2)) in every stratum.
    """
    n_S = np.bincount(stratum_D).astype(np.float64)
    n_labels_S = np.bincount(stratum_D, label_D)
    n_others_S = n_S - n_labels_S
    second_S = n_labels_S * n_others_S / (n_S * np.maximum(n_S - 1, 1))
    third_S = n_labels_S * n_others_S * (n_others_S - n_labels_S) / (n_S * np.maximum((n_S - 1) * (n_S - 2), 1))
    member_DS = sparse.csr_array((np.ones(len(stratum_D)), (np.arange(len(stratum_D)), stratum_D)))
    sum_LS, square_LS, cube_LS = (sparse.csr_array(score_LD.power(p) @ member_DS) for p in (1, 2, 3))
    square_L = square_LS @ second_S
    variance_L = square_L - sum_LS.power(2) @ (second_S / n_S)
    variance_L = np.where(variance_L > _CONSTANT * square_L, variance_L, 0.0)
    third_L = (
        cube_LS @ third_S
        - 3 * (sum_LS.multiply(square_LS) @ (third_S / n_S))
        + 2 * (sum_LS.power(3) @ (third_S / n_S**2))
    )
    skewness_L = np.divide(third_L, variance_L**1.5, out=np.zeros_like(third_L), where=variance_L > 0)
    return np.sqrt(variance_L), skewness_L


def _normal(z_L: NDArray[np.float64], skewness_L: NDArray[np.float64]) -> NDArray[np.float64]:
    """A normal deviate from a standardised gamma variate of that skewness, by Wilson & Hilferty."""
    skewed_L = np.abs(skewness_L) > _SMALLEST_SKEWNESS
    a_L = np.where(skewed_L, skewness_L, 1.0)
    return np.where(skewed_L, (np.cbrt(1 + a_L * z_L / 2) - 1) * 6 / a_L + a_L / 6, z_L)


def _exceedances(
    score_LD: sparse.csr_array,
    moments: tuple[NDArray[np.float64], NDArray[np.float64]],
    size_L: NDArray[np.float64],
    permutations: Iterator[Float[np.ndarray, "D r"]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often a score's own permuted statistic, and the largest of its and all smaller ones', reaches its size.

    Scores come by rising size. The running maximum goes from block to block, so that nothing of R × L is held.
    """
    n_scores = len(size_L)
    own_L, step_L = np.zeros(n_scores, dtype=np.int64), np.zeros(n_scores, dtype=np.int64)
    for label_Dr in permutations:
        largest_r = np.zeros(label_Dr.shape[1])
        chunk = max(1, _STATISTIC_CELLS // label_Dr.shape[1])
        for start in range(0, n_scores, chunk):
            block = slice(start, start + chunk)
            deviation_l1, skewness_l1 = (moment_L[block, None] for moment_L in moments)
            permuted_lr = np.abs(_normal((score_LD[block] @ label_Dr) / deviation_l1, skewness_l1))
            limit_l1 = size_L[block, None] - _TIE
            own_L[block] += (permuted_lr >= limit_l1).sum(axis=1)
            np.maximum(permuted_lr[0], largest_r, out=permuted_lr[0])
            np.maximum.accumulate(permuted_lr, axis=0, out=permuted_lr)
            step_L[block] += (permuted_lr >= limit_l1).sum(axis=1)
            largest_r = permuted_lr[-1].copy()
    return own_L, step_L
