"""Training by a penalty on the code instead of a choice of its largest values: L1 and JumpReLU, by autograd.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.auxiliary import add_auxiliary_gradients
from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.jumprelu import jump
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.objective import Step
from diffharness.crosscoder.partition import tied
from diffharness.crosscoder.penalty_weight import AdaptedPenalty

TANH_STEEPNESS = 4.0
FIRST_THRESHOLD = 0.1
BANDWIDTH = 0.25
"""c, the first exp(t) and the kernel's width ε of `jumprelu`, in units of the typical scaled activation u."""
PRE_ACTIVATION_WEIGHT = 1e-3
"""λ_p, in units of a model's share of u."""
RAMP_SHARE = {"l1": 0.05, "jumprelu": 1.0}
"""Share of training in which a given λ rises from 0 in a straight line."""
START = {"l1": 0.1, "jumprelu": 0.02}
"""Where an adapted λ starts, in units of a model's share of u (`l1`) or of u² (`jumprelu`)."""


class PenalisedObjective:
    """Squared error plus a penalty on the code times its decoders' norms.

    With a_j the activation before ReLU, n_j = Σ_m ‖d_j^m‖ and s_j = f_j n_j, the mean over tokens of 1/(M D) times

    - `l1`: Σ_m ‖ε^m‖² + λ Σ_j s_j (Lindsey et al. 2024: the sum of norms, not the norm of all models' decoders);
    - `jumprelu`: Σ_m ‖ε^m‖² + λ Σ_j tanh(c s_j / u) + λ_p Σ_j ReLU(exp(t_j) − a_j n_j), where s_j is 0 up to the
      learned threshold exp(t_j) (Anthropic, January 2025). The typical scaled activation u = M √(D/k), of a token that
      k latents share evenly, makes c, ε and the first threshold mean the same for all widths and k.

    λ of designated shared latents is `tied_penalty` times that of the others. Activations are normalised to mean
    ‖z^m‖² = D, so that λ of `l1` is in units of √D, and λ of `jumprelu` in units of D. The last loss holds n_j fixed,
    or a silent latent would come nearer to its threshold by losing its decoder; in `l1` it has threshold 0 and is
    taken over dead latents only. Dead latents also learn what the living ones leave over, where they are positive.
    """

    def __init__(self, crosscoder: Crosscoder, settings: TrainingSettings) -> None:
        self._crosscoder = crosscoder
        self._settings = settings
        self._jumps = settings.sparsity == "jumprelu"
        n_models, d_model = crosscoder.b_dec_MD.shape
        self._unit = n_models * math.sqrt(d_model / settings.k)
        self._weight_L = torch.ones_like(crosscoder.b_enc_L)
        self._weight_L[tied(crosscoder.config)] = settings.tied_penalty
        self._log_threshold_L = torch.full_like(crosscoder.b_enc_L, math.log(FIRST_THRESHOLD * self._unit))
        start = START[settings.sparsity] * self._unit / n_models * (self._unit if self._jumps else 1.0)
        self._adapted = AdaptedPenalty(settings, start)

    def parameters(self) -> list[Tensor]:
        """The logarithms of the thresholds of `jumprelu`."""
        return [self._log_threshold_L] if self._jumps else []

    def gradients(self, z_NMD: Float[Tensor, "N M D"], *, share: float, dead_L: Bool[Tensor, " L"]) -> Step:
        """Set `.grad` of all that is learned to that of the loss; see `Objective`."""
        crosscoder = self._crosscoder
        penalty = self.penalty_at(share)
        learned = [*crosscoder.parameters(), *self.parameters()]
        with _differentiable(learned):
            pre_NL = crosscoder.pre_activations(z_NMD)
            f_NL, cost = self._jumping(pre_NL, penalty) if self._jumps else self._linear(pre_NL, penalty, dead_L)
            error_NMD = crosscoder.decode_normalized(f_NL) - z_NMD
            slopes = torch.autograd.grad((error_NMD.square().sum() + cost) / z_NMD.numel(), learned)
        for weight, slope in zip(learned, slopes):
            weight.grad = slope
        error_NX = error_NMD.detach().flatten(1)
        if self._settings.aux_coefficient > 0 and bool(dead_L.any()):
            some = slice(None, None, -(-len(z_NMD) // self._settings.aux_tokens))
            z_SX = z_NMD[some].flatten(1)
            add_auxiliary_gradients(crosscoder, z_SX, error_NX[some], dead_L, self._settings.aux_coefficient)
        n_active_L = (f_NL.detach() > 0).sum(dim=0)
        l0 = int(n_active_L.sum()) / len(z_NMD)
        self._adapted.update(l0, share)
        unexplained = float(error_NX.square().sum() / z_NMD.square().sum())
        return Step(unexplained, l0, n_active_L > 0, {"penalty": penalty})

    def penalty_at(self, share: float) -> float:
        """λ when a share of the training is done: the given one, ramped up, or the adapted one."""
        if self._settings.penalty is None:
            return self._adapted.at(share)
        return self._settings.penalty * min(1.0, share / RAMP_SHARE[self._settings.sparsity])

    def finish(self) -> None:
        """Copy the learned thresholds into the crosscoder."""
        if self._jumps:
            self._crosscoder.threshold.copy_(self._log_threshold_L.exp())

    def state(self) -> dict[str, Tensor]:
        """The logarithms of the thresholds, and where the penalty's weight has come to."""
        return {"log_threshold_L": self._log_threshold_L, "penalty": self._adapted.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        self._log_threshold_L.copy_(state["log_threshold_L"])
        self._adapted.load_state(state["penalty"])

    def _linear(self, pre_NL: Tensor, penalty: float, dead_L: Tensor) -> tuple[Tensor, Tensor]:
        """The code of `l1` and what it costs, summed over tokens."""
        norm_L = self._crosscoder.code_norm_L
        f_NL = pre_NL.relu()
        lacking_NA = (-pre_NL[:, dead_L] * norm_L[dead_L].detach()).relu()
        return f_NL, penalty * (f_NL.sum(dim=0) * norm_L) @ self._weight_L + self._pull * lacking_NA.sum()

    def _jumping(self, pre_NL: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """The code of `jumprelu` and what it costs, summed over tokens."""
        norm_L = self._crosscoder.code_norm_L
        threshold_L = self._log_threshold_L.exp()
        scaled_NL = jump(pre_NL * norm_L, threshold_L, BANDWIDTH * self._unit)
        f_NL = scaled_NL / norm_L.clamp_min(torch.finfo(norm_L.dtype).tiny)
        active_L = (scaled_NL * (TANH_STEEPNESS / self._unit)).tanh().sum(dim=0)
        lacking_NL = (threshold_L - pre_NL * norm_L.detach()).relu()
        return f_NL, penalty * active_L @ self._weight_L + self._pull * lacking_NL.sum()

    @property
    def _pull(self) -> float:
        return PRE_ACTIVATION_WEIGHT * self._unit / len(self._crosscoder.b_dec_MD)


@contextmanager
def _differentiable(weights: list[Tensor]) -> Iterator[None]:
    """Gradients can be taken by these weights inside, by none outside."""
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
