"""Decoders of one latent compared between two models: relative norm and angle, in the normalised space.

Legend: L latents, M models.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder


@torch.no_grad()
def delta_norm(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> Float[Tensor, " L"]:
    """Δnorm = ½ ((‖d^b‖ − ‖d^a‖) / max(‖d^a‖, ‖d^b‖) + 1) for models (a, b) = `pair`, in float64.

    0: only a has the latent; ½: both alike; 1: only b. NaN where both norms are 0. (Minder et al.
    2504.02922; their code stores 1 − Δnorm.)
    """
    norm_LM = crosscoder.W_dec_LMD.to(torch.float64).norm(dim=-1)
    first_L, second_L = norm_LM[:, pair[0]], norm_LM[:, pair[1]]
    return ((second_L - first_L) / torch.maximum(first_L, second_L) + 1) / 2


@torch.no_grad()
def decoder_cosine(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> Float[Tensor, " L"]:
    """Cosine between a latent's decoder vectors in two models, in float64; NaN where either is zero."""
    d_LMD = crosscoder.W_dec_LMD.to(torch.float64)
    first_LD, second_LD = d_LMD[:, pair[0]], d_LMD[:, pair[1]]
    return (first_LD * second_LD).sum(dim=-1) / (first_LD.norm(dim=-1) * second_LD.norm(dim=-1))
