"""Decoders of one latent compared between two models: relative norm and angle, in the normalised space.

Legend: L latents, M models.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder

BLOCK_VALUES = 1 << 22
"""Decoder entries of a model that are in float64 at a time: 32 MiB."""


@torch.no_grad()
def delta_norm(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> Float[Tensor, " L"]:
    """Δnorm = ½ ((‖d^b‖ − ‖d^a‖) / max(‖d^a‖, ‖d^b‖) + 1) for models (a, b) = `pair`, in float64.

    0: only a has the latent; ½: both alike; 1: only b. NaN where both norms are 0. (Minder et al.
    2504.02922; their code stores 1 − Δnorm.)
    """
    first_L, second_L, _ = _norms_and_products(crosscoder, pair)
    return ((second_L - first_L) / torch.maximum(first_L, second_L) + 1) / 2


@torch.no_grad()
def decoder_cosine(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> Float[Tensor, " L"]:
    """Cosine between a latent's decoder vectors in two models, in float64; NaN where either is zero."""
    first_L, second_L, product_L = _norms_and_products(crosscoder, pair)
    return (product_L / (first_L * second_L)).clamp(-1, 1)


def leaning(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> Int[Tensor, " L"]:
    """The model of the pair that has the larger decoder, the second where both are alike (as a place in `sides`)."""
    return torch.where(delta_norm(crosscoder, pair) < 0.5, pair[0], pair[1])


def _norms_and_products(crosscoder: Crosscoder, pair: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """‖d^a‖, ‖d^b‖ and ⟨d^a, d^b⟩, block by block so that the decoder is never in float64 whole."""
    found = []
    for d_BMD in crosscoder.W_dec_LMD.split(max(1, BLOCK_VALUES // crosscoder.config.d_model)):
        first_BD, second_BD = d_BMD[:, pair[0]].double(), d_BMD[:, pair[1]].double()
        found.append((first_BD.norm(dim=-1), second_BD.norm(dim=-1), (first_BD * second_BD).sum(dim=-1)))
    first_L, second_L, product_L = (torch.cat(parts) for parts in zip(*found))
    return first_L, second_L, product_L
