"""Which activations a code keeps at inference.

Legend: N tokens, M models, L latents; V is L, or M and L where every model has a code of its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.errors import RunError


def kept(
    config: CrosscoderConfig, scaled_NV: Float[Tensor, "N ... L"], threshold: Float[Tensor, "..."]
) -> Bool[Tensor, "N ... L"]:
    """Mask of the kept activations, from the scaled ones, by the rule of the configuration.

    Raises:
        RunError: a group rule whose groups do not divide the latents.
    """
    if config.activation == "relu":
        return scaled_NV > 0
    if config.activation == "threshold":
        return scaled_NV > threshold
    k = config.k or 1
    if config.activation == "topk":
        return _largest_of_rows(scaled_NV, k)
    if config.activation == "batch_topk":
        # Where every model has a code of its own, all of them compete, as in the one format that has this rule.
        return _largest_of_rows(scaled_NV.flatten(), k * scaled_NV[..., 0].numel()).view(scaled_NV.shape)
    if scaled_NV.shape[-1] % k:
        raise RunError(f"the rule groupmax needs groups of equal size: {scaled_NV.shape[-1]} latents, {k} groups")
    grouped_NVG = scaled_NV.unflatten(-1, (k, -1))
    return _largest_of_rows(grouped_NVG, 1).flatten(-2)


def _largest_of_rows(values: Tensor, n_kept: int) -> Tensor:
    """Mask of the `n_kept` largest along the last axis."""
    mask = torch.zeros_like(values, dtype=torch.bool)
    return mask.scatter_(-1, values.topk(min(n_kept, values.shape[-1]), dim=-1, sorted=False).indices, True)
