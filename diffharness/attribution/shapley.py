"""Shapley values: a score's change shared out fairly over players, from the scores of sets of players.

A player's value is what it adds to the players before it, averaged over all orders in which they can come (Shapley
1953, "A Value for n-Person Games"). With few players every set is scored and the values are exact; with more, orders
are drawn in pairs of one and its reverse (Castro et al. 2009, "Polynomial calculation of the Shapley value based on
sampling"; reverses: Mitchell et al. 2022). Either way the values sum to v(all) − v(none), whatever the scores are.

Legend: P players, S sets of players, Q drawn pairs of orders, N documents, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
from jaxtyping import Bool, Float

from diffharness.statistics.bootstrap import N_RESAMPLES, Intervals, bootstrap_statistic, percentile_interval

EXACT_PLAYERS = 8
"""Up to so many players all 2^P sets are scored."""
N_PAIRS = 64
"""Pairs of orders that are drawn where there are more."""
SMALLEST_SHARE = 0.05
"""Categories that write less than this share of what all write (in absolute values) are one player together."""
_DECIMALS = 12
"""Values are rounded to so many: what cancels is 0, and not the noise of its sum."""
BIAS_AND_ERROR, OTHERS = "bias and error", "other categories"

Resampled = Callable[[Float[np.ndarray, "R N"]], Float[np.ndarray, "R S"]]
"""From how often each document was drawn to the score of every set."""


@dataclass(frozen=True)
class Player:
    """What joins a set as one."""

    name: str
    categories: tuple[str, ...]
    """Whose latents; none for bias and error."""


@dataclass(frozen=True)
class Plan:
    """Which sets are scored, and how values follow from their scores."""

    member_SP: Bool[np.ndarray, "S P"]
    """Who is in each set; the empty one first, the whole one last."""
    weights_QSP: Float[np.ndarray, "Q S P"]
    """What each set's score counts for each player: once where all sets are scored, else by pair of orders."""
    exact: bool

    @property
    def n_sets(self) -> int:
        """Sets that are scored."""
        return len(self.member_SP)

    def values(self, score_RS: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "... P"]:
        """The players' values, from the scores of all sets."""
        return np.matmul(score_RS, self.weights_QSP.mean(axis=0))

    def by_pair(self, score_S: Float[np.ndarray, " S"]) -> Float[np.ndarray, "Q P"]:
        """The values by every pair of orders alone."""
        return np.einsum("s,qsp->qp", score_S, self.weights_QSP)


@dataclass(frozen=True)
class Values:
    """Every player's value, and how sure it is."""

    value_P: Float[np.ndarray, " P"]
    intervals: Intervals | None
    """Over documents, and over the drawn orders where there are such; `None` where scores can not be resampled."""
    standard_error_P: Float[np.ndarray, " P"] | None
    """Of drawing orders; `None` where all sets were scored."""


def players_of(written: Mapping[str, float], most: int = EXACT_PLAYERS) -> tuple[Player, ...]:
    """Categories as players, the largest first, the small ones together; bias and error last.

    Args:
        written: what each category writes under the candidate's stack.
        most: players at most.
    """
    if most < 3:
        raise ValueError(f"{most} players do not hold a category, the others, and bias and error; give 3 or more")
    largest = sorted(written, key=lambda name: (-abs(written[name]), name))
    floor = SMALLEST_SHARE * sum(map(abs, written.values()))
    kept = [name for name in largest[: most - 2] if abs(written[name]) >= floor and written[name]]
    rest = largest[len(kept) :]
    players = [Player(name, (name,)) for name in kept]
    if rest:
        players.append(Player(rest[0] if len(rest) == 1 else OTHERS, tuple(rest)))
    return (*players, Player(BIAS_AND_ERROR, ()))


def plan_for(
    n_players: int, rng: np.random.Generator, *, most_exact: int = EXACT_PLAYERS, n_pairs: int = N_PAIRS
) -> Plan:
    """All sets of up to `most_exact` players, else those that come up in `n_pairs` drawn orders and their reverses."""
    if n_players <= most_exact:
        return exact_plan(n_players)
    return sampled_plan(n_players, n_pairs, rng)


