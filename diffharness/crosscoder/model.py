"""The dictionary itself: one code, read from all models at once, and a decoder for each model.

Legend: N tokens, M models (models × layers where several layers are read), D width, L latents; V is L, or M and L where
every model has a code of its own. x are raw activations, z normalised ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.rules import kept
from diffharness.errors import UsageError


def pad(x: Sequence[Float[Tensor, "N _"]]) -> Float[Tensor, "N M D"]:
    """Activations of models of different widths, one tensor a model, as one: zeros up to the widest."""
    width = max(x_ND.shape[-1] for x_ND in x)
    return torch.stack([nn.functional.pad(x_ND, (0, width - x_ND.shape[-1])) for x_ND in x], dim=-2)


class Crosscoder(nn.Module):
    """A crosscoder over M models (Lindsey et al. 2024; Minder et al. 2504.02922).

    z^m = scale_m (x^m − mean_m);  f = ReLU(Σ_m z^m W_enc^m + b_enc), kept by the configuration's rule on
    f_j · code_norm_j;  ẑ^m = Σ_j f_j d_j^m + b_dec^m. A blank one has zero weights, mean 0, scale 1 and threshold 0.
    Models narrower than D are padded with zeros on both sides.
    """

    mean_MD: Tensor
    scale_M: Tensor
    threshold: Tensor

    def __init__(self, config: CrosscoderConfig) -> None:
        super().__init__()
        n_models, d_model, n_latents = len(config.columns), config.d_model, config.n_latents
        self.config = config
        self.W_enc_LMD = nn.Parameter(torch.zeros(n_latents, n_models, d_model))
        self.b_enc_L = nn.Parameter(torch.zeros(n_latents))
        self.W_dec_LMD = nn.Parameter(torch.zeros(n_latents, n_models, d_model))
        self.b_dec_MD = nn.Parameter(torch.zeros(n_models, d_model))
        self.register_buffer("mean_MD", torch.zeros(n_models, d_model))
        self.register_buffer("scale_M", torch.ones(n_models))
        self.register_buffer("threshold", torch.zeros(config.threshold_shape))

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the models."""
        return self.config.sides

    @property
    def n_latents(self) -> int:
        """Number of latents L."""
        return self.config.n_latents

    @property
    def W_enc_MDL(self) -> Float[Tensor, "M D L"]:
        """The encoder as the field writes it: a view of the parameter, which is kept latent by latent."""
        return self.W_enc_LMD.permute(1, 2, 0)

    @property
    def decoder_norm_LM(self) -> Float[Tensor, "L M"]:
        """‖d_j^m‖ in the normalised space."""
        return self.W_dec_LMD.norm(dim=-1)

    @property
    def code_norm_L(self) -> Float[Tensor, " L"]:
        """What an activation times is its scaled value, where all models share the code; Σ_m ‖d_j^m‖ by default.

        For decoupled codes, the sum of the models' own norms.
        """
        rule = self.config.code_norm
        if rule == "none":
            return self.W_dec_LMD.new_ones(self.n_latents)
        sum_L = self.decoder_norm_LM.sum(dim=-1)
        if rule in ("sum", "per_model"):
            return sum_L
        concatenated_L = self.W_dec_LMD.flatten(1).norm(dim=-1)
        if rule == "concatenated":
            return concatenated_L
        weight_concatenated, weight_sum = self.config.code_norm_weights
        return weight_concatenated * concatenated_L + weight_sum * sum_L

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, each name ending in its shape as in the legend; views, not copies."""
        return {
            "W_enc_MDL": self.W_enc_MDL.detach(),
            "b_enc_L": self.b_enc_L.detach(),
            "W_dec_LMD": self.W_dec_LMD.detach(),
            "b_dec_MD": self.b_dec_MD.detach(),
            "mean_MD": self.mean_MD,
            "scale_M": self.scale_M,
            "threshold": self.threshold,
        }

    def normalize(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """Raw activations in the space that the weights know, in the weights' own dtype."""
        x_NMD = x_NMD.to(dtype=self.W_dec_LMD.dtype, device=self.W_dec_LMD.device)
        return (x_NMD - self.mean_MD) * self.scale_M[:, None]

    def denormalize(self, z_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """The inverse of `normalize`."""
        return z_NMD / self._divisor_M1 + self.mean_MD

    def pre_activations(self, z_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N L"]:
        """Σ_m z^m W_enc^m + b_enc, before ReLU and selection, from normalised activations."""
        return torch.addmm(self.b_enc_L, z_NMD.flatten(1), self.W_enc_LMD.flatten(1).T)

    def scaled(self, f_NV: Float[Tensor, "N ... L"]) -> Float[Tensor, "N ... L"]:
        """Activations or a code in the units that the rule compares: times the code norm, a model's where decoupled."""
        if self.config.decoupled:
            return (f_NV[:, None] if f_NV.ndim == 2 else f_NV) * self.decoder_norm_LM.T
        return f_NV * self.code_norm_L

    def encode(self, x: Float[Tensor, "N M D"] | Sequence[Float[Tensor, "N _"]]) -> Float[Tensor, "N ... L"]:
        """The code of raw activations by the crosscoder's own inference rule.

        Args:
            x: of all models, padded with zeros where their widths differ, or one tensor a model.

        Returns:
            (tokens, latents), or (tokens, models, latents) for decoupled codes. The code is not scaled: only the
            selection is.

        Raises:
            UsageError: activations of other models or widths than the crosscoder's.
        """
        x_NMD = x if isinstance(x, Tensor) else self._padded(x)
        if x_NMD.shape[1:] != self.mean_MD.shape:
            columns, width = self.config.columns, self.config.d_model
            raise UsageError(
                f"activations have shape {tuple(x_NMD.shape)}; the crosscoder reads (tokens, {len(columns)}, {width}): "
                f"{', '.join(columns)}"
            )
        return self.code(self.read(self.normalize(x_NMD)))

    def read(self, z_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N L"]:
        """Pre-activations of normalised activations, as this crosscoder was trained to read them."""
        return self.pre_activations(self.normalize(z_NMD) if self.config.n_normalisations == 2 else z_NMD)

    def code(self, pre_NL: Float[Tensor, "N L"]) -> Float[Tensor, "N ... L"]:
        """The code of pre-activations by the crosscoder's own inference rule, shaped as `encode` returns it."""
        f_NL = pre_NL.relu() if self.config.relu else pre_NL
        if self.config.activation == "relu" and not self.config.decoupled:
            return f_NL
        mask_NV = kept(self.config, self.scaled(f_NL), self.threshold)
        return (f_NL[:, None] if self.config.decoupled else f_NL) * mask_NV

    def decode_normalized(self, f_NV: Float[Tensor, "N ... L"]) -> Float[Tensor, "N M D"]:
        """ẑ^m = Σ_j f_j d_j^m + b_dec^m, in the normalised space."""
        if self.config.decoupled:
            return torch.einsum("nml,lmd->nmd", f_NV, self.W_dec_LMD) + self.b_dec_MD
        z_NX = torch.addmm(self.b_dec_MD.flatten(), f_NV, self.W_dec_LMD.flatten(1))
        return z_NX.unflatten(1, self.b_dec_MD.shape)

    def decode(self, f_NV: Float[Tensor, "N ... L"]) -> Float[Tensor, "N M D"]:
        """x̂: reconstructions of all models, in raw units."""
        return self.denormalize(self.decode_normalized(f_NV))

    def forward(self, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
        """Raw reconstructions of raw activations, by the inference rule."""
        return self.decode(self.encode(x_NMD))

    def raw_decoder(self) -> Float[Tensor, "L M D"]:
        """d_j^m / s_m: what one unit of f_j adds to x^m.

        With `raw_bias`, x^m = Σ_j f_j raw_decoder[j, m] + raw_bias[m] + ε^m for ε^m = x^m − x̂^m.
        """
        return self.W_dec_LMD / self._divisor_M1

    def raw_bias(self) -> Float[Tensor, "M D"]:
        """b^m / s_m + μ_m: the reconstruction of an empty code, in raw units."""
        return self.b_dec_MD / self._divisor_M1 + self.mean_MD

    def _padded(self, x: Sequence[Tensor]) -> Tensor:
        widths = self.config.widths or (self.config.d_model,) * len(self.config.columns)
        given = tuple(x_ND.shape[-1] for x_ND in x)
        if given != widths:
            raise UsageError(f"activations have widths {list(given)}, but the crosscoder reads {list(widths)}")
        return pad(x)

    @property
    def _divisor_M1(self) -> Tensor:
        return self.scale_M[:, None] + self.config.scale_epsilon
