"""Mann–Whitney for many latents that are silent on most texts: only the entries that are not 0 are ranked.

Legend: N texts, L latents, K categories, E entries that are not 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse, stats


def mann_whitney_sparse(
    scores_NL: sparse.csc_array, member_NK: Bool[np.ndarray, "N K"]
) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, "L K"]]:
    """AUROC and one-sided p-value of every column against every group, as `ranks.mann_whitney_table` gives them.

    Ranks are whole or half numbers and their sums exact, so that both give the same to the bit; this one's time
    goes with the entries. Raises `ValueError` where a group is empty or holds every text, or a score is NaN.
    """
    member_NK = np.asarray(member_NK, dtype=bool)
    n, n_latents = scores_NL.shape or (0, 0)
    n_in_K = member_NK.sum(axis=0).astype(np.float64)
    n_out_K = n - n_in_K
    if len(member_NK) != n or np.any(n_in_K == 0) or np.any(n_out_K == 0):
        raise ValueError("every group needs members and others among the texts")
    entry = sparse.coo_array(scores_NL)
    present_E = entry.data != 0
    order_E = np.lexsort((entry.data[present_E], entry.col[present_E]))
    value_E, latent_E = entry.data[present_E][order_E], entry.col[present_E][order_E]
    text_E = entry.row[present_E][order_E]
    if np.isnan(value_E).any():
        raise ValueError("scores hold NaN, which has no rank")

    n_active_L = np.bincount(latent_E, minlength=n_latents)
    n_zero_L = (n - n_active_L).astype(np.float64)
    n_negative_L = np.bincount(latent_E[value_E < 0], minlength=n_latents)
    zero_rank_L = n_negative_L + (n_zero_L + 1) / 2

    starts_E = np.ones(len(value_E), dtype=bool)
    starts_E[1:] = (latent_E[1:] != latent_E[:-1]) | (value_E[1:] != value_E[:-1])
    group_E = np.cumsum(starts_E) - 1
    first_G = np.flatnonzero(starts_E)
    size_G = np.diff(np.append(first_G, len(value_E))).astype(np.float64)
    before_L = np.cumsum(n_active_L) - n_active_L
    among_active_E = first_G[group_E] - before_L[latent_E] + (size_G[group_E] + 1) / 2
    rank_E = among_active_E + np.where(value_E > 0, n_zero_L[latent_E], 0)

    above_zeros_LN = sparse.csr_array((rank_E - zero_rank_L[latent_E], (latent_E, text_E)), shape=(n_latents, n))
    rank_sum_LK = above_zeros_LN @ member_NK.astype(np.float64) + zero_rank_L[:, None] * n_in_K
    ties_L = n_zero_L**3 - n_zero_L
    ties_L += np.bincount(latent_E[first_G], weights=size_G**3 - size_G, minlength=n_latents)

    u_LK = rank_sum_LK - n_in_K * (n_in_K + 1) / 2
    variance_LK = (n_in_K * n_out_K / 12) * ((n + 1) - ties_L[:, None] / (n * (n - 1)))
    tied_LK = np.broadcast_to((ties_L >= n**3 - n)[:, None], u_LK.shape)
    z_LK = (u_LK - n_in_K * n_out_K / 2 - 0.5) / np.sqrt(np.where(tied_LK, 1.0, variance_LK))
    return u_LK / (n_in_K * n_out_K), np.where(tied_LK, 1.0, stats.norm.sf(z_LK))
