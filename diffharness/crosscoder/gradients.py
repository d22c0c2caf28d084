"""One training step's losses and gradients, written out: no autograd graph, selection by running threshold.

Legend: N tokens, M models, D width, L latents, X = M·D, A dead latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.selection import largest_of_batch


@dataclass(frozen=True)
class Step:
    """What one batch showed."""

    unexplained: float
    """Σ‖ε‖² / Σ‖z‖², the loss in units of the normalised data's variance."""
    fired_L: Bool[Tensor, " L"]
    smallest_kept: float
    """The smallest scaled activation that the batch's selection kept."""


@torch.no_grad()
def accumulate_gradients(
    crosscoder: Crosscoder,
    z_NMD: Float[Tensor, "N M D"],
    k: int,
    *,
    dead_L: Bool[Tensor, " L"],
    aux_coefficient: float,
    guess: float,
) -> Step:
    """Set `.grad` of all weights to that of mean ε² + aux_coefficient · (dead-latent loss).

    The first term is the mean of squared errors over tokens, models and dimensions, of the code with the
    k·N largest f_j Σ_m ‖d_j^m‖ of the batch (Bussmann et al.'s BatchTopK; scaled as in Minder et al.,
    B.3). `guess` is where the search for those starts (`largest_of_batch`).
    """
    z_NX = z_NMD.flatten(1)
    pre_NL = crosscoder.pre_activations(z_NMD)
    scaled_NL = pre_NL * crosscoder.code_norm_L
    chosen, smallest_kept = largest_of_batch(scaled_NL, k * len(z_NX), guess)
    f_NL = _only(pre_NL, chosen)

    W_dec_LX = crosscoder.W_dec_LMD.flatten(1)
    error_NX = torch.addmm(crosscoder.b_dec_MD.flatten(), f_NL, W_dec_LX).sub_(z_NX)
    unexplained = float(error_NX.square().sum() / z_NX.square().sum())
    slope_NX = error_NX * (2 / error_NX.numel())
    slope_pre_NL = _only(slope_NX @ W_dec_LX.T, chosen)
    grad_dec_LX = f_NL.T @ slope_NX
    grad_enc_LX = slope_pre_NL.T @ z_NX
    grad_b_enc_L = slope_pre_NL.sum(dim=0)
    crosscoder.b_dec_MD.grad = slope_NX.sum(dim=0).unflatten(0, crosscoder.b_dec_MD.shape)

    if aux_coefficient > 0 and bool(dead_L.any()):
        aux = _auxiliary_gradients(crosscoder, z_NX, scaled_NL, error_NX, dead_L, aux_coefficient)
        grad_dec_LX[dead_L] += aux.dec_AX
        grad_enc_LX[dead_L] += aux.enc_AX
        grad_b_enc_L[dead_L] += aux.b_enc_A
    crosscoder.W_dec_LMD.grad = grad_dec_LX.unflatten(1, crosscoder.b_dec_MD.shape)
    crosscoder.W_enc_LMD.grad = grad_enc_LX.unflatten(1, crosscoder.b_dec_MD.shape)
    crosscoder.b_enc_L.grad = grad_b_enc_L
    fired_L = torch.zeros_like(dead_L)
    fired_L[chosen % len(fired_L)] = True
    return Step(unexplained, fired_L, smallest_kept)


def _only(values_NL: Tensor, chosen: Tensor) -> Tensor:
    """The chosen entries (flat indices), zero elsewhere."""
    kept_NL = torch.zeros_like(values_NL)
    kept_NL.view(-1)[chosen] = values_NL.view(-1)[chosen]
    return kept_NL


@dataclass(frozen=True)
class _AuxiliaryGradients:
    """Gradients of the dead-latent loss, for the dead latents alone."""

    dec_AX: Tensor
    enc_AX: Tensor
    b_enc_A: Tensor


def _auxiliary_gradients(
    crosscoder: Crosscoder,
    z_NX: Tensor,
    scaled_NL: Tensor,
    error_NX: Tensor,
    dead_L: Tensor,
    coefficient: float,
) -> _AuxiliaryGradients:
    """Dead latents learn what the living ones leave over (Gao et al. 2406.04093, A.2).

    Of each token, the min(D/2, #dead) largest scaled activations of dead latents decode, without bias, the
    residual z − ẑ of all models together; the squared error is divided by the residual's variance.
    """
    scaled_NA = scaled_NL[:, dead_L].relu_()
    n_kept = min(max(crosscoder.config.d_model // 2, 1), scaled_NA.shape[1])
    top_NK = scaled_NA.topk(n_kept, dim=1, sorted=False)
    norm_A = crosscoder.code_norm_L[dead_L].clamp_min(torch.finfo(scaled_NA.dtype).tiny)
    f_NA = torch.zeros_like(scaled_NA).scatter_(1, top_NK.indices, top_NK.values) / norm_A
    W_dec_AX = crosscoder.W_dec_LMD.flatten(1)[dead_L]
    variance = (error_NX - error_NX.mean(dim=0)).square().sum().clamp_min(1e-12)
    slope_NX = (f_NA @ W_dec_AX + error_NX) * (2 * coefficient / variance)
    slope_pre_NA = (slope_NX @ W_dec_AX.T) * (f_NA > 0)
    return _AuxiliaryGradients(f_NA.T @ slope_NX, slope_pre_NA.T @ z_NX, slope_pre_NA.sum(dim=0))
