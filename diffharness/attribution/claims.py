"""Is it this category, or would any latents do? Claims tried against chance, on documents that did not select them.

A claim is a category's latents on one task, by one origin. Its effect, in the surrogate's unit, a document:

    written   M_c(x^c) − M_c(x^c with the category put back to the baseline's version)
    read      [M_c(x^b) − M_c(x^b without the category)] − [M_b(x^b) − M_b(x^b without it)]

Beside it stand the same with random sets of latents (`matched.py`), with the mean difference of the two models'
states, with the reconstruction in place of the state (no latent changed, ε dropped), and with all of it (`swap`: the
candidate's layers above on the baseline's state; *written* M_c(x^c) − M_c(x^b), *read* M_c(x^b) − M_b(x^b)).

*Cross-fitting.* Which categories are tried is found by looking at what they contribute, so a task's documents are split
into halves: a category is selected on one half and its effect is tested on the other, both ways. Where only one half
selects it, only the other's documents count; where none does, it was found only where it was looked for.

*Two p-values.* The share of random sets that do as much, (1 + reaching) / (1 + sets), assumes nothing about how their
effects are distributed, but with 24 sets it is never below 0.04 and can not survive a correction for many claims. The
studentised distance of the effect from the random effects (Student's prediction interval, sets − 1 degrees of freedom)
can, but takes them to be normal. A claim has to hold by both.

Legend: N documents, C contributions, S random sets, A arms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from diffharness.attribution.matched import MatchedSets, NotTriedError, Origin, mask, matched_sets
from diffharness.attribution.spliced import (
    BASELINE,
    CANDIDATE,
    SplicedScores,
    State,
    direction_put_back,
    direction_taken_out,
    own,
    put_back,
    reconstructed,
    taken_out,
)
from diffharness.errors import RunError
from diffharness.statistics.bootstrap import Intervals, bootstrap_means, bootstrap_ratio, percentile_interval

SMALLEST_HALF = 6
"""Fewer documents can not select anything: no test of them by signs could call a contribution clear at 5 %."""


@dataclass(frozen=True)
class Documents:
    """A task's accounted documents."""

    sample_N: Float[np.ndarray, " N"]
    """How many of the task's documents each stands for."""
    weight_N: Float[np.ndarray, " N"]
    """What each weighs in the task's score, 1 on average over the task."""
    half_N: Int[np.ndarray, " N"]
    """0 or 1."""

    def mean(self, values: Float[np.ndarray, "... N"], chosen_N: Bool[np.ndarray, " N"]) -> Float[np.ndarray, "..."]:
        """The task's value of numbers a document, from some of the documents."""
        sample_n = self.sample_N[chosen_N]
        return (values[..., chosen_N] @ sample_n) / (sample_n @ self.weight_N[chosen_N])


@dataclass(frozen=True)
class Finding:
    """What the documents that did not select a claim say about it."""

    effect: float
    sign: int
    """Of the contribution that the halves selected: the sign that the effect is claimed to have."""
    interval: Intervals
    """Document bootstrap of the effect."""
    n: int
    random_S: Float[np.ndarray, " S"]
    """Effects of the random sets on the same documents."""
    n_reaching: int
    """Random sets with an effect at least as large, of either sign."""
    p_random: float
    p_studentised: float
    """Two-sided, not corrected."""


@dataclass(frozen=True)
class Wanted:
    """A category's latents to be tried."""

    category: str
    origin: Origin
    latents: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Trial:
    """A claim's arms: effects a document, in the surrogate's unit."""

    wanted: Wanted
    effect_N: Float[np.ndarray, " N"]
    random_SN: Float[np.ndarray, "S N"]
    factors: tuple[float, ...]
    """What each random set's change was multiplied by to have the category's norm."""
    not_tried: str | None
    """Why there are no random sets."""
    mean_difference_N: Float[np.ndarray, " N"]
    reconstruct_only_N: Float[np.ndarray, " N"]
    swap_N: Float[np.ndarray, " N"]


def half_of(document: str) -> int:
    """The half that a document belongs to, by a hash of its own: copies of a document are in one half."""
    return hashlib.sha256(document.encode()).digest()[0] & 1


