"""Maxima of planted latents on tagged texts: which category each stands for is known."""

from __future__ import annotations

import numpy as np

NAMES = ("safety", "multilingual", "facts", "arithmetic")
CATEGORIES = np.repeat(NAMES, 25)
N = len(CATEGORIES)
WITH_CONTRASTS: list[str | None] = [*CATEGORIES.tolist(), *[None] * N]
PAIRS: list[int | None] = [*[None] * N, *range(N)]


def noise(n_latents: int, seed: int = 0, density: float = 0.4) -> np.ndarray:
    """Latents that fire on a share of the texts, whatever their tags."""
    rng = np.random.default_rng(seed)
    fires = rng.random((len(CATEGORIES), n_latents)) < density
    return fires * rng.exponential(size=(len(CATEGORIES), n_latents))


def planted(n_each: int = 10, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Latents that fire, a little, anywhere and clearly on four in five texts of one category."""
    rng = np.random.default_rng(seed)
    truth = [name for name in NAMES for _ in range(n_each)]
    activation = noise(len(truth), seed) * 0.5
    for latent, name in enumerate(truth):
        on = (name == CATEGORIES) & (rng.random(len(CATEGORIES)) < 0.8)
        activation[on, latent] += 1 + rng.exponential(size=on.sum())
    return activation, truth
