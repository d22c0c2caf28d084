"""Whether two trainings found the same latents: the share of one dictionary's decoders that the other has too.

Legend: L latents of the first crosscoder, K latents of the second, M models, D width, B latents of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

MATCHED_COSINE = 0.9
FIRST_BLOCK = 1024
SECOND_BLOCK = 4096
"""Latents whose cosines are in memory at a time: 16 MiB of cosines."""


@dataclass(frozen=True, eq=False)
class Stability:
    """What `matched_share` found."""

    share: float
    """Of the first's living latents: those with some latent of the second at a cosine above `cosine`."""
    cosine: float
    cosine_median: float
    """Of the best cosines of the first's living latents."""
    chance_share: float
    """The share expected against as many directions drawn at random (uniformly on the sphere)."""
    chance_cosine: float
    """The median of the best cosines expected there."""
    n_alive: int
    """Latents of the first that are counted."""
    seeds: tuple[int | None, int | None]
    """Of the two trainings; none where a crosscoder was not trained here."""
    best_cosine_L: Float[Tensor, " L"]
    """Each latent's largest cosine, dead ones included; 0 for one without a decoder."""
    match_L: Int[Tensor, " L"]
    """The latent of the second that has it."""

    @property
    def matched_L(self) -> Bool[Tensor, " L"]:
        """Which latents of the first the second has too."""
        return self.best_cosine_L > self.cosine


@torch.no_grad()
def matched_share(
    first: Crosscoder,
    second: Crosscoder,
    *,
    alive: Bool[Tensor, " L"] | None = None,
    second_alive: Bool[Tensor, " K"] | None = None,
    cosine: float = MATCHED_COSINE,
) -> Stability:
    """Match every latent of the first to the nearest of the second by the cosine of their decoders.

    A latent's vector is its decoder in all models side by side, (M · D), as stored, i.e. in each crosscoder's
    normalised space: so a match needs the same directions in the same proportions between the models, and a latent
    that is shared in one training and specific in the other is not matched (cosine 0.71 at equal norms). Several
    latents may have the same match, as in the field's mean maximum cosine similarity (Sharkey et al. 2022). The
    cosines of all pairs are never in memory together.

    Args:
        first: whose latents are matched.
        second: another training over the same models.
        alive: which of the first's latents count (`QualityMeasures.fired_L`); left out: all.
        second_alive: which of the second's latents may be a match; left out: all.
        cosine: what a match has to exceed.

    Raises:
        UsageError: the two are not over the same models and width, or no latent of one is alive.
    """
    _check_fit(first, second)
    device = first.W_dec_LMD.device
    alive_L = torch.ones(first.n_latents, dtype=torch.bool) if alive is None else alive.cpu()
    allowed_K = torch.ones(second.n_latents, dtype=torch.bool) if second_alive is None else second_alive.cpu()
    if not bool(alive_L.any()) or not bool(allowed_K.any()):
        raise UsageError("no latent is alive in one of the two crosscoders to compare; train on more tokens")
    best_L, match_L = _nearest(first.W_dec_LMD.flatten(1), second.W_dec_LMD.flatten(1), allowed_K.to(device))
    best_L, match_L = best_L.cpu(), match_L.cpu()
    living = best_L[alive_L]
    width = sum(first.config.widths) or len(first.config.columns) * first.config.d_model
    chance_share, chance_cosine = _chance(cosine, width, int(allowed_K.sum()))
    return Stability(
        share=float((living > cosine).double().mean()),
        cosine=cosine,
        cosine_median=float(living.double().median()),
        chance_share=chance_share,
        chance_cosine=chance_cosine,
        n_alive=int(alive_L.sum()),
        seeds=(_seed(first), _seed(second)),
        best_cosine_L=best_L,
        match_L=match_L,
    )


def _check_fit(first: Crosscoder, second: Crosscoder) -> None:
    ours, others = first.config, second.config
    if ours.columns != others.columns or first.W_dec_LMD.shape[1:] != second.W_dec_LMD.shape[1:]:
        raise UsageError(
            f"crosscoders over {', '.join(ours.columns)} of width {ours.d_model} and over {', '.join(others.columns)} "
            f"of width {others.d_model} have no latents to match; compare two trainings over the same models"
        )


def _nearest(first_LX: Tensor, second_KX: Tensor, allowed_K: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine of every row of the first with an allowed row of the second, and that row, in float32."""
    n_first, device = len(first_LX), first_LX.device
    best_L = torch.full((n_first,), -2.0, device=device)
    match_L = torch.zeros(n_first, dtype=torch.long, device=device)
    for k in range(0, len(second_KX), SECOND_BLOCK):
        other_KX = _unit(second_KX[k : k + SECOND_BLOCK].to(device))
        out_K = ~allowed_K[k : k + SECOND_BLOCK]
        for start in range(0, n_first, FIRST_BLOCK):
            rows = slice(start, start + FIRST_BLOCK)
            cosine_BK = _unit(first_LX[rows]) @ other_KX.T
            value_B, place_B = cosine_BK.masked_fill_(out_K, -2.0).max(dim=1)
            better_B = value_B > best_L[rows]
            best_L[rows] = torch.where(better_B, value_B, best_L[rows])
            match_L[rows] = torch.where(better_B, place_B + k, match_L[rows])
    return best_L.clamp(-1, 1), match_L


def _unit(rows_BX: Tensor) -> Tensor:
    """Rows of length 1 in float32; zero rows stay zero."""
    rows_BX = rows_BX.float()
    return rows_BX / rows_BX.norm(dim=1, keepdim=True).clamp_min(1e-30)


def _chance(cosine: float, width: int, n_directions: int) -> tuple[float, float]:
    """Expected share above `cosine`, and median, of the largest of n cosines with directions uniform on the sphere.

    P(cos > c) = ½ I_{1 − c²}((width − 1)/2, ½) for c ≥ 0: the area of a spherical cap (Li 2011, Asian J. Math. Stat.).
    """
    from scipy.special import betainc, betaincinv

    half = max(width - 1, 1) / 2
    cap = 0.5 * betainc(half, 0.5, 1 - cosine**2)
    share = -np.expm1(n_directions * np.log1p(-min(cap, 1 - 1e-16)))
    single = -np.expm1(np.log(0.5) / n_directions)
    median = np.sqrt(max(0.0, 1 - betaincinv(half, 0.5, min(1.0, 2 * single))))
    return float(share), float(median)


def _seed(crosscoder: Crosscoder) -> int | None:
    return None if crosscoder.config.training is None else crosscoder.config.training.seed
