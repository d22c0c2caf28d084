"""Rank statistics: Mann–Whitney for many latents at once, Spearman's correlation.

Legend: N texts, L latents, K categories.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

_CHUNK_CELLS = 4_000_000
"""Cells of the scores ranked at a time."""


def mann_whitney(
    scores_NL: Float[np.ndarray, "N L"], is_member_N: Bool[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """AUROC and one-sided p-value (members score *higher*) of every column; see `mann_whitney_table`."""
    auroc_LK, p_LK = mann_whitney_table(scores_NL, np.asarray(is_member_N)[:, None])
    return auroc_LK[:, 0], p_LK[:, 0]


def mann_whitney_table(
    scores_NL: Float[np.ndarray, "N L"], member_NK: Bool[np.ndarray, "N K"]
) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, "L K"]]:
    """AUROC and one-sided p-value of every column of scores against every group: members v all others.

    AUROC counts a tie as half. The p-value is for *greater*, because a latent that stands for a category
    fires more on it: the normal approximation with the variance corrected for ties and a continuity
    correction of ½ (Hollander, Wolfe & Chicken 2013, 4.1), which is
    `scipy.stats.mannwhitneyu(members, others, alternative="greater", method="asymptotic")`. A column that is
    tied throughout has AUROC 0.5 and p 1.

    Raises `ValueError` where a group is empty or holds every text, or a score is NaN.
    """
    scores_NL = np.asarray(scores_NL)
    member_NK = np.asarray(member_NK, dtype=bool)
    n, n_latents = scores_NL.shape
    n_member_K = member_NK.sum(axis=0)
    if member_NK.shape[0] != n or np.any(n_member_K == 0) or np.any(n_member_K == n):
        raise ValueError("every group needs members and others among the texts")
    auroc_LK = np.empty((n_latents, member_NK.shape[1]))
    p_LK = np.empty_like(auroc_LK)
    chunk = max(1, _CHUNK_CELLS // n)
    for start in range(0, n_latents, chunk):
        columns = slice(start, start + chunk)
        auroc_LK[columns], p_LK[columns] = _chunk_table(scores_NL[:, columns], member_NK)
    return auroc_LK, p_LK


def _chunk_table(
    scores_NL: Float[np.ndarray, "N L"], member_NK: Bool[np.ndarray, "N K"]
) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, "L K"]]:
    rank_NL, ties_L = _ranks(scores_NL)
    n = len(rank_NL)
    member_KN = member_NK.T.astype(np.float64)
    n_in_K = member_KN.sum(axis=1)
    n_out_K = n - n_in_K
    u_LK = (member_KN @ rank_NL).T - n_in_K * (n_in_K + 1) / 2
    variance_LK = (n_in_K * n_out_K / 12) * ((n + 1) - ties_L[:, None] / (n * (n - 1)))
    tied_LK = np.broadcast_to((ties_L >= n**3 - n)[:, None], u_LK.shape)
    deviation_LK = np.sqrt(np.where(tied_LK, 1.0, variance_LK))
    z_LK = (u_LK - n_in_K * n_out_K / 2 - 0.5) / deviation_LK
    p_LK = np.where(tied_LK, 1.0, stats.norm.sf(z_LK))
    return u_LK / (n_in_K * n_out_K), p_LK


def _ranks(scores_NL: Float[np.ndarray, "N L"]) -> tuple[Float[np.ndarray, "N L"], Float[np.ndarray, " L"]]:
    """Average ranks from 1, and Σ(t³ − t) over each column's groups of t tied scores."""
    if np.isnan(scores_NL).any():
        raise ValueError("scores hold NaN, which has no rank")
    n = len(scores_NL)
    order_NL = np.argsort(scores_NL, axis=0, kind="stable")
    sorted_NL = np.take_along_axis(scores_NL, order_NL, axis=0)
    starts_NL = np.ones(sorted_NL.shape, dtype=bool)
    starts_NL[1:] = sorted_NL[1:] != sorted_NL[:-1]
    ends_NL = np.ones_like(starts_NL)
    ends_NL[:-1] = starts_NL[1:]
    place_N1 = np.arange(n)[:, None]
    first_NL = np.maximum.accumulate(np.where(starts_NL, place_N1, 0), axis=0)
    last_NL = np.minimum.accumulate(np.where(ends_NL, place_N1, n - 1)[::-1], axis=0)[::-1]
    rank_NL = np.empty(scores_NL.shape, dtype=np.float64)
    np.put_along_axis(rank_NL, order_NL, (first_NL + last_NL) / 2 + 1, axis=0)
    size_NL = (last_NL - first_NL + 1).astype(np.float64)
    return rank_NL, (size_NL**2 - 1).sum(axis=0)


def spearman(x_N: Float[np.ndarray, " N"], y_N: Float[np.ndarray, " N"]) -> float | None:
    """Spearman's rank correlation with ties at their average rank; `None` where either side is constant."""
    x_N, y_N = np.asarray(x_N, dtype=np.float64), np.asarray(y_N, dtype=np.float64)
    if x_N.shape != y_N.shape or x_N.ndim != 1:
        raise ValueError(f"two vectors of one length are compared, got {x_N.shape} and {y_N.shape}")
    if len(x_N) < 2 or np.all(x_N == x_N[0]) or np.all(y_N == y_N[0]):
        return None
    rank_N2, _ = _ranks(np.stack([x_N, y_N], axis=1))
    centred_N2 = rank_N2 - rank_N2.mean(axis=0)
    covariance_22 = centred_N2.T @ centred_N2
    value = covariance_22[0, 1] / np.sqrt(covariance_22[0, 0] * covariance_22[1, 1])
    return float(np.clip(value, -1.0, 1.0))