def exact_plan(n_players: int) -> Plan:
    """All sets, each with weight |S|! (P − |S| − 1)! / P! for every player that it lacks."""
    codes_S = np.arange(2**n_players)
    member_SP = (codes_S[:, None] >> np.arange(n_players) & 1).astype(bool)
    size_S = member_SP.sum(axis=1)
    share = [factorial(k) * factorial(n_players - k - 1) / factorial(n_players) for k in range(n_players)]
    weights_SP = np.zeros(member_SP.shape)
    for p in range(n_players):
        without_s = np.flatnonzero(~member_SP[:, p])
        weight_s = np.array([share[k] for k in size_S[without_s]])
        weights_SP[without_s, p] = -weight_s
        weights_SP[without_s + 2**p, p] = weight_s
    return Plan(member_SP, weights_SP[None], exact=True)


def sampled_plan(n_players: int, n_pairs: int, rng: np.random.Generator) -> Plan:
    """The sets that come up as players join in drawn orders, and in their reverses."""
    orders = [rng.permutation(n_players) for _ in range(n_pairs)]
    sets: dict[frozenset[int], int] = {frozenset(): 0}
    steps: list[tuple[int, int, int, int]] = []
    for q, order in enumerate(orders):
        for joining in (order, order[::-1]):
            present: frozenset[int] = frozenset()
            for p in joining.tolist():
                before, present = present, present | {p}
                steps.append((q, p, sets[before], sets.setdefault(present, len(sets))))
    last = sets[frozenset(range(n_players))]
    place_S = np.array([len(sets) - 1 if s == last else s - (s > last) for s in range(len(sets))])
    member_SP = np.zeros((len(sets), n_players), dtype=bool)
    for chosen, s in sets.items():
        member_SP[place_S[s], list(chosen)] = True
    weights_QSP = np.zeros((n_pairs, len(sets), n_players))
    for q, p, before, after in steps:
        weights_QSP[q, place_S[before], p] -= 0.5
        weights_QSP[q, place_S[after], p] += 0.5
    return Plan(member_SP, weights_QSP, exact=False)


def shapley_values(
    plan: Plan,
    score_S: Float[np.ndarray, " S"],
    resampled: Resampled | None,
    n_documents: int,
    rng: np.random.Generator,
    *,
    clusters: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> Values:
    """The players' values with intervals.

    Documents are resampled, all sets alike; where orders were drawn, what drawing them leaves open is added to every
    resample.

    Args:
        plan: whose sets were scored.
        score_S: their scores.
        resampled: their scores on resampled documents; `None` where there are no such.
        n_documents: what is resampled.
        rng: draws.
        clusters: of each document, where they are not by themselves; whole ones are drawn.
        n_resamples: so often.
    """
    value_P = np.round(plan.values(score_S), _DECIMALS)
    pair_QP = plan.by_pair(score_S)
    n_pairs = len(pair_QP)
    error_P = None if plan.exact else pair_QP.std(axis=0, ddof=1) / np.sqrt(n_pairs)
    if resampled is None:
        return Values(value_P, None, error_P)
    draws_RP = bootstrap_statistic(lambda w_RN: plan.values(resampled(w_RN)), n_documents, rng, n_resamples, clusters)
    if not plan.exact:
        counts_RQ = rng.multinomial(n_pairs, np.full(n_pairs, 1 / n_pairs), size=n_resamples)
        draws_RP = draws_RP + counts_RQ @ pair_QP / n_pairs - value_P
    n_units = n_documents if clusters is None else len(set(clusters))
    return Values(value_P, percentile_interval(np.round(draws_RP, _DECIMALS), n=n_units), error_P)


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation; `None` of fewer than three pairs, or where a side does not vary."""
    pairs_N2 = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    if len(pairs_N2) < 3 or np.any(np.ptp(pairs_N2, axis=0) == 0):
        return None
    centred_N2 = pairs_N2 - pairs_N2.mean(axis=0)
    spread_2 = np.sqrt((centred_N2**2).sum(axis=0))
    return float((centred_N2 / spread_2).prod(axis=1).sum())