def select(
    contributions_NC: Float[np.ndarray, "N C"],
    gap_N: Float[np.ndarray, " N"],
    documents: Documents,
    smallest_share: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, "2 C"]:
    """Which contributions each half of the documents selects: their sign there, 0 where they are not clear.

    Clear: the bootstrap interval over the half's documents excludes 0, and the contribution is at least the smallest
    share of the half's gap. One that the halves find with opposite signs is selected by neither.
    """
    signs_2C = np.zeros((2, contributions_NC.shape[1]), dtype=np.int64)
    for half in (0, 1):
        chosen_N = documents.half_N == half
        n = int(chosen_N.sum())
        if n < SMALLEST_HALF:
            continue
        sample_n1 = documents.sample_N[chosen_N, None]
        table_nX = np.hstack([contributions_NC[chosen_N], documents.weight_N[chosen_N, None]]) * sample_n1
        draws_RX = bootstrap_means(table_nX, rng)
        clear_C = percentile_interval(draws_RX[:, :-1] / draws_RX[:, -1:], n=n).excludes_zero()
        mean_C, gap = documents.mean(contributions_NC.T, chosen_N), documents.mean(gap_N, chosen_N)
        signs_2C[half] = np.sign(mean_C) * clear_C * (np.abs(mean_C) >= smallest_share * abs(gap))
    signs_2C[:, signs_2C[0] * signs_2C[1] < 0] = 0
    return signs_2C


def judge(
    effect_N: Float[np.ndarray, " N"],
    random_SN: Float[np.ndarray, "S N"],
    signs_2: Int[np.ndarray, " 2"],
    documents: Documents,
    rng: np.random.Generator,
) -> Finding | None:
    """A claim's effect against chance on the documents that did not select it; `None` where no half selected it.

    Args:
        effect_N: of the category, a document.
        random_SN: of every random set; none where it was not tried (both p-values are 1 then).
        signs_2: what each half selected it with (`select`).
        documents: their weights and halves.
        rng: draws the bootstrap.
    """
    tested_N = unseen(signs_2, documents)
    if not tested_N.any():
        return None
    sign = int(np.sign(signs_2.sum()))
    sample_n = documents.sample_N[tested_N]
    draws_R = bootstrap_ratio(effect_N[tested_N] * sample_n, documents.weight_N[tested_N] * sample_n, rng)
    effect = float(documents.mean(effect_N, tested_N))
    random_S = documents.mean(random_SN, tested_N)
    n_reaching, p_random, p_studentised = against_chance(effect, random_S, sign)
    interval = percentile_interval(draws_R, n=int(tested_N.sum()))
    return Finding(effect, sign, interval, int(tested_N.sum()), random_S, n_reaching, p_random, p_studentised)


def unseen(signs_2: Int[np.ndarray, " 2"], documents: Documents) -> Bool[np.ndarray, " N"]:
    """The documents that a claim is tested on: each half counts where the other one selected it."""
    return (signs_2[::-1] != 0)[documents.half_N]


def against_chance(effect: float, random_S: Float[np.ndarray, " S"], sign: int) -> tuple[int, float, float]:
    """How many random sets reach an effect, and the two p-values of the module's head.

    Args:
        effect: of the claim.
        random_S: of the random sets.
        sign: the sign that the effect was claimed to have; with the other one both p-values are 1.
    """
    n_sets = len(random_S)
    n_reaching = int((np.abs(random_S) >= abs(effect)).sum())
    if n_sets == 0 or sign * effect <= 0:
        return n_reaching, 1.0, 1.0
    p_random = (1 + n_reaching) / (1 + n_sets)
    spread = float(random_S.std(ddof=1)) * np.sqrt(1 + 1 / n_sets) if n_sets > 1 else 0.0
    distance = sign * (effect - float(random_S.mean()))
    if spread == 0:  # nothing to studentise by
        return n_reaching, p_random, p_random
    return n_reaching, p_random, float(min(1.0, 2 * stats.t.sf(distance / spread, n_sets - 1)))


