"""Latent scaling: how much of each model a latent explains, for every latent in one pass (Minder et al. 2504.02922).

For a probe direction d_j (the decoder of the side that the latent leans to) and a target y,
β_j(y) = Σ_t f_tj ⟨y_t, d_j⟩ / (Σ_t f_tj² ‖d_j‖²): the least-squares size of f_j d_j in y. Everything is in the
crosscoder's normalised space z, as Δnorm is; sums are float64 and add over documents.

Legend: N tokens, M models, P probes (the same models again), D width, L latents, X = M·D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from diffharness.crosscoder.geometry import delta_norm
from diffharness.crosscoder.model import Crosscoder

SUM_TOKENS = 4096
"""Tokens whose codes are held in float64 at a time."""


@dataclass
class ScalingSums:
    """What has to be summed over tokens: numbers a latent, whatever the width. Sums of documents add up."""

    n_tokens: int
    n_active_L: Int64[Tensor, " L"]
    """Tokens on which f_j > 0."""
    code_L: Float64[Tensor, " L"]
    """S_j = Σ_t f_tj."""
    square_L: Float64[Tensor, " L"]
    """C_j = Σ_t f_tj²."""
    activation_LMP: Float64[Tensor, "L M P"]
    """p_j = Σ_t f_tj ⟨z_t^m, d_j^p⟩."""
    reconstruction_LMP: Float64[Tensor, "L M P"]
    """r_j = Σ_t f_tj ⟨ẑ_t^m, d_j^p⟩."""

    @classmethod
    def zeros(cls, crosscoder: Crosscoder) -> ScalingSums:
        """Empty sums for the latents and models of a crosscoder."""
        n_latents, n_models = crosscoder.n_latents, len(crosscoder.sides)
        pairs = torch.zeros(n_latents, n_models, n_models, dtype=torch.float64)
        vector = torch.zeros(n_latents, dtype=torch.float64)
        return cls(0, vector.long(), vector, vector.clone(), pairs, pairs.clone())

    def __add__(self, other: ScalingSums) -> ScalingSums:
        """Sums over the tokens of both."""
        return ScalingSums(
            self.n_tokens + other.n_tokens,
            self.n_active_L + other.n_active_L,
            self.code_L + other.code_L,
            self.square_L + other.square_L,
            self.activation_LMP + other.activation_LMP,
            self.reconstruction_LMP + other.reconstruction_LMP,
        )

    @torch.no_grad()
    def update(
        self, crosscoder: Crosscoder, x_NMD: Float[Tensor, "N M D"], f_NL: Float[Tensor, "N L"] | None = None
    ) -> None:
        """Add raw activations and their code (left out: encoded here, by the inference rule).

        Only active (token, latent) pairs are touched: the work is that of a sparse decode and its transpose,
        and no tensor of (latents, tokens, width) is ever made.
        """
        d_LMD = crosscoder.W_dec_LMD.detach().to("cpu", torch.float64)
        bias_X = crosscoder.b_dec_MD.detach().flatten().to("cpu", torch.float64)
        for start in range(0, len(x_NMD), SUM_TOKENS):
            x_CMD = x_NMD[start : start + SUM_TOKENS]
            f_CL = crosscoder.encode(x_CMD) if f_NL is None else f_NL[start : start + SUM_TOKENS]
            z_CX = crosscoder.normalize(x_CMD).flatten(1).to("cpu", torch.float64)
            self._add_chunk(f_CL.detach().cpu(), z_CX, d_LMD, bias_X)

    def _add_chunk(self, f_CL: Tensor, z_CX: Tensor, d_LMD: Tensor, bias_X: Tensor) -> None:
        """One chunk, everything in float64."""
        n_tokens, n_latents = f_CL.shape
        token, latent = f_CL.nonzero(as_tuple=True)
        code = f_CL[token, latent].to(torch.float64)
        sparse_CL = scipy.sparse.csr_array((code.numpy(), (token.numpy(), latent.numpy())), f_CL.shape)
        reconstruction_CX = torch.from_numpy(sparse_CL @ d_LMD.flatten(1).numpy()) + bias_X
        for sums_LMP, y_CX in (
            (self.activation_LMP, z_CX),
            (self.reconstruction_LMP, reconstruction_CX),
        ):
            coded_LMD = torch.from_numpy(sparse_CL.T @ y_CX.numpy()).view_as(d_LMD)
            sums_LMP += torch.einsum("lmd,lpd->lmp", coded_LMD, d_LMD)
        self.n_tokens += n_tokens
        self.n_active_L += torch.bincount(latent, minlength=n_latents)
        self.code_L += torch.bincount(latent, code, minlength=n_latents)
        self.square_L += torch.bincount(latent, code.square(), minlength=n_latents)

    def finish(self, crosscoder: Crosscoder, probe_L: NDArray[np.int64]) -> LatentScaling:
        """The coefficients β, each latent probed with the decoder of the model `probe_L[j]`.

        With C = Σf², S = Σf, D = ‖d‖² of the probe d (method of the streaming form: the targets' sums follow
        from p and r): activation p/(CD); without bias (p − S⟨b^m, d⟩)/(CD); reconstruction r/(CD); error, the
        activation less what all other latents and the bias reconstruct, (p − r + C⟨d_j^m, d⟩)/(CD).
        NaN where a latent never fired or its probe is zero.
        """
        d_LMD = crosscoder.W_dec_LMD.detach().to("cpu", torch.float64)
        bias_MD = crosscoder.b_dec_MD.detach().to("cpu", torch.float64)
        latent_L, probe = torch.arange(len(d_LMD)), torch.from_numpy(np.asarray(probe_L, dtype=np.int64))
        probe_LD = d_LMD[latent_L, probe]
        p_LM = self.activation_LMP[latent_L, :, probe]
        r_LM = self.reconstruction_LMP[latent_L, :, probe]
        bias_LM = self.code_L[:, None] * torch.einsum("md,ld->lm", bias_MD, probe_LD)
        own_LM = self.square_L[:, None] * torch.einsum("lmd,ld->lm", d_LMD, probe_LD)
        denominator_L1 = (self.square_L * probe_LD.square().sum(dim=-1))[:, None]
        denominator_L1 = torch.where(denominator_L1 > 0, denominator_L1, torch.nan)
        n_active_L = self.n_active_L.numpy()
        scaled_L = (self.code_L * d_LMD.norm(dim=-1).sum(dim=-1)).numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_L = scaled_L / n_active_L
        return LatentScaling(
            sides=crosscoder.sides,
            probe_L=probe.numpy(),
            error_LM=((p_LM - r_LM + own_LM) / denominator_L1).numpy(),
            reconstruction_LM=(r_LM / denominator_L1).numpy(),
            activation_LM=(p_LM / denominator_L1).numpy(),
            activation_no_bias_LM=((p_LM - bias_LM) / denominator_L1).numpy(),
            n_tokens=self.n_tokens,
            n_active_L=n_active_L,
            density_L=n_active_L / max(self.n_tokens, 1),
            mass_L=scaled_L,
            mean_activation_L=mean_L,
        )


@dataclass(frozen=True)
class LatentScaling:
    """β of every latent, target and model, and how much the latents fired."""

    sides: tuple[str, ...]
    probe_L: NDArray[np.int64]
    """The model whose decoder was the probe."""
    error_LM: NDArray[np.float64]
    """β of z^m less all of its reconstruction but latent j's own part f_j d_j^m."""
    reconstruction_LM: NDArray[np.float64]
    """β of the reconstruction ẑ^m, latent j and the bias included."""
    activation_LM: NDArray[np.float64]
    """β of z^m."""
    activation_no_bias_LM: NDArray[np.float64]
    """β of z^m − b^m."""
    n_tokens: int
    n_active_L: NDArray[np.int64]
    density_L: NDArray[np.float64]
    """Share of tokens on which a latent fires."""
    mass_L: NDArray[np.float64]
    """Σ_t f_tj Σ_m ‖d_j^m‖: the code in units that do not depend on how a latent's size is split between
    code and decoder."""
    mean_activation_L: NDArray[np.float64]
    """`mass_L` over the tokens on which the latent fires; NaN where it never does."""

    def ratio(self, beta_LM: NDArray[np.float64], pair: tuple[int, int] = (0, 1)) -> NDArray[np.float64]:
        """ν: β in the other model of the pair over β in the model that the probe is from.

        Oriented so that the side that the latent may be specific to is the denominator: 0 means that the other
        model has nothing of it, 1 that both have it alike. (For latents that lean to the second model, say the
        candidate, it is the published ν = β^baseline / β^candidate.) NaN where the denominator is not positive,
        for then the latent does not explain its own side, and where the probe is from neither model.
        """
        latent_L, (first, second) = np.arange(len(beta_LM)), pair
        other_L = np.where(self.probe_L == first, second, first)
        own_L = beta_LM[latent_L, self.probe_L]
        usable_L = (own_L > 0) & np.isin(self.probe_L, pair)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(usable_L, beta_LM[latent_L, other_L] / own_L, np.nan)

    def nu_error(self, pair: tuple[int, int] = (0, 1)) -> NDArray[np.float64]:
        """ν^ε: high where the other model's error still holds the latent (complete shrinkage)."""
        return self.ratio(self.error_LM, pair)

    def nu_reconstruction(self, pair: tuple[int, int] = (0, 1)) -> NDArray[np.float64]:
        """ν^r: high where other latents write the same in the other model (latent decoupling)."""
        return self.ratio(self.reconstruction_LM, pair)


def leaning(crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> NDArray[np.int64]:
    """The model of the pair with the larger decoder, the probe of latent scaling: the first where Δnorm < ½."""
    delta_L = delta_norm(crosscoder, pair).cpu().numpy()
    return np.where(delta_L < 0.5, pair[0], pair[1]).astype(np.int64)


def scale(crosscoder: Crosscoder, x_NMD: Float[Tensor, "N M D"], pair: tuple[int, int] = (0, 1)) -> LatentScaling:
    """Latent scaling of raw activations in one pass, each latent probed from the side that it leans to."""
    sums = ScalingSums.zeros(crosscoder)
    sums.update(crosscoder, x_NMD)
    return sums.finish(crosscoder, leaning(crosscoder, pair))
