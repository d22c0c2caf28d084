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
class Written:
    """What each latent contributes to a task's gap."""

    gap: float
    latents_L: np.ndarray


@dataclass(frozen=True)
class Leader:
    """The category that writes most in the direction of a task's gap."""

    category: str
    share: float | None
    """Of all that latents write; `None` where that is nothing."""


def leader(written: Written, categories: Sequence[str], names: Sequence[str]) -> Leader:
    """The category with the largest written contribution of the gap's sign."""
    sums_K = written.latents_L @ category_matrix(categories, names)
    best = int(np.argmax(np.sign(written.gap) * sums_K))
    return Leader(names[best], share_of(written, categories, names[best]))


def share_of(written: Written, categories: Sequence[str], name: str) -> float | None:
    """What a category's latents write, over all that latents write."""
    total = float(written.latents_L.sum())
    own = float(written.latents_L[np.array(categories) == name].sum())
    return own / total if total else None


def shuffled_labels(
    written: Written, categories: Sequence[str], names: Sequence[str], category: str, rng: np.random.Generator
) -> tuple[float | None, float]:
    """The category's mean share, and how often it leads, when the labels are dealt out anew among firing latents.

    Latents that write nothing on the task keep their labels: shuffling among them would change nothing.
    """
    own = np.array(categories)
    writing = np.flatnonzero(written.latents_L != 0)
    shares, leads = [], 0
    for _ in range(N_SHUFFLES):
        shuffled = own.copy()
        shuffled[writing] = own[rng.permutation(writing)]
        found = leader(written, shuffled.tolist(), names)
        leads += found.category == category
        share = share_of(written, shuffled.tolist(), category)
        if share is not None:
            shares.append(share)
    return (float(np.mean(shares)) if shares else None), leads / N_SHUFFLES
