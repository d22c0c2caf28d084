"""Training: from paired activations to a crosscoder whose threshold keeps k latents a token.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch

from diffharness.crosscoder.batches import Activations, batches
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.gradients import accumulate_gradients
from diffharness.crosscoder.initialisation import initialise
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import chunks, normalisation
from diffharness.crosscoder.selection import ThresholdCalibration
from diffharness.errors import RunError, UsageError

BASE_LEARNING_RATE = 1.2e-2
"""Adam's peak rate at width 64 and 512 latents (measured there); it falls with the square root of the width,
as the entries of a unit decoder do, and of the number of latents."""
MINIMUM_STEPS = 400
MEDIAN_TOKENS = 8192
"""Tokens that the initial bias, a geometric median, is taken over."""
GUESS_SHARE = 0.85
"""The search for a batch's largest activations starts at this share of the last batch's smallest kept one."""


def train(
    x_NMD: Activations,
    settings: TrainingSettings,
    *,
    sides: tuple[str, ...],
    heldout_NMD: Activations,
    layer: int | None = None,
    skipped_ids: Collection[int] = (),
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Crosscoder:
    """Train a BatchTopK crosscoder on raw activations and calibrate its threshold on held-out ones.

    Squared error plus the dead-latent auxiliary loss, Adam with warm-up and decay, in float32. `x_NMD` (N, M, D)
    may be a tensor, the rows of a store, or streamed, of any float dtype: it is read block by block, and computed
    with on `device` (left out: where it is). `skipped_ids` are noted in the configuration: tokens whose positions
    are not among the rows. The same data, settings and number of threads give the same weights.

    Raises:
        UsageError: shapes and `sides` do not fit together, or there are no tokens.
        RunError: activations are constant or not finite, or training diverged.
    """
    _check_shapes(x_NMD, heldout_NMD, sides)
    generator = torch.Generator().manual_seed(settings.seed)
    config = CrosscoderConfig(
        sides=sides,
        d_model=x_NMD.shape[2],
        n_latents=settings.n_latents,
        k=settings.k,
        layers=() if layer is None else (layer,),
        skipped_ids=tuple(sorted(skipped_ids)),
        n_train_tokens=len(x_NMD),
        n_heldout_tokens=len(heldout_NMD),
        training=settings,
    )
    crosscoder = Crosscoder(config).requires_grad_(False)
    mean_MD, scale_M = normalisation(x_NMD, sides)
    crosscoder.mean_MD.copy_(mean_MD)
    crosscoder.scale_M.copy_(scale_M)
    sample_NMD = next(batches(x_NMD, MEDIAN_TOKENS, settings.block_tokens, generator))
    initialise(crosscoder, crosscoder.normalize(sample_NMD), generator)
    crosscoder.to(device or x_NMD.device)
    _optimise(crosscoder, x_NMD, settings, generator, progress)
    calibrate(crosscoder, heldout_NMD)
    return crosscoder


def number_of_steps(settings: TrainingSettings, n_tokens: int) -> int:
    """Optimiser steps of a training on `n_tokens`."""
    if settings.n_steps is not None:
        return settings.n_steps
    batch_tokens = min(settings.batch_tokens, n_tokens)
    return max(MINIMUM_STEPS, math.ceil(settings.n_epochs * n_tokens / batch_tokens))


def peak_learning_rate(d_model: int, n_latents: int) -> float:
    """Adam's peak rate where the settings give none."""
    return BASE_LEARNING_RATE * math.sqrt(64 / d_model * 512 / n_latents)


@torch.no_grad()
def calibrate(crosscoder: Crosscoder, heldout_NMD: Activations) -> None:
    """Set the inference threshold so that the mean number of active latents on held-out tokens is k."""
    calibration = ThresholdCalibration((crosscoder.config.k or 1) * len(heldout_NMD))
    for x_NMD in chunks(heldout_NMD):
        f_NL = crosscoder.pre_activations(crosscoder.normalize(x_NMD)).relu_()
        calibration.update(f_NL * crosscoder.code_norm_L)
    crosscoder.threshold.fill_(calibration.threshold())


def _optimise(
    crosscoder: Crosscoder,
    x_NMD: Activations,
    settings: TrainingSettings,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None,
) -> None:
    """The loop: Adam over batches, with the rate, k and the dead latents followed from step to step."""
    n_steps = number_of_steps(settings, len(x_NMD))
    batch_tokens = min(settings.batch_tokens, len(x_NMD))
    dead_after = settings.dead_after_tokens or min(10_000_000, max(1, n_steps * batch_tokens // 20))
    peak = settings.learning_rate or peak_learning_rate(x_NMD.shape[2], settings.n_latents)
    weights = list(crosscoder.parameters())
    # The loss is a mean over models and dimensions, so gradients are small: eps has to be smaller still.
    optimiser = torch.optim.Adam(weights, lr=peak, eps=1e-12, fused=True)
    silent_tokens_L = torch.zeros(settings.n_latents, dtype=torch.long, device=crosscoder.threshold.device)
    guess = 0.0
    stream = batches(x_NMD, settings.batch_tokens, settings.block_tokens, generator)
    for step in range(n_steps):
        z_NMD = crosscoder.normalize(next(stream))
        seen = accumulate_gradients(
            crosscoder,
            z_NMD,
            _k_at(step, n_steps, settings),
            dead_L=silent_tokens_L > dead_after,
            aux_coefficient=settings.aux_coefficient,
            guess=guess,
        )
        if not math.isfinite(seen.unexplained):
            raise RunError(f"crosscoder training diverged at step {step}; a smaller learning rate may help")
        guess = GUESS_SHARE * seen.smallest_kept
        silent_tokens_L = torch.where(seen.fired_L, 0, silent_tokens_L + len(z_NMD))
        torch.nn.utils.clip_grad_norm_(weights, settings.gradient_clip, foreach=True)
        optimiser.param_groups[0]["lr"] = peak * _rate_share(step, n_steps, settings)
        optimiser.step()
        if progress is not None:
            progress(step + 1, n_steps)
    for weight in weights:
        weight.grad = None


def _rate_share(step: int, n_steps: int, settings: TrainingSettings) -> float:
    """The learning rate of a step, as a share of its peak: a ramp up, a plateau, a ramp down."""
    warmup, decay = settings.warmup_share * n_steps, settings.decay_share * n_steps
    return min(1.0, (step + 1) / max(warmup, 1.0), (n_steps - step) / max(decay, 1.0))


def _k_at(step: int, n_steps: int, settings: TrainingSettings) -> int:
    """k of a step: from `initial_k` in a straight line, and `k` itself after the annealing."""
    annealing = settings.annealing_share * n_steps
    if settings.initial_k is None or step >= annealing:
        return settings.k
    return round(settings.initial_k + (settings.k - settings.initial_k) * step / annealing)


def _check_shapes(x_NMD: Activations, heldout_NMD: Activations, sides: tuple[str, ...]) -> None:
    """Tokens, models and width fit together, and there is something to train and calibrate on."""
    for name, data_NMD in (("training", x_NMD), ("held-out", heldout_NMD)):
        if len(data_NMD.shape) != 3 or data_NMD.shape[1] != len(sides) or data_NMD.shape[2] != x_NMD.shape[2]:
            raise UsageError(
                f"{name} activations have shape {tuple(data_NMD.shape)}; "
                f"(tokens, {len(sides)} models, width) is needed for sides {', '.join(sides)}"
            )
        if len(data_NMD) == 0:
            raise UsageError(f"there are no {name} tokens for the crosscoder; give a larger corpus")
