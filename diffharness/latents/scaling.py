"""Latent scaling: how much of each model a latent explains, for every latent in one pass (Minder et al. 2504.02922).

For a probe direction d_j (the decoder of the side that the latent leans to) and a target y,
β_j(y) = Σ_t f_tj ⟨y_t, d_j⟩ / (Σ_t f_tj² ‖d_j‖²): the least-squares size of f_j d_j in y. Everything is in the
crosscoder's normalised space z, as Δnorm is. Sums are float64 and add over documents; they are kept for groups of
documents, so that a bootstrap over these costs nothing while reading.

Legend: E active entries, M the two models of a pair, L latents, G groups of documents, R resamples, K kinds of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from diffharness.latents.codes import TextCodes, TextEncoder

N_GROUPS = 128
"""Documents are dealt out to so many groups; with fewer documents each is a group."""
N_RESAMPLES = 1000
MINIMUM_GROUPS = 5
"""A latent that fires in fewer groups has no interval: its resamples are hardly ever different."""
MAXIMUM_UNDEFINED = 0.025
"""Share of resamples in which a ratio may have no positive denominator; above it there is no interval."""
N_KINDS = 4
"""Of tokens: content, first, special, template (`activations.positions`)."""
_BLOCK_VALUES = 1 << 24
"""Resampled sums that are in memory at a time: 128 MiB."""

_ERROR, _RECONSTRUCTION = 0, 1


class ScalingSums:
    """What is summed over tokens: numbers a latent and group, whatever the width and the number of tokens.

    Args:
        encoder: says which two models are compared, and from which side each latent is probed.
        n_groups: groups of documents.
    """

    def __init__(self, encoder: TextEncoder, n_groups: int = N_GROUPS) -> None:
        self._encoder = encoder
        n_latents = encoder.crosscoder.n_latents
        d_LMD = encoder.crosscoder.W_dec_LMD.detach()
        probe_LD = d_LMD[torch.arange(n_latents, device=d_LMD.device), encoder.probe_L]
        pair = list(encoder.pair)
        self._own_LM = _products(d_LMD[:, pair], probe_LD)
        self._square_probe_L = _products(probe_LD[:, None], probe_LD)[:, 0]
        self._bias_LM = _products(encoder.crosscoder.b_dec_MD.detach()[pair].expand(n_latents, -1, -1), probe_LD)
        self._norm_L = encoder.crosscoder.decoder_norm_LM.detach().double().sum(dim=-1).cpu()
        self.n_tokens = 0
        self._n_active_L = torch.zeros(n_latents, dtype=torch.int64)
        self._n_texts_L = torch.zeros_like(self._n_active_L)
        self._code_L = torch.zeros(n_latents, dtype=torch.float64)
        self._square_L = torch.zeros_like(self._code_L)
        self._mass_LK = torch.zeros(n_latents, N_KINDS, dtype=torch.float64)
        self._sums_LG22 = torch.zeros(n_latents, n_groups, 2, 2, dtype=torch.float64)
        """Σ f ⟨y, d⟩ by group, target (error, reconstruction) and model."""
        self._presence_LM = torch.zeros(n_latents, 2, dtype=torch.float64)
        self._used_G = torch.zeros(n_groups, dtype=torch.bool)

    def update(
        self, codes: TextCodes, documents: Sequence[int], kind_N: Int[NDArray[np.uint8], " N"] | None = None
    ) -> None:
        """Add the codes of texts.

        Args:
            codes: from the sums' own encoder.
            documents: number of the document that each text is of; documents, not texts, are resampled.
            kind_N: kind of each coded token (`activations.positions`), for the share on first, special and template
                tokens; left out, all is content.
        """
        latent_E, f_E = codes.entries.latent_E, codes.f_E.double()
        n_latents, n_groups = self._sums_LG22.shape[:2]
        target_E22 = torch.stack([codes.error_EM, codes.reconstruction_EM], dim=1).double()
        target_E22[:, _ERROR] += f_E[:, None] * self._own_LM[latent_E]
        group_B = torch.tensor(list(documents), dtype=torch.int64) % n_groups
        self._used_G[group_B] = True
        group_E = group_B[codes.text_E]
        flat = self._sums_LG22.view(-1, 2, 2)
        flat.index_add_(0, latent_E * n_groups + group_E, f_E[:, None, None] * target_E22)
        self.n_tokens += codes.n_tokens
        self._n_active_L += torch.bincount(latent_E, minlength=n_latents)
        self._n_texts_L += torch.bincount(codes.peaks.latent_P, minlength=n_latents)
        self._code_L.index_add_(0, latent_E, f_E)
        self._presence_LM.index_add_(0, latent_E, codes.presence_EM.double())
        self._square_L.index_add_(0, latent_E, f_E.square())
        kind_E = (
            torch.zeros_like(latent_E) if kind_N is None else torch.from_numpy(kind_N)[codes.entries.token_E].long()
        )
        self._mass_LK.view(-1).index_add_(0, latent_E * self._mass_LK.shape[1] + kind_E, f_E * self._norm_L[latent_E])

    def finish(self, rng: np.random.Generator) -> LatentScaling:
        """The coefficients β and the ratios ν with their intervals.

        With C = Σf², S = Σf, D = ‖d‖² of the probe d and the targets' sums p (activation), r (reconstruction) and
        e (error, the activation less what all other latents and the bias reconstruct): activation p/(CD), without bias
        (p − S⟨b^m, d⟩)/(CD), reconstruction r/(CD), error e/(CD), where p = e + r − C⟨d_j^m, d⟩. NaN where a latent
        never fired or its probe is zero.
        """
        total_L22 = self._sums_LG22.sum(dim=1)
        error_LM, reconstruction_LM = total_L22[:, _ERROR], total_L22[:, _RECONSTRUCTION]
        activation_LM = error_LM + reconstruction_LM - self._square_L[:, None] * self._own_LM
        denominator_L1 = (self._square_L * self._square_probe_L)[:, None]
        denominator_L1 = torch.where(denominator_L1 > 0, denominator_L1, torch.nan)
        first, second = self._encoder.pair
        leans_L = (self._encoder.probe_L.cpu() == second).long()
        nu_L2 = _ratio(total_L22, leans_L).numpy()
        low_L2, high_L2 = self._intervals(leans_L, rng)
        n_active_L, mass_L = self._n_active_L.numpy(), self._mass_LK.sum(dim=1).numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_L = mass_L / n_active_L
            share_LK = (self._mass_LK / self._mass_LK.sum(dim=1, keepdim=True)).numpy()
        sides = self._encoder.crosscoder.sides
        return LatentScaling(
            pair=(sides[first], sides[second]),
            leans_L=leans_L.numpy(),
            error_LM=(error_LM / denominator_L1).numpy(),
            reconstruction_LM=(reconstruction_LM / denominator_L1).numpy(),
            activation_LM=(activation_LM / denominator_L1).numpy(),
            activation_no_bias_LM=((activation_LM - self._code_L[:, None] * self._bias_LM) / denominator_L1).numpy(),
            nu_error=Ratios(nu_L2[:, _ERROR], low_L2[:, _ERROR], high_L2[:, _ERROR]),
            nu_reconstruction=Ratios(
                nu_L2[:, _RECONSTRUCTION], low_L2[:, _RECONSTRUCTION], high_L2[:, _RECONSTRUCTION]
            ),
            n_tokens=self.n_tokens,
            n_active_L=n_active_L,
            n_texts_L=self._n_texts_L.numpy(),
            density_L=n_active_L / max(self.n_tokens, 1),
            mass_L=mass_L,
            presence_LM=self._presence_LM.numpy(),
            mean_activation_L=mean_L,
            kind_share_LK=share_LK,
        )

    def _intervals(self, leans_L: Tensor, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """95 % percentile intervals of ν^ε and ν^r over resampled groups, (L, 2) each; NaN where there is none."""
        used_G = self._used_G.nonzero()[:, 0]
        low_L2, high_L2 = np.full((len(leans_L), 2), np.nan), np.full((len(leans_L), 2), np.nan)
        if len(used_G) < MINIMUM_GROUPS:
            return low_L2, high_L2
        draws = rng.multinomial(len(used_G), np.full(len(used_G), 1 / len(used_G)), N_RESAMPLES)
        draw_RG = torch.from_numpy(draws.astype(np.float64))
        fires_LG = (self._sums_LG22[:, used_G] != 0).any(dim=-1).any(dim=-1)
        chosen_L = (fires_LG.sum(dim=1) >= MINIMUM_GROUPS).nonzero()[:, 0]
        for block_L in chosen_L.split(max(1, _BLOCK_VALUES // (4 * N_RESAMPLES))):
            sums_LGX = self._sums_LG22[block_L][:, used_G].flatten(2)
            resampled_LR22 = (draw_RG @ sums_LGX).unflatten(2, (2, 2))
            nu_LR2 = _ratio(resampled_LR22, leans_L[block_L, None].expand(-1, N_RESAMPLES)).numpy()
            low_L2[block_L.numpy()], high_L2[block_L.numpy()] = _percentiles(nu_LR2)
        return low_L2, high_L2


def _products(y_LMD: Tensor, d_LD: Tensor) -> Tensor:
    """⟨y_j^m, d_j⟩ in float64, (L, M), without a whole copy in float64."""
    blocks = zip(y_LMD.split(1 << 14), d_LD.split(1 << 14), strict=True)
    return torch.cat([torch.einsum("lmd,ld->lm", y.double(), d.double()) for y, d in blocks]).cpu()


def _percentiles(nu_LR2: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Central 95 % of the resamples that are defined; NaN where too many are not."""
    n_defined_L2 = np.isfinite(nu_LR2).sum(axis=1)
    usable_L2 = n_defined_L2 >= (1 - MAXIMUM_UNDEFINED) * nu_LR2.shape[1]
    sorted_LR2 = np.sort(nu_LR2, axis=1)  # NaN comes last
    ends = []
    for share in (0.025, 0.975):
        place_L2 = np.rint(share * (np.maximum(n_defined_L2, 1) - 1)).astype(np.int64)
        end_L2 = np.take_along_axis(sorted_LR2, place_L2[:, None], axis=1)[:, 0]
        ends.append(np.where(usable_L2, end_L2, np.nan))
    return ends[0], ends[1]


