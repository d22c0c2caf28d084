"""Controls of the account: what is left of a category's share when naming or encoder are destroyed.

Legend: L latents, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffharness.attribution.account import category_matrix

N_SHUFFLES = 500


@dataclass(frozen=True)
class Carried:
    """What each latent contributes to a task's gap, written and read together."""

    gap: float
    latents_L: np.ndarray


@dataclass(frozen=True)
class Leader:
    """The category that carries most in the direction of a task's gap."""

    category: str
    share: float | None
    """Of all that latents carry; `None` where that is nothing."""


def leader(carried: Carried, categories: Sequence[str], names: Sequence[str]) -> Leader:
    """The category with the largest contribution of the gap's sign."""
    sums_K = carried.latents_L @ category_matrix(categories, names)
    best = int(np.argmax(np.sign(carried.gap) * sums_K))
    return Leader(names[best], share_of(carried, categories, names[best]))


def share_of(carried: Carried, categories: Sequence[str], name: str) -> float | None:
    """What a category's latents carry, over all that latents carry."""
    total = float(carried.latents_L.sum())
    own = float(carried.latents_L[np.array(categories) == name].sum())
    return own / total if total else None


def shuffled_labels(
    carried: Carried, categories: Sequence[str], names: Sequence[str], category: str, rng: np.random.Generator
) -> tuple[float | None, float]:
    """The category's mean share, and how often it leads, when the labels are dealt out anew among firing latents.

    Latents that carry nothing on the task keep their labels: shuffling among them would change nothing.
    """
    own = np.array(categories)
    writing = np.flatnonzero(carried.latents_L != 0)
    shares, leads = [], 0
    for _ in range(N_SHUFFLES):
        shuffled = own.copy()
        shuffled[writing] = own[rng.permutation(writing)]
        found = leader(carried, shuffled.tolist(), names)
        leads += found.category == category
        share = share_of(carried, shuffled.tolist(), category)
        if share is not None:
            shares.append(share)
    return (float(np.mean(shares)) if shares else None), leads / N_SHUFFLES
