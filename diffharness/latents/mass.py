"""Category shift by acquired mass: of what the tuned models hold beyond their ancestor, which share is of a category?

Legend: I latents (items), K categories, R draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from diffharness.statistics.multiple import benjamini_hochberg

LEVEL = 0.05
_BLOCK_VALUES = 1 << 22


class WithMass(Protocol):
    """Latents with categories and acquired mass."""

    @property
    def categories(self) -> Sequence[str]:
        """One a latent."""
        ...

    @property
    def acquired(self) -> NDArray[np.float64]:
        """One a latent, at least 0."""
        ...


@dataclass(frozen=True)
class MassShift:
    """One category's share of either side's acquired mass; no p-value where a side acquired nothing."""

    baseline: float
    candidate: float
    low: float
    """95 % interval of candidate − baseline."""
    high: float
    p_value: float | None
    q_value: float | None
    conclusion: str


def mass_shift(
    baseline: WithMass,
    candidate: WithMass,
    names: Sequence[str],
    rng: np.random.Generator,
    *,
    one_dictionary: bool = False,
    n_draws: int = 2000,
) -> tuple[MassShift, ...]:
    """Compare the sides' shares of acquired mass, category by category.

    The p-value is of the difference when the categories are dealt out anew to the latents: what a category of so many
    latents changes by chance. It keeps its level where one side acquired more, or in fewer latents, which swapping the
    latents' sides does not. Latents are also what is resampled for the interval.

    Args:
        baseline: the baseline's latents.
        candidate: the candidate's; the same latents in the same order, where there is one dictionary.
        names: the categories wanted.
        rng: for shuffles and resamples.
        one_dictionary: whether both sides are of one crosscoder: then a latent's two masses stay together.
        n_draws: shuffles, and resamples; no p-value is below 1 / (1 + n_draws).

    Raises:
        ValueError: one dictionary, but other latents on either side.
    """
    if one_dictionary and list(baseline.categories) != list(candidate.categories):
        raise ValueError("latents of one dictionary have the same categories on both sides")
    mass_I2 = _items(baseline, candidate, one_dictionary)
    categories = list(baseline.categories) if one_dictionary else [*baseline.categories, *candidate.categories]
    member_IK = np.array([[own == name for name in names] for own in categories], dtype=np.float64)
    member_IK = member_IK.reshape(len(categories), len(names))
    kept_I = mass_I2.sum(axis=1) > 0
    mass_I2, member_IK = mass_I2[kept_I], member_IK[kept_I]
    share_K2 = _shares(mass_I2[None], member_IK)[0]
    change_K = share_K2[:, 1] - share_K2[:, 0]
    shuffled_RK = np.concatenate([np.zeros((0, len(names))), *_shuffles(mass_I2, member_IK, rng, n_draws)])
    drawn_RK = _differences(_resamples(mass_I2, rng, n_draws), member_IK, len(names))
    low_K, high_K = np.quantile(drawn_RK, (0.025, 0.975), axis=0)
    rounding = 1e-12
    p_K = (1 + (np.abs(shuffled_RK) >= np.abs(change_K) - rounding).sum(axis=0)) / (1 + n_draws)
    acquired_2 = mass_I2.sum(axis=0) > 0
    p_K = np.where((share_K2.sum(axis=1) > 0) & acquired_2.all(), p_K, np.nan)
    q_K = benjamini_hochberg(p_K)
    return tuple(
        MassShift(
            baseline=float(share_K2[k, 0]),
            candidate=float(share_K2[k, 1]),
            low=float(low_K[k]),
            high=float(high_K[k]),
            p_value=None if np.isnan(p_K[k]) else float(p_K[k]),
            q_value=None if np.isnan(q_K[k]) else float(q_K[k]),
            conclusion=_conclusion(share_K2[k], float(p_K[k]), float(q_K[k]), acquired_2),
        )
        for k in range(len(names))
    )


def _items(baseline: WithMass, candidate: WithMass, one_dictionary: bool) -> Float[np.ndarray, "I 2"]:
    """Mass on either side of every latent."""
    base, cand = np.asarray(baseline.acquired, dtype=np.float64), np.asarray(candidate.acquired, dtype=np.float64)
    if one_dictionary:
        return np.stack([base, cand], axis=1)
    nothing = np.zeros_like
    return np.concatenate([np.stack([base, nothing(base)], axis=1), np.stack([nothing(cand), cand], axis=1)])


def _shares(mass_RI2: Float[np.ndarray, "R I 2"], member_IK: Float[np.ndarray, "I K"]) -> Float[np.ndarray, "R K 2"]:
    """Each category's share of either side's mass; 0 where a side has none."""
    sum_RK2 = np.einsum("ris,ik->rks", mass_RI2, member_IK, optimize=True)
    total_R12 = mass_RI2.sum(axis=1, keepdims=True)
    return np.divide(sum_RK2, total_R12, out=np.zeros_like(sum_RK2), where=total_R12 > 0)


def _differences(
    draws: Iterator[Float[np.ndarray, "R I 2"]], member_IK: Float[np.ndarray, "I K"], n_names: int
) -> Float[np.ndarray, "R K"]:
    blocks = [np.zeros((0, n_names))]
    for mass_RI2 in draws:
        share_RK2 = _shares(mass_RI2, member_IK)
        blocks.append(share_RK2[..., 1] - share_RK2[..., 0])
    return np.concatenate(blocks)


def _blocks(n_items: int, n_draws: int) -> Iterator[int]:
    size = max(1, min(n_draws, _BLOCK_VALUES // max(1, n_items)))
    for start in range(0, n_draws, size):
        yield min(size, n_draws - start)


def _shuffles(
    mass_I2: NDArray[np.float64], member_IK: NDArray[np.float64], rng: np.random.Generator, n_draws: int
) -> Iterator[Float[np.ndarray, "R K"]]:
    """Changes of the categories' shares when categories are dealt out anew to the latents."""
    total_2 = np.maximum(mass_I2.sum(axis=0), np.finfo(float).tiny)
    change_I = mass_I2[:, 1] / total_2[1] - mass_I2[:, 0] / total_2[0]
    for size in _blocks(len(change_I), n_draws):
        yield rng.permuted(np.broadcast_to(change_I, (size, len(change_I))), axis=1) @ member_IK


def _resamples(mass_I2: NDArray[np.float64], rng: np.random.Generator, n_draws: int) -> Iterator[NDArray[np.float64]]:
    n_items = len(mass_I2)
    for size in _blocks(n_items, n_draws):
        if n_items == 0:
            yield np.zeros((size, 0, 2))
            continue
        weight_RI = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size)
        yield weight_RI[..., None] * mass_I2


def _conclusion(share_2: NDArray[np.float64], p_value: float, q_value: float, acquired_2: NDArray[np.bool_]) -> str:
    if acquired_2.any() and not acquired_2.all():
        return f"too few to tell: the {'candidate' if acquired_2[0] else 'baseline'} acquired nothing at all"
    if np.isnan(p_value):
        return "too few to tell: neither model acquired any of it"
    shares = (
        f"{100 * share_2[1]:.1f} % of what the candidate acquired against {100 * share_2[0]:.1f} % of what the "
        "baseline did"
    )
    if q_value < LEVEL:
        return f"{'up' if share_2[1] > share_2[0] else 'down'}: {shares} (q = {q_value:.2g})"
    return f"too few to tell: {shares} (p = {p_value:.2g}, q = {q_value:.2g})"
