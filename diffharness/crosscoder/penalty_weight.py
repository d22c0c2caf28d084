"""The weight of a penalty that is adapted until the wanted number of latents is active."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.schedule import k_at

FIRST_SHARE = 0.05
"""Share of training in which λ only rises, from 0 to its start."""
DESCENT_SHARE = 0.3
"""Share of training in which the L0 to reach falls to k."""
INTEGRAL = 30.0
"""Change of log λ over a whole training in which L0 is e times too large."""
PROPORTIONAL = 2.0
"""Change of log λ at once, of as large an L0."""
TOLERANCE = 0.05
"""Of the error, in which λ rests: L0 hardly answers to λ where most of what is active is needed."""
SMOOTHING = 0.9
"""Share of the last steps' error in a step's."""
REACH = math.log(1e4)
"""How far log λ may come from where it started."""


class AdaptedPenalty:
    """λ, adapted from step to step by the batches' L0.

    log λ follows e = log(L0 / target), smoothed and cut to ±1, as a proportional and integral controller whose time is
    the share of training: L0 answers a change of λ within a number of Adam's steps that grows as the rate is smaller,
    as it is in longer trainings. The target falls by equal factors from half of the latents to k, because a penalty
    that comes at once kills latents before they have found a direction; or as `initial_k` says, where it is set.
    """

    def __init__(self, settings: TrainingSettings, start: float) -> None:
        self._settings = settings
        self._start = math.log(start)
        self._log_weight, self._error, self._share = self._start, 0.0, 0.0

    def at(self, share: float) -> float:
        """λ of the step that is taken at a share of training."""
        return min(1.0, share / FIRST_SHARE) * math.exp(self._log_weight + PROPORTIONAL * self._error)

    def update(self, l0: float, share: float) -> None:
        """Take in what that step showed."""
        target = self._target(share)
        seen = max(-1.0, min(1.0, math.log(max(l0, 1e-3 * target) / target)))
        self._error = SMOOTHING * self._error + (1 - SMOOTHING) * seen
        if share > FIRST_SHARE:
            beyond = math.copysign(max(0.0, abs(self._error) - TOLERANCE), self._error)
            self._log_weight += INTEGRAL * (share - self._share) * beyond
        self._log_weight = max(self._start - REACH, min(self._start + REACH, self._log_weight))
        self._share = share

    def state(self) -> Tensor:
        """log λ, smoothed error and share of training at the last step."""
        return torch.tensor([self._log_weight, self._error, self._share], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Go on from an earlier `state`."""
        self._log_weight, self._error, self._share = state.tolist()

    def _target(self, share: float) -> float:
        settings = self._settings
        if settings.initial_k is not None or share >= DESCENT_SHARE:
            return k_at(share, settings)
        most = max(settings.k, settings.n_latents / 2)
        return settings.k * (most / settings.k) ** (1 - share / DESCENT_SHARE)
