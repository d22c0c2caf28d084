"""The latents that are most like a latent, and those that other trainings found again.

Legend: L latents, C chosen latents, n neighbours, X = models · width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.stability import matched_share

CHOSEN_BLOCK = 1024
OTHER_BLOCK = 4096
"""Latents whose cosines are in memory at a time: 16 MiB of cosines."""


@torch.no_grad()
def nearest(
    crosscoder: Crosscoder,
    chosen: Sequence[int],
    n: int = 3,
    alive_L: Bool[Tensor, " L"] | Bool[np.ndarray, " L"] | None = None,
) -> tuple[Int[np.ndarray, "C n"], Float[np.ndarray, "C n"]]:
    """Each chosen latent's n nearest others by the cosine of their decoders, all models' side by side, as stored.

    Near are latents with the same directions in the same proportions between the models, as in
    `stability.matched_share`. All pairs' cosines are never in memory together.

    Args:
        crosscoder: whose latents they are.
        chosen: indices of latents.
        n: neighbours wanted.
        alive_L: which latents may be neighbours; left out: all.

    Returns:
        Indices, −1 where there is no neighbour (a latent without a decoder has none and is none), and cosines in
        float32, NaN there; the nearest first.
    """
    d_LX = crosscoder.W_dec_LMD.detach().flatten(1)
    device = d_LX.device
    allowed_L = (d_LX != 0).any(dim=1)
    has_decoder_L = allowed_L.clone()
    if alive_L is not None:
        allowed_L &= torch.as_tensor(alive_L, dtype=torch.bool, device=device)
    index_Cn = np.full((len(chosen), n), -1, dtype=np.int64)
    cosine_Cn = np.full((len(chosen), n), np.nan, dtype=np.float32)
    chosen_C = torch.as_tensor(list(chosen), dtype=torch.int64, device=device)
    for start in range(0, len(chosen_C), CHOSEN_BLOCK):
        some_C = chosen_C[start : start + CHOSEN_BLOCK]
        value_Cn, place_Cn = _nearest_of(d_LX, some_C, allowed_L, n)
        is_none_Cn = ((value_Cn < -1.5) | ~has_decoder_L[some_C, None]).cpu()
        rows = slice(start, start + len(some_C))
        index_Cn[rows] = place_Cn.cpu().masked_fill_(is_none_Cn, -1).numpy()
        cosine_Cn[rows] = value_Cn.cpu().clamp_(-1, 1).masked_fill_(is_none_Cn, torch.nan).numpy()
    return index_Cn, cosine_Cn


def _nearest_of(d_LX: Tensor, chosen_C: Tensor, allowed_L: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest cosines with allowed others (−2 where there are fewer), and whose they are."""
    chosen_CX = _unit(d_LX[chosen_C])
    best_Cn = torch.full((len(chosen_C), n), -2.0, device=d_LX.device)
    place_Cn = torch.full((len(chosen_C), n), -1, dtype=torch.int64, device=d_LX.device)
    for first in range(0, len(d_LX), OTHER_BLOCK):
        others_O = torch.arange(first, min(first + OTHER_BLOCK, len(d_LX)), device=d_LX.device)
        cosine_CO = chosen_CX @ _unit(d_LX[others_O]).T
        cosine_CO.masked_fill_(~allowed_L[others_O] | (others_O == chosen_C[:, None]), -2.0)
        best_Cn, order_Cn = torch.cat([best_Cn, cosine_CO], dim=1).topk(n, dim=1)
        place_Cn = torch.cat([place_Cn, others_O.expand(len(chosen_C), -1)], dim=1).gather(1, order_Cn)
    return best_Cn, place_Cn


def _unit(rows_BX: Tensor) -> Tensor:
    """Rows of length 1 in float32; zero rows stay zero."""
    rows_BX = rows_BX.float()
    return rows_BX / rows_BX.norm(dim=1, keepdim=True).clamp_min(1e-30)


def found_again(
    first: Crosscoder,
    others: Sequence[Crosscoder],
    alive_L: Bool[Tensor, " L"] | Bool[np.ndarray, " L"] | None = None,
) -> Bool[np.ndarray, " L"]:
    """Which latents of the first training every other training found too, by `stability.matched_share`.

    Args:
        first: whose latents are asked for.
        others: trainings over the same models with other seeds.
        alive_L: which of the first's latents ever fire; a latent that does not was not found again.

    Raises:
        UsageError: a training over other models or widths.
        ValueError: there are no others.
    """
    if not others:
        raise ValueError("no other training to find latents in")
    matched_L = np.ones(first.n_latents, dtype=bool) if alive_L is None else np.array(alive_L, dtype=bool)
    for other in others:
        matched_L &= matched_share(first, other).matched_L.numpy()
    return matched_L
