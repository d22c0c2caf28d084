"""The loss that brings dead latents back: they learn what the living ones leave over.

Legend: N tokens, L latents, A dead latents, X = models × width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder


@torch.no_grad()
def add_auxiliary_gradients(
    crosscoder: Crosscoder,
    z_NX: Float[Tensor, "N X"],
    error_NX: Float[Tensor, "N X"],
    dead_L: Bool[Tensor, " L"],
    coefficient: float,
) -> None:
    """Add to the weights' `.grad` that of coefficient · (dead-latent loss), Gao et al. 2406.04093, A.2.

    Of each token, the min(D/2, #dead) largest f_j · norm_j of dead latents decode, without bias, the residual z − ẑ of
    all models together; the squared error is divided by the residual's variance. `error_NX` is ẑ − z.
    """
    dead_A = dead_L.nonzero().squeeze(1)
    d_AX = crosscoder.W_dec_LMD.flatten(1)[dead_A]
    pre_NA = torch.addmm(crosscoder.b_enc_L[dead_A], z_NX, crosscoder.W_enc_LMD.flatten(1)[dead_A].T)
    scaled_NA = pre_NA * crosscoder.code_norm_L[dead_A]
    n_kept = min(max(crosscoder.config.d_model // 2, 1), len(dead_A))
    top_NK = scaled_NA.topk(n_kept, dim=1, sorted=False).indices
    f_NA = torch.zeros_like(pre_NA).scatter_(1, top_NK, pre_NA.gather(1, top_NK).relu_())
    variance = (error_NX - error_NX.mean(dim=0)).square().sum().clamp_min(torch.finfo(error_NX.dtype).tiny)
    slope_NX = (f_NA @ d_AX + error_NX) * (2 * coefficient / variance)
    slope_pre_NA = (slope_NX @ d_AX.T).mul_(f_NA > 0)
    shape_MD = crosscoder.b_dec_MD.shape
    for weight, gradient in (
        (crosscoder.W_dec_LMD, (f_NA.T @ slope_NX).unflatten(1, shape_MD)),
        (crosscoder.W_enc_LMD, (slope_pre_NA.T @ z_NX).unflatten(1, shape_MD)),
        (crosscoder.b_enc_L, slope_pre_NA.sum(dim=0)),
    ):
        assert weight.grad is not None
        weight.grad.index_add_(0, dead_A, gradient)
