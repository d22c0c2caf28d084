"""The dictionary itself: one code, read from all models at once, and a decoder for each model.

Legend: N tokens, M models, D width, L latents. x are raw activations, z normalised ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.selection import largest_of_batch


class Crosscoder(nn.Module):
    """A BatchTopK crosscoder over M models of equal width (Lindsey et al. 2024; Minder et al. 2504.02922).

    z^m = scale_m (x^m − mean_m);  f = ReLU(Σ_m z^m W_enc^m + b_enc), kept where f_j Σ_m ‖d_j^m‖ > threshold;
    ẑ^m = Σ_j f_j d_j^m + b_dec^m. A blank one has zero weights, mean 0, scale 1 and threshold 0.
    """

    mean_MD: Tensor
    scale_M: Tensor
    threshold: Tensor

    def __init__(self, config: CrosscoderConfig) -> None:
        super().__init__()
        n_models, d_model, n_latents = len(config.sides), config.d_model, config.n_latents
        self.config = config
        self.W_enc_MDL = nn.Parameter(torch.zeros(n_models, d_model, n_latents))
        self.b_enc_L = nn.Parameter(torch.zeros(n_latents))
        self.W_dec_LMD = nn.Parameter(torch.zeros(n_latents, n_models, d_model))
        self.b_dec_MD = nn.Parameter(torch.zeros(n_models, d_model))
        self.register_buffer("mean_MD", torch.zeros(n_models, d_model))
        self.register_buffer("scale_M", torch.ones(n_models))
        self.register_buffer("threshold", torch.zeros(()))

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the models, in the order of the M axis."""
        return self.config.sides

    @property
    def n_latents(self) -> int:
        """Number of latents L."""
        return self.config.n_latents

    @property
    def decoder_norm_LM(self) -> Float[Tensor, "L M"]:
        """‖d_j^m‖ in the normalised space."""
        return self.W_dec_LMD.norm(dim=-1)

    @property
    def code_norm_L(self) -> Float[Tensor, " L"]:
        """Σ_m ‖d_j^m‖: an activation times this is what the threshold is compared with."""
        return self.decoder_norm_LM.sum(dim=-1)

    def normalize(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """Raw activations in the space that the weights know, in the weights' own dtype."""
        x_NMD = x_NMD.to(dtype=self.W_dec_LMD.dtype, device=self.W_dec_LMD.device)
        return (x_NMD - self.mean_MD) * self.scale_M[:, None]

    def denormalize(self, z_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """The inverse of `normalize`."""
        return z_NMD / self.scale_M[:, None] + self.mean_MD

    def pre_activations(self, z_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N L"]:
        """Σ_m z^m W_enc^m + b_enc, before ReLU and selection, from normalised activations."""
        return torch.addmm(self.b_enc_L, z_NMD.flatten(1), self.W_enc_MDL.flatten(0, 1))

    def encode(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N L"]:
        """The code f of raw activations, by the inference rule: kept strictly above the threshold."""
        f_NL = self.pre_activations(self.normalize(x_NMD)).relu()
        return f_NL * (f_NL * self.code_norm_L > self.threshold)

    def encode_batch_topk(self, z_NMD: Float[Tensor, "N M D"], k: int) -> Float[Tensor, "N L"]:
        """The code of normalised activations by the training rule: the k·N largest of f_j Σ_m ‖d_j^m‖.

        The code is not scaled: only its selection is. Fewer are kept where fewer are positive.
        """
        f_NL = self.pre_activations(z_NMD).relu()
        chosen, _ = largest_of_batch(f_NL * self.code_norm_L, k * len(z_NMD))
        kept_NL = torch.zeros_like(f_NL, dtype=torch.bool)
        kept_NL.view(-1)[chosen] = True
        return f_NL * kept_NL

    def decode_normalized(self, f_NL: Float[Tensor, "N L"]) -> Float[Tensor, "N M D"]:
        """ẑ^m = Σ_j f_j d_j^m + b_dec^m, in the normalised space."""
        z_NX = torch.addmm(self.b_dec_MD.flatten(), f_NL, self.W_dec_LMD.flatten(1))
        return z_NX.unflatten(1, self.b_dec_MD.shape)

    def decode(self, f_NL: Float[Tensor, "N L"]) -> Float[Tensor, "N M D"]:
        """x̂: reconstructions of all models, in raw units."""
        return self.denormalize(self.decode_normalized(f_NL))

    def forward(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """Raw reconstructions of raw activations, by the inference rule."""
        return self.decode(self.encode(x_NMD))

    def raw_decoder(self) -> Float[Tensor, "L M D"]:
        """d_j^m / s_m: what one unit of f_j adds to x^m.

        With `raw_bias`, x^m = Σ_j f_j raw_decoder[j, m] + raw_bias[m] + ε^m for ε^m = x^m − x̂^m.
        """
        return self.W_dec_LMD / self.scale_M[:, None]

    def raw_bias(self) -> Float[Tensor, "M D"]:
        """b^m / s_m + μ_m: the reconstruction of an empty code, in raw units."""
        return self.b_dec_MD / self.scale_M[:, None] + self.mean_MD
