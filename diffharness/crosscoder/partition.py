"""Latents that are not free: decoders tied over all models, and latents that belong to one model alone.

The first latents are dedicated (those of the first model, then of the second, as in dedicated-feature crosscoders,
2602.11729), the next are designated shared (tied decoders, Anthropic's February 2025 update), the rest are free.

Legend: M models (models × layers where several layers are read), D width, L latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder


def tied(config: CrosscoderConfig) -> slice:
    """The designated shared latents."""
    first = sum(config.n_dedicated)
    return slice(first, first + config.n_tied)


def foreign(config: CrosscoderConfig) -> Bool[Tensor, "A M"]:
    """Of the dedicated latents: which models they may neither read nor write."""
    n_layers = max(1, len(config.layers))
    own = torch.eye(len(config.sides), dtype=torch.bool).repeat_interleave(n_layers, dim=1)
    counts = torch.tensor(config.n_dedicated or (0,) * len(config.sides))
    return ~own.repeat_interleave(counts, dim=0)


@torch.no_grad()
def constrain_weights(crosscoder: Crosscoder) -> None:
    """Make weights keep to the partition: zeros, and the first model's decoder where it is tied."""
    config = crosscoder.config
    shared = tied(config)
    crosscoder.W_dec_LMD[shared] = crosscoder.W_dec_LMD[shared, :1]
    _clear_foreign(config, crosscoder.W_enc_LMD, crosscoder.W_dec_LMD)


@torch.no_grad()
def constrain_gradients(crosscoder: Crosscoder) -> None:
    """Make gradients keep to the partition: none for what has to stay zero, the sum over models where tied."""
    config, encoder_LMD, decoder_LMD = crosscoder.config, crosscoder.W_enc_LMD.grad, crosscoder.W_dec_LMD.grad
    if encoder_LMD is None or decoder_LMD is None:
        raise ValueError("there are no gradients yet")
    shared = tied(config)
    decoder_LMD[shared] = decoder_LMD[shared].sum(dim=1, keepdim=True)
    _clear_foreign(config, encoder_LMD, decoder_LMD)


def _clear_foreign(config: CrosscoderConfig, *tensors_LMD: Tensor) -> None:
    mask_AM = foreign(config)
    for tensor_LMD in tensors_LMD if len(mask_AM) else ():
        tensor_LMD[: len(mask_AM)].masked_fill_(mask_AM[..., None].to(tensor_LMD.device), 0.0)
