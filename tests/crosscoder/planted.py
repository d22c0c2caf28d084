"""Activations of a known dictionary: sparse sums of directions, some of them in one model only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Planted:
    """The activations and what they are made of."""

    x_NMD: Tensor
    directions_LMD: Tensor
    """Zero where a model lacks the direction. First those that all models have alike, then the rotated ones, the faint
    ones, and those of some models only."""
    code_NL: Tensor

    @property
    def present_LM(self) -> Tensor:
        """Which model has which direction."""
        return self.directions_LMD.norm(dim=-1) > 0


def plant(
    n_tokens: int,
    *,
    n_shared: int = 24,
    n_only: tuple[int, ...] = (4, 4),
    n_rotated: int = 0,
    rotation_cosine: float = 0.5,
    n_faint: int = 0,
    faintness: float = 0.3,
    n_of_models: Mapping[tuple[int, ...], int] | None = None,
    d_model: int = 32,
    widths: tuple[int, ...] = (),
    active_share: float = 0.06,
    k: int | None = None,
    noise: float = 0.01,
    seed: int = 0,
    dictionary_seed: int = 0,
) -> Planted:
    """`n_shared` directions in all models alike and `n_only[m]` in model m alone; each fires on its own.

    `n_rotated` more are in all models but turned: any two models' directions have cosine `rotation_cosine`.
    `n_faint` more are in all models alike, but in the first only `faintness` times as long.
    `n_of_models` counts more by the models that have them, such as {(0, 1): 4} of three. `k`: exactly so many fire on
    every token, where given. `widths`: models narrower than `d_model` have zeros above theirs.
    """
    dictionary = torch.Generator().manual_seed(dictionary_seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    n_models = len(n_only)
    owners = [tuple(range(n_models))] * (n_shared + n_rotated + n_faint)
    for model, count in enumerate(n_only):
        owners += [(model,)] * count
    for models, count in (n_of_models or {}).items():
        owners += [models] * count
    n_latents = len(owners)
    present_LM = torch.zeros(n_latents, n_models)
    for latent, models in enumerate(owners):
        present_LM[latent, list(models)] = 1
    directions_LD = _unit(torch.randn(n_latents, d_model, generator=dictionary))
    directions_LMD = directions_LD[:, None] * present_LM[..., None]
    # Different offsets and scales, which normalisation has to take out.
    offset_MD = torch.randn(n_models, d_model, generator=dictionary)
    turned = slice(n_shared, n_shared + n_rotated)
    directions_LMD[turned] = _turned(directions_LMD[turned], rotation_cosine, dictionary)
    strength_LM = torch.ones(n_latents, n_models)
    strength_LM[n_shared + n_rotated : n_shared + n_rotated + n_faint, 0] = faintness
    inside_MD = torch.arange(d_model) < torch.tensor(widths or (d_model,) * n_models)[:, None]
    directions_LMD = directions_LMD * inside_MD
    if widths:
        directions_LMD = _unit(directions_LMD)
    directions_LMD = directions_LMD * strength_LM[..., None]
    if k is None:
        active_NL = torch.rand(n_tokens, n_latents, generator=generator) < active_share
    else:
        order_NL = torch.rand(n_tokens, n_latents, generator=generator).argsort(dim=1)
        active_NL = order_NL < k
    code_NL = active_NL * (0.5 + torch.rand(n_tokens, n_latents, generator=generator))
    x_NMD = torch.einsum("nl,lmd->nmd", code_NL, directions_LMD)
    x_NMD += noise * torch.randn(x_NMD.shape, generator=generator)
    scale_M = 1.0 + torch.arange(n_models)
    return Planted((x_NMD * scale_M[:, None] + offset_MD) * inside_MD, directions_LMD, code_NL)


def _turned(directions_LMD: Tensor, cosine: float, generator: torch.Generator) -> Tensor:
    """Each model's own copy of its direction, such that any two of them have the cosine (or nearly so)."""
    n_latents, n_models, d_model = directions_LMD.shape
    own_LMD = torch.randn(n_latents, n_models, d_model, generator=generator)
    frame_LDV = torch.linalg.qr(torch.cat([directions_LMD[:, :1], own_LMD], dim=1).mT).Q[..., : 1 + n_models]
    common_L1D, own_LMD = frame_LDV.mT[:, :1], frame_LDV.mT[:, 1:]
    return math.sqrt(cosine) * common_L1D + math.sqrt(1 - cosine) * own_LMD


def _unit(directions: Tensor) -> Tensor:
    norm = directions.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, directions / norm, directions)
