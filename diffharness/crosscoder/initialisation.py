"""The weights that training starts from.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder


@torch.no_grad()
def initialise(crosscoder: Crosscoder, z_NMD: Float[Tensor, "N M D"], generator: torch.Generator) -> None:
    """Random unit decoders, the same for all models; encoder = decoderᵀ / M; bias = geometric median of z.

    Every latent starts as shared (Δnorm ½), so that what ends up specific was learned. The encoder is
    divided by M because it sums over models that are nearly alike.
    """
    n_latents, n_models, d_model = crosscoder.W_dec_LMD.shape
    direction_LD = torch.randn(n_latents, d_model, generator=generator)
    direction_LD /= direction_LD.norm(dim=-1, keepdim=True)
    crosscoder.W_dec_LMD.copy_(direction_LD[:, None].expand(-1, n_models, -1))
    crosscoder.W_enc_LMD.copy_(crosscoder.W_dec_LMD / n_models)
    crosscoder.b_enc_L.zero_()
    crosscoder.b_dec_MD.copy_(geometric_median(z_NMD))


def geometric_median(
    z_NMD: Float[Tensor, "N M D"], n_iterations: int = 30, tolerance: float = 1e-5
) -> Float[Tensor, "M D"]:
    """The point of least summed distance to the tokens of each model, by Weiszfeld's iteration in float64."""
    z_NMD = z_NMD.to(torch.float64)
    median_MD = z_NMD.mean(dim=0)
    for _ in range(n_iterations):
        weight_NM = 1 / (z_NMD - median_MD).norm(dim=-1).clamp_min(1e-9)
        update_MD = torch.einsum("nm,nmd->md", weight_NM, z_NMD) / weight_NM.sum(dim=0)[:, None]
        moved = float((update_MD - median_MD).norm() / (1 + median_MD.norm()))
        median_MD = update_MD
        if moved < tolerance:
            break
    return median_MD
