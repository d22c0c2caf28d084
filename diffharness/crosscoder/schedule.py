"""How training goes along: number of steps, learning rate, k."""

from __future__ import annotations

import math

from diffharness.crosscoder.config import TrainingSettings

BASE_LEARNING_RATE = 1.2e-2
"""Adam's peak rate at width 64 and 512 latents (measured there); it falls with the square root of the width,
as the entries of a unit decoder do, and of the number of latents."""
MINIMUM_STEPS = 400


def number_of_steps(settings: TrainingSettings, n_tokens: int) -> int:
    """Optimiser steps of a training on `n_tokens`."""
    if settings.n_steps is not None:
        return settings.n_steps
    batch_tokens = min(settings.batch_tokens, n_tokens)
    return max(MINIMUM_STEPS, math.ceil(settings.n_epochs * n_tokens / batch_tokens))


def dead_after(settings: TrainingSettings, n_steps: int, batch_tokens: int) -> int:
    """Tokens of silence after which a latent is dead."""
    return settings.dead_after_tokens or min(10_000_000, max(1, n_steps * batch_tokens // 20))


def peak_learning_rate(d_model: int, n_latents: int) -> float:
    """Adam's peak rate where the settings give none."""
    return BASE_LEARNING_RATE * math.sqrt(64 / d_model * 512 / n_latents)


def rate_share(step: int, n_steps: int, settings: TrainingSettings) -> float:
    """The learning rate of a step, as a share of its peak: a ramp up, a plateau, a ramp down."""
    warmup, decay = settings.warmup_share * n_steps, settings.decay_share * n_steps
    return min(1.0, (step + 1) / max(warmup, 1.0), (n_steps - step) / max(decay, 1.0))


def k_at(share: float, settings: TrainingSettings) -> int:
    """k when a share of the training is done: from `initial_k` in a straight line, and `k` after the annealing."""
    if settings.initial_k is None or share >= settings.annealing_share:
        return settings.k
    return round(settings.initial_k + (settings.k - settings.initial_k) * share / settings.annealing_share)
