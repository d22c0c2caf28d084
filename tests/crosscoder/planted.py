"""Activations of a known dictionary: sparse sums of directions, some of them in one model only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Planted:
    """The activations and what they are made of."""

    x_NMD: Tensor
    directions_LMD: Tensor
    """Zero where a model lacks the direction."""
    code_NL: Tensor


def plant(
    n_tokens: int,
    *,
    n_shared: int = 24,
    n_only: tuple[int, ...] = (4, 4),
    d_model: int = 32,
    active_share: float = 0.06,
    noise: float = 0.01,
    seed: int = 0,
    dictionary_seed: int = 0,
) -> Planted:
    """`n_shared` directions in all models alike and `n_only[m]` in model m alone; each fires on its own."""
    dictionary = torch.Generator().manual_seed(dictionary_seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    n_latents, n_models = n_shared + sum(n_only), len(n_only)
    directions_LD = torch.randn(n_latents, d_model, generator=dictionary)
    directions_LD /= directions_LD.norm(dim=-1, keepdim=True)
    present_LM = torch.ones(n_latents, n_models)
    start = n_shared
    for model, count in enumerate(n_only):
        present_LM[start : start + count] = 0
        present_LM[start : start + count, model] = 1
        start += count
    directions_LMD = directions_LD[:, None] * present_LM[..., None]
    active_NL = torch.rand(n_tokens, n_latents, generator=generator) < active_share
    code_NL = active_NL * (0.5 + torch.rand(n_tokens, n_latents, generator=generator))
    x_NMD = torch.einsum("nl,lmd->nmd", code_NL, directions_LMD)
    x_NMD += noise * torch.randn(x_NMD.shape, generator=generator)
    # Different offsets and scales, which normalisation has to take out.
    offset_MD = torch.randn(n_models, d_model, generator=dictionary)
    scale_M = 1.0 + torch.arange(n_models)
    return Planted(x_NMD * scale_M[:, None] + offset_MD, directions_LMD, code_NL)
