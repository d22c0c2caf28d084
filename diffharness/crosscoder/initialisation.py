"""The weights that training starts from.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.partition import constrain_weights


@torch.no_grad()
def initialise(crosscoder: Crosscoder, z_NMD: Float[Tensor, "N M D"], generator: torch.Generator) -> None:
    """Random unit decoders, the same for all models; encoder = decoderᵀ / M; bias = geometric median of z.

    Every latent starts as shared (Δnorm ½), so that what ends up specific was learned; only dedicated latents start
    with their own model. The encoder is divided by the number of models that a latent reads, which are nearly alike.
    Where widths differ, a narrower model has the first entries of a direction, at unit length again.
    """
    config = crosscoder.config
    n_latents, n_models, d_model = crosscoder.W_dec_LMD.shape
    direction_LD = torch.randn(n_latents, d_model, generator=generator)
    for model, width in enumerate(config.widths or (d_model,) * n_models):
        own_LD = direction_LD[:, :width]
        crosscoder.W_dec_LMD[:, model, :width] = own_LD / own_LD.norm(dim=-1, keepdim=True)
    constrain_weights(crosscoder)
    n_read_L = (crosscoder.decoder_norm_LM > 0).sum(dim=-1)
    crosscoder.W_enc_LMD.copy_(crosscoder.W_dec_LMD / n_read_L[:, None, None])
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