def _ratio(sums_X22: Tensor, leans_X: Tensor) -> Tensor:
    """ν of both targets: the other model's sum over that of the model leant to, (…, 2); NaN unless that is positive."""
    own_X2 = torch.where(leans_X[..., None] == 1, sums_X22[..., 1], sums_X22[..., 0])
    other_X2 = torch.where(leans_X[..., None] == 1, sums_X22[..., 0], sums_X22[..., 1])
    return torch.where(own_X2 > 0, other_X2 / own_X2, torch.nan)


@dataclass(frozen=True)
class Ratios:
    """ν of every latent: β in the other model over β in the model that the latent leans to, with a 95 % interval.

    0 means that the other model has nothing of it, 1 that both have it alike. (For latents that lean to the second
    model, say the candidate, it is the published ν = β^baseline / β^candidate.) NaN where the latent does not explain
    its own side. The interval is a percentile one over resampled groups of documents; NaN where fewer than
    `MINIMUM_GROUPS` have the latent, or resamples often leave its own side unexplained.
    """

    value_L: NDArray[np.float64]
    low_L: NDArray[np.float64]
    high_L: NDArray[np.float64]


@dataclass(frozen=True)
class LatentScaling:
    """β of every latent, target and model of the pair, the ratios ν, and how much the latents fired."""

    pair: tuple[str, str]
    leans_L: NDArray[np.int64]
    """0 or 1: the model of the pair that a latent leans to, whose decoder was the probe."""
    error_LM: NDArray[np.float64]
    """β of z^m less all of its reconstruction but latent j's own part f_j d_j^m."""
    reconstruction_LM: NDArray[np.float64]
    """β of the reconstruction ẑ^m, latent j and the bias included."""
    activation_LM: NDArray[np.float64]
    """β of z^m."""
    activation_no_bias_LM: NDArray[np.float64]
    """β of z^m − b^m."""
    nu_error: Ratios
    """ν^ε: high where the other model's error still holds the latent (complete shrinkage)."""
    nu_reconstruction: Ratios
    """ν^r: high where other latents write the same in the other model (latent decoupling)."""
    n_tokens: int
    n_active_L: NDArray[np.int64]
    """Tokens on which a latent fires."""
    n_texts_L: NDArray[np.int64]
    """Texts on which it fires."""
    density_L: NDArray[np.float64]
    """Share of tokens on which it fires."""
    mass_L: NDArray[np.float64]
    """Sum of its activation f Σ_m ‖d^m‖ over tokens."""
    presence_LM: NDArray[np.float64]
    """Sum over the tokens on which it fires of how much of it is in either model, in the same units
    (`TextCodes.presence_EM`): about `mass_L` in a model that has it, about 0 in one that has not."""
    mean_activation_L: NDArray[np.float64]
    """Over the tokens on which it fires; NaN where it never does."""
    kind_share_LK: NDArray[np.float64]
    """Share of its activation on each kind of token; NaN where it never fires."""
