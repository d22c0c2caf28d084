"""Association with outcomes: does a latent fire more on the documents where the candidate gains, or where it loses?

An association is no cause: it is shown beside the account of the gap, never instead of it.

Legend: D documents, L latents, S strata (tasks), E active (latent, document) entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

from diffharness.statistics.maxima import stratified_max_t

_RANKED_ENTRIES = 4_000_000
"""Entries ranked at a time."""


@dataclass(frozen=True)
class Associations:
    """One row a latent; NaN where a latent was not tested."""

    statistic_L: NDArray[np.float64]
    """Standardised rank sum, about a normal deviate: positive where it fires more where the candidate gains."""
    superiority_L: NDArray[np.float64]
    """The chance that it fires more on a gaining than on a losing document of the same task, ties half (½: no
    difference), tasks weighted as in the statistic."""
    p_L: NDArray[np.float64]
    """Two-sided, the latent by itself."""
    p_adjusted_L: NDArray[np.float64]
    """Corrected for having looked at every latent tested (step-down max-T)."""
    n_active_L: NDArray[np.int64]
    """Compared documents on which it fires."""
    n_gain: int
    """Compared documents where the candidate scores higher."""
    n_lose: int
    n_one_way: int
    """Documents whose scores differ that could not be compared, because all such documents of their task went one
    way: there a latent of the task can not be told from a latent of the gain."""
    n_tested: int
    method: str
    reason: str | None
    """Why nothing was tested."""


def associate(
    activation_DL: sparse.csr_array | sparse.csc_array,
    outcome_D: Float[np.ndarray, " D"],
    rng: np.random.Generator,
    *,
    strata_D: Sequence[str] | NDArray | None = None,
    n_permutations: int = 999,
    minimum_documents: int = 10,
    minimum_active: int = 5,
) -> Associations:
    """Compare every latent's activation between documents where the candidate gains and where it loses.

    The statistic is van Elteren's (1960): within each task the documents are ranked by activation, ties (all the
    documents on which the latent is silent) at their mean rank, and the rank sums of the gaining documents are added
    with weights 1 / (n_s + 1). Ranks make it the same in whatever unit a latent is measured, and proof against a few
    documents with huge activation; strata keep a latent that only marks a task with many gains from being called; and
    less the rank of the silent documents, which cancels, the ranks are as sparse as the activations. Significance comes
    from shuffling gains and losses within tasks, the same shuffle for all latents, so that their dependence is kept.

    Args:
        activation_DL: mean activation a coded token of every document, ≥ 0.
        outcome_D: candidate's score − baseline's, higher being better for the candidate; documents with 0 are left out.
        rng: for the permutations.
        strata_D: the task of each document; left out, all are of one task.
        n_permutations: no p-value is below 1 / (1 + n_permutations).
        minimum_documents: compared on either side, or nothing is tested.
        minimum_active: compared documents on which a latent has to fire to be tested; blind to gains and losses.

    Raises:
        ValueError: lengths differ, an outcome is not finite, or an activation is negative or not finite.
    """
    activation_DL, outcome_D = sparse.csr_array(activation_DL), np.asarray(outcome_D, dtype=np.float64)
    stratum_D = _strata(activation_DL, outcome_D, strata_D)
    gains_D, differs_D = outcome_D > 0, outcome_D != 0
    both_S = (np.bincount(stratum_D, gains_D) > 0) & (np.bincount(stratum_D, differs_D & ~gains_D) > 0)
    used_D = differs_D & both_S[stratum_D]
    gains_D, stratum_D = gains_D[used_D], np.unique(stratum_D[used_D], return_inverse=True)[1]
    n_gain, n_lose = int(gains_D.sum()), int((~gains_D).sum())
    n_one_way = int(differs_D.sum()) - n_gain - n_lose

    active_LD = sparse.csr_array(activation_DL[used_D].T)
    active_LD.eliminate_zeros()
    n_active_L = np.diff(active_LD.indptr).astype(np.int64)
    tested_L = np.flatnonzero(n_active_L >= minimum_active)
    statistic_L, superiority_L, p_L, p_adjusted_L = np.full((4, len(n_active_L)), np.nan)
    reason = _reason(n_gain, n_lose, n_one_way, minimum_documents, len(tested_L), minimum_active)
    if reason is None:
        score_LD = _rank_scores(active_LD[tested_L], stratum_D)
        found = stratified_max_t(sparse.csc_array(score_LD.T), gains_D, stratum_D, rng, n_permutations)
        statistic_L[tested_L], p_L[tested_L], p_adjusted_L[tested_L] = found.statistic_L, found.p_L, found.p_adjusted_L
        superiority_L[tested_L] = 0.5 + found.sum_L / _most(gains_D, stratum_D)
    n_tested = int(np.isfinite(p_L).sum())
    method = f"rank sums within tasks, step-down max-T over {n_tested:,} latents, {n_permutations:,} permutations"
    return Associations(
        statistic_L, superiority_L, p_L, p_adjusted_L, n_active_L, n_gain, n_lose, n_one_way, n_tested, method, reason
    )


def _strata(
    activation_DL: sparse.csr_array,
    outcome_D: NDArray[np.float64],
    strata_D: Sequence[str] | NDArray | None,
) -> NDArray[np.intp]:
    """Tasks as numbers from 0; what was given is checked."""
    n = len(activation_DL.indptr) - 1
    names_D = np.zeros(n) if strata_D is None else np.asarray(strata_D)
    if outcome_D.shape != (n,) or names_D.shape != (n,):
        raise ValueError(f"{n} documents with {outcome_D.shape} outcomes and {names_D.shape} strata")
    if not np.isfinite(outcome_D).all():
        raise ValueError("an outcome is not a finite number; leave such documents out")
    if not np.isfinite(activation_DL.data).all() or (activation_DL.data < 0).any():
        raise ValueError("an activation is negative or not a finite number")
    return np.unique(names_D, return_inverse=True)[1]


def _reason(
    n_gain: int, n_lose: int, n_one_way: int, minimum_documents: int, n_latents: int, minimum_active: int
) -> str | None:
    if min(n_gain, n_lose) < minimum_documents:
        left_out = f" ({n_one_way} more are of tasks where all go one way)" if n_one_way else ""
        return (
            f"the candidate gains on {n_gain} and loses on {n_lose} documents{left_out}; "
            f"at least {minimum_documents} of each are needed"
        )
    if n_latents == 0:
        return f"no latent fires on {minimum_active} or more of the {n_gain + n_lose} documents whose scores differ"
    return None


def _rank_scores(active_LD: sparse.csr_array, stratum_D: NDArray[np.intp]) -> sparse.csr_array:
    """(rank in the task − rank of the task's silent documents) / (n_s + 1) of every active entry."""
    n_S = np.bincount(stratum_D)
    score_E = np.empty(active_LD.nnz)
    start = 0
    while start < len(active_LD.indptr) - 1:
        limit = active_LD.indptr[start] + _RANKED_ENTRIES
        stop = max(start + 1, int(np.searchsorted(active_LD.indptr, limit, side="right")) - 1)
        block = slice(active_LD.indptr[start], active_LD.indptr[stop])
        latent_E = np.repeat(np.arange(stop - start), np.diff(active_LD.indptr[start : stop + 1]))
        stratum_E = stratum_D[active_LD.indices[block]]
        score_E[block] = _group_scores(
            latent_E * len(n_S) + stratum_E, np.asarray(active_LD.data[block]), n_S[stratum_E]
        )
        start = stop
    return sparse.csr_array((score_E, active_LD.indices, active_LD.indptr), shape=active_LD.shape)


def _group_scores(group_E: NDArray[np.intp], value_E: NDArray, size_E: NDArray[np.intp]) -> NDArray[np.float64]:
    """Scores of entries within their group of `size_E` documents, of which those without an entry are tied at 0."""
    order_E = np.lexsort((value_E, group_E))
    sorted_E, value_E = group_E[order_E], value_E[order_E]
    new_group_E = np.diff(sorted_E, prepend=-1) != 0
    new_tie_E = new_group_E | np.concatenate([[True], value_E[1:] != value_E[:-1]])[: len(value_E)]
    group_start_E = np.flatnonzero(new_group_E)[np.cumsum(new_group_E) - 1]
    tie_E, tie_start = np.cumsum(new_tie_E) - 1, np.flatnonzero(new_tie_E)
    tie_size = np.diff(tie_start, append=len(value_E))
    place_E = (tie_start + (tie_size + 1) / 2)[tie_E] - group_start_E
    n_active_E = np.diff(np.flatnonzero(new_group_E), append=len(value_E))[np.cumsum(new_group_E) - 1]
    size_E = size_E[order_E]
    score_E = np.empty(len(value_E))
    score_E[order_E] = (place_E + (size_E - n_active_E - 1) / 2) / (size_E + 1)
    return score_E


def _most(gains_D: NDArray[np.bool_], stratum_D: NDArray[np.intp]) -> float:
    """Twice the largest sum of centred scores: what turns a sum into a chance, Σ_s g_s (n_s − g_s) / (n_s + 1)."""
    n_S, n_gain_S = np.bincount(stratum_D), np.bincount(stratum_D, gains_D)
    return float((n_gain_S * (n_S - n_gain_S) / (n_S + 1)).sum())
