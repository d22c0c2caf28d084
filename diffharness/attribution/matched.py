"""Random sets of latents that are like a category's in how often they fire and how far they move the state.

What a latent moves: *written*, f_j (d_j^c − d_j^b), which putting it back undoes; *read*, f_j d_j^b, which taking it
out of the baseline's state undoes. A set has as many latents as the category has firing ones. Each is drawn at random
from the `NEAREST` latents outside the category whose frequency and mean norm have the nearest quantiles among all that
fire on the task; no latent comes twice into one set, and sets may share latents. What is left of a difference in size
is made up by one factor a set, so that its total change has exactly the category's norm (root of the sum of squares
over all tokens). With too few other latents, or none that move the state nearly as far, there is no fair comparison and
the claim is not tried (`NotTriedError`).

Legend: L latents, S sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from diffharness.attribution.spliced import SplicedScores
from diffharness.attribution.states import PairStates

Origin = Literal["written", "read"]
NEAREST = 12
"""Latents that one of a random set is drawn from."""
MOST_FACTOR = 3.0
"""Random sets whose change has to be made larger than this, in the middle one, are no match."""


class NotTriedError(Exception):
    """Why there are no matched sets; shown in the report in place of a comparison."""


@dataclass(frozen=True)
class Sizes:
    """How often each latent fires on some documents, and how far it moves the state when it does."""

    count_L: Float[np.ndarray, " L"]
    """Tokens at which it fires."""
    norm_L: Float[np.ndarray, " L"]
    """Mean norm of what it moves at those; raw units of the residual stream."""


@dataclass(frozen=True)
class MatchedSets:
    """Random sets, and the factor that gives each the category's norm."""

    sets: tuple[Int[np.ndarray, " n"], ...]
    factors: tuple[float, ...]


@torch.no_grad()
def latent_sizes(spliced: SplicedScores, origin: Origin) -> Sizes:
    """Frequency and mean norm of every latent on the documents."""
    decoder_LMD = spliced.pair.crosscoder.raw_decoder().double()
    base_L, both_L, cand_L = ((decoder_LMD[:, a] * decoder_LMD[:, b]).sum(dim=-1) for a, b in ((0, 0), (0, 1), (1, 1)))
    count_L, total_L = torch.zeros_like(base_L), torch.zeros_like(base_L)
    for states in spliced.states():
        latent_E, (base_E, cand_E) = states.latent_E, states.value_EM.unbind(dim=1)
        squared_E = base_E**2 * base_L[latent_E]
        if origin == "written":
            squared_E += cand_E**2 * cand_L[latent_E] - 2 * base_E * cand_E * both_L[latent_E]
        count_L.index_add_(0, latent_E, torch.ones_like(squared_E))
        total_L.index_add_(0, latent_E, squared_E.clamp_min(0).sqrt())
    return Sizes(count_L.cpu().numpy(), (total_L / count_L.clamp_min(1)).cpu().numpy())


def matched_sets(
    spliced: SplicedScores, origin: Origin, category: Int[np.ndarray, " n"], n_sets: int, rng: np.random.Generator
) -> MatchedSets:
    """Random sets like a category's latents, with their factors.

    Args:
        spliced: the documents on which frequency and norm are measured.
        origin: what the latents move.
        category: indices of the category's latents.
        n_sets: how many sets.
        rng: draws them.

    Raises:
        NotTriedError: there is no fair comparison.
    """
    sizes = latent_sizes(spliced, origin)
    sets = draw_sets(sizes, category, n_sets, rng)
    n_latents = len(sizes.count_L)
    masks = [mask(chosen, n_latents, spliced.pair.device) for chosen in (category, *sets)]
    norms_S = _norms(spliced, origin, masks)
    if norms_S.min() == 0:
        raise NotTriedError("its latents, or those of a random set, move nothing")
    factors_S = norms_S[0] / norms_S[1:]
    if np.median(factors_S) > MOST_FACTOR:
        raise NotTriedError(
            f"other latents that fire as often move the state {np.median(factors_S):.1f} times less; sets of them are "
            "no match"
        )
    return MatchedSets(sets, tuple(factors_S.tolist()))


def draw_sets(
    sizes: Sizes, category: Int[np.ndarray, " n"], n_sets: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " n"], ...]:
    """Sets of latents outside the category, each latent near one of the category's in frequency and norm.

    Raises:
        NotTriedError: no latent of the category fires, or fewer than twice as many others do (sets would be much the
            same then).
    """
    firing = np.flatnonzero(sizes.count_L > 0)
    inside = np.isin(firing, category)
    targets, donors = np.flatnonzero(inside), np.flatnonzero(~inside)
    if len(targets) == 0:
        raise NotTriedError("none of its latents fires on the documents")
    if len(donors) < max(2 * len(targets), NEAREST):
        raise NotTriedError(
            f"only {len(donors)} latents of other categories fire on the documents, too few for random sets of "
            f"{len(targets)}"
        )
    quantile_2F = np.stack([stats.rankdata(values[firing]) for values in (sizes.count_L, sizes.norm_L)]) / len(firing)
    distance_TF = np.abs(quantile_2F[:, targets, None] - quantile_2F[:, None, donors]).max(axis=0)
    nearest_TF = np.argsort(distance_TF, axis=1, kind="stable")
    return tuple(firing[donors[_one_set(nearest_TF, rng)]] for _ in range(n_sets))


def _one_set(nearest_TF: Int[np.ndarray, "T F"], rng: np.random.Generator) -> Int[np.ndarray, " T"]:
    """For each target, in random order, one of its nearest that is still free."""
    free_F = np.ones(nearest_TF.shape[1], dtype=bool)
    found_T = np.empty(len(nearest_TF), dtype=np.int64)
    for target in rng.permutation(len(nearest_TF)):
        chosen = rng.choice(nearest_TF[target][free_F[nearest_TF[target]]][:NEAREST])
        free_F[chosen] = False
        found_T[target] = chosen
    return found_T


def mask(latents: Int[np.ndarray, " n"], n_latents: int, device: torch.device) -> Bool[Tensor, " L"]:
    """Indices as a mask over all latents."""
    chosen_L = torch.zeros(n_latents, dtype=torch.bool, device=device)
    chosen_L[torch.as_tensor(latents, device=device, dtype=torch.long)] = True
    return chosen_L


@torch.no_grad()
def _norms(spliced: SplicedScores, origin: Origin, masks: Sequence[Bool[Tensor, " L"]]) -> Float[np.ndarray, " S"]:
    """Norm of what each set of latents moves together, over all tokens."""
    squares_S = np.zeros(len(masks))
    for states in spliced.states():
        squares_S += [float(_moved(states, origin, chosen).square().sum()) for chosen in masks]
    return np.sqrt(squares_S)


def _moved(states: PairStates, origin: Origin, latents_L: Bool[Tensor, " L"]) -> Float[Tensor, "B T D"]:
    if origin == "read":
        return states.decoded(0, latents_L)
    return states.decoded(1, latents_L) - states.decoded(0, latents_L)