def check_nothing_changed(spliced: SplicedScores) -> None:
    """Putting back, or taking out, no latent has to give the models' own scores to the last bit.

    Raises:
        RunError: it does not; no other arm would count.
    """
    nothing_L = mask(np.array([], dtype=np.int64), spliced.pair.crosscoder.n_latents, spliced.pair.device)
    for model, side, state in (
        (CANDIDATE, "candidate", put_back(nothing_L)),
        (BASELINE, "baseline", taken_out(nothing_L)),
    ):
        found_N, wanted_N = spliced.m(model, state), spliced.whole_m(model)
        if not np.array_equal(found_N, wanted_N):
            raise RunError(
                f"with no latent changed the {side} scores otherwise than by itself on "
                f"{int((found_N != wanted_N).sum())} of {len(found_N)} documents (log-odds differ by up to "
                f"{np.abs(found_N - wanted_N).max():.2g}), so no intervention can be trusted; leave the controls out "
                "with --random-sets 0"
            )


def try_claims(spliced: SplicedScores, wanted: Sequence[Wanted], n_sets: int, seed: Sequence[int]) -> list[Trial]:
    """Every claim's arms on one task, in the order given.

    Args:
        spliced: the task's documents.
        wanted: what is tried.
        n_sets: random sets a claim.
        seed: of the draws; a claim's draw does not depend on which others are tried.

    Raises:
        RunError: an intervention with nothing changed does not reproduce the models.
    """
    check_nothing_changed(spliced)
    trials: dict[int, Trial] = {}
    for origin in ("written", "read"):
        claims = {i: claim for i, claim in enumerate(wanted) if claim.origin == origin}
        if claims:
            found = _try(spliced, origin, list(claims.values()), n_sets, seed)
            trials.update(zip(claims, found, strict=True))
    return [trials[i] for i in range(len(wanted))]


def _try(
    spliced: SplicedScores, origin: Origin, wanted: Sequence[Wanted], n_sets: int, seed: Sequence[int]
) -> list[Trial]:
    matches = [_match(spliced, claim, n_sets, seed) for claim in wanted]
    device, n_latents = spliced.pair.device, spliced.pair.crosscoder.n_latents
    change = put_back if origin == "written" else taken_out
    along = direction_put_back if origin == "written" else direction_taken_out
    arms = [along(spliced.mean_difference()), reconstructed(CANDIDATE if origin == "written" else BASELINE)]
    for claim, (match, _) in zip(wanted, matches, strict=True):
        arms.append(change(mask(claim.latents, n_latents, device)))
        arms += [
            change(mask(chosen, n_latents, device), factor)
            for chosen, factor in zip(match.sets, match.factors, strict=True)
        ]
    swap_N, effects_AN = _effects(spliced, origin, arms)
    rows = iter(effects_AN)
    mean_difference_N, reconstruct_only_N = next(rows), next(rows)
    return [
        Trial(
            wanted=claim,
            effect_N=next(rows),
            random_SN=np.array([next(rows) for _ in match.sets]).reshape(-1, len(swap_N)),
            factors=match.factors,
            not_tried=reason,
            mean_difference_N=mean_difference_N,
            reconstruct_only_N=reconstruct_only_N,
            swap_N=swap_N,
        )
        for claim, (match, reason) in zip(wanted, matches, strict=True)
    ]


def _match(spliced: SplicedScores, claim: Wanted, n_sets: int, seed: Sequence[int]) -> tuple[MatchedSets, str | None]:
    """A claim's random sets, or none and the reason."""
    name = hashlib.sha256(f"{claim.origin} {claim.category}".encode()).digest()
    rng = np.random.default_rng([*seed, int.from_bytes(name[:8])])
    try:
        return matched_sets(spliced, claim.origin, claim.latents, n_sets, rng), None
    except NotTriedError as reason:
        return MatchedSets((), ()), str(reason)


def _effects(
    spliced: SplicedScores, origin: Origin, arms: Sequence[State]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "A N"]]:
    """What the swap and every arm are worth a document, in the surrogate's unit."""
    if origin == "written":
        whole_AN = spliced.metrics(CANDIDATE, [own(CANDIDATE), own(BASELINE), *arms])
        return whole_AN[0] - whole_AN[1], whole_AN[0] - whole_AN[2:]
    cand_AN, base_AN = (spliced.metrics(stack, [own(BASELINE), *arms]) for stack in (CANDIDATE, BASELINE))
    return cand_AN[0] - base_AN[0], (cand_AN[0] - cand_AN[1:]) - (base_AN[0] - base_AN[1:])
