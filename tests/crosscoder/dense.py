"""The training losses as dense formulas, for autograd: the reference that sparse gradients are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder


def dense_code(crosscoder: Crosscoder, z_NMD: Tensor, k: int, sparsity: str = "batch_topk") -> Tensor:
    """(N, L): the k·N largest positive scaled activations of the batch, or the k largest of every token; unscaled."""
    f_NL = crosscoder.pre_activations(z_NMD).relu()
    scaled_NL = (f_NL * crosscoder.code_norm_L).detach()
    mask_NL = torch.zeros_like(scaled_NL)
    if sparsity == "topk":
        mask_NL.scatter_(1, scaled_NL.topk(k, dim=1).indices, 1.0)
    else:
        mask_NL.view(-1)[scaled_NL.flatten().topk(k * len(z_NMD)).indices] = 1.0
    return f_NL * mask_NL


def dense_loss(
    crosscoder: Crosscoder,
    z_NMD: Tensor,
    k: int,
    *,
    sparsity: str = "batch_topk",
    groups: tuple[int, ...] = (),
    dead_L: Tensor | None = None,
    aux_coefficient: float = 0.0,
) -> Tensor:
    """Mean squared error over the nested dictionaries, and the dead latents' loss on what the largest leaves over."""
    f_NL = dense_code(crosscoder, z_NMD, k, sparsity)
    errors = []
    for end in groups or (crosscoder.n_latents,):
        part_NL = f_NL * (torch.arange(crosscoder.n_latents) < end)
        errors.append(torch.einsum("nl,lmd->nmd", part_NL, crosscoder.W_dec_LMD) + crosscoder.b_dec_MD - z_NMD)
    loss = torch.stack([error_NMD.square().mean() for error_NMD in errors]).mean()
    if dead_L is None or not dead_L.any() or aux_coefficient == 0:
        return loss
    residual_NMD = errors[-1].detach()
    pre_NA = crosscoder.pre_activations(z_NMD)[:, dead_L].relu()
    scaled_NA = (pre_NA * crosscoder.code_norm_L[dead_L]).detach()
    n_kept = min(crosscoder.config.d_model // 2, int(dead_L.sum()))
    kept_NA = torch.zeros_like(pre_NA).scatter(1, scaled_NA.topk(n_kept, dim=1).indices, 1.0)
    aux_NMD = torch.einsum("na,amd->nmd", pre_NA * kept_NA, crosscoder.W_dec_LMD[dead_L])
    variance = (residual_NMD - residual_NMD.mean(dim=0)).square().sum()
    return loss + aux_coefficient * (residual_NMD + aux_NMD).square().sum() / variance
