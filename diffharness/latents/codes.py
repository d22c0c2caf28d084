"""The codes of texts: which latents fire on which tokens, and how much of each either model holds there.

Legend: N tokens of some whole texts, one after the other; B texts; M the two models of a pair; D width; L latents;
E active (token, latent) entries, sorted by token; P active (text, latent) pairs; C tokens of a piece; X = M · D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffharness.crosscoder.geometry import leaning
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import code_chunk_tokens
from diffharness.crosscoder.sparse import Entries, decode, products


@dataclass(frozen=True, eq=False)
class Peaks:
    """The strongest activation of every latent in every text on which it fires, sorted by text, then latent."""

    text_P: Int[Tensor, " P"]
    latent_P: Int[Tensor, " P"]
    peak_P: Float[Tensor, " P"]
    """The largest activation."""
    place_P: Int[Tensor, " P"]
    """The (first) token that has it, among all N."""
    mass_P: Float[Tensor, " P"]
    """Sum of the activations, in float64."""
    n_active_P: Int[Tensor, " P"]
    """Tokens of the text on which it fires."""


@dataclass(frozen=True, eq=False)
class TextCodes:
    """What an encoder saw in some whole texts; everything is on the CPU.

    An *activation* is f_j Σ_m ‖d_j^m‖: the code in units that do not depend on how a latent's size is split between
    code and decoder.
    """

    entries: Entries
    length_B: Int[Tensor, " B"]
    """Coded tokens of each text; 0 is allowed."""
    f_E: Float[Tensor, " E"]
    """The code itself."""
    activation_E: Float[Tensor, " E"]
    error_EM: Float[Tensor, "E M"]
    """⟨ε_t^m, d_j⟩ with the error ε^m of either model of the pair and the probe d_j, in the normalised space."""
    reconstruction_EM: Float[Tensor, "E M"]
    """⟨ẑ_t^m, d_j⟩ with the reconstruction, bias included."""
    presence_EM: Float[Tensor, "E M"]
    """How much of the latent is in either model's activation on the token, in units of `activation_E`: the
    least-squares size of d_j in the activation less what all other latents and the bias reconstruct of it. For a
    model that has the latent it is about the activation, for one that has not about 0."""
    near_BL: Float[Tensor, "B L"] | None
    """The largest scaled pre-activation in every text, fired or not; −∞ for a text without tokens."""

    @property
    def n_tokens(self) -> int:
        """Coded tokens N."""
        return self.entries.n_tokens

    @cached_property
    def start_B(self) -> Int[Tensor, " B"]:
        """First token of each text."""
        return self.length_B.cumsum(0) - self.length_B

    @cached_property
    def text_N(self) -> Int[Tensor, " N"]:
        """The text of each token."""
        return torch.arange(len(self.length_B)).repeat_interleave(self.length_B)

    @cached_property
    def text_E(self) -> Int[Tensor, " E"]:
        """The text of each entry."""
        return self.text_N[self.entries.token_E]

    @cached_property
    def peaks(self) -> Peaks:
        """Entries gathered by text and latent."""
        n_latents = self.entries.n_latents
        key_E, order_E = (self.text_E * n_latents + self.entries.latent_E).sort(stable=True)
        key_P, group_E, n_active_P = torch.unique_consecutive(key_E, return_inverse=True, return_counts=True)
        activation_E = self.activation_E[order_E]
        peak_P = torch.full((len(key_P),), -torch.inf, dtype=activation_E.dtype)
        peak_P.scatter_reduce_(0, group_E, activation_E, "amax")
        mass_P = torch.zeros(len(key_P), dtype=torch.float64).index_add_(0, group_E, activation_E.double())
        is_peak_E = activation_E == peak_P[group_E]
        place_P = torch.full_like(key_P, self.n_tokens).scatter_reduce_(
            0, group_E[is_peak_E], self.entries.token_E[order_E][is_peak_E], "amin"
        )
        return Peaks(key_P // n_latents, key_P % n_latents, peak_P, place_P, mass_P, n_active_P)


class TextEncoder:
    """Encodes texts by a crosscoder's inference rule and compares what two of its models hold of every active latent.

    The probe d_j of a latent is its decoder in the model of the pair that it leans to (the larger one), so that latents
    of either side are seen.
    """

    def __init__(self, crosscoder: Crosscoder, pair: tuple[int, int] = (0, 1)) -> None:
        self.crosscoder = crosscoder
        self.pair = pair
        """Places of the two models among the crosscoder's sides."""
        d_LMD = crosscoder.W_dec_LMD.detach()
        self.probe_L = leaning(crosscoder, pair)
        """The model whose decoder is the probe, as a place among the sides; on the crosscoder's device."""
        self._probe_LD = d_LMD[torch.arange(len(d_LMD), device=d_LMD.device), self.probe_L].contiguous()
        self._d_LX = d_LMD.flatten(1)
        self._norm_L = crosscoder.decoder_norm_LM.detach().sum(dim=-1).cpu()
        self._code_norm_L = crosscoder.code_norm_L.detach()
        config = crosscoder.config
        self._by_threshold = (
            config.activation == "threshold"
            and config.relu
            and not config.decoupled
            and crosscoder.threshold.numel() == 1
            and float(crosscoder.threshold) >= 0
        )
        square_L = self._probe_LD.square().sum(dim=-1).cpu()
        self._inverse_L = torch.where(square_L > 0, 1 / square_L, 0.0)
        self._own_LM = torch.stack([(d_LMD[:, m] * self._probe_LD).sum(dim=-1) for m in pair], dim=1).cpu()

    @torch.no_grad()
    def __call__(
        self, x_NMD: Float[Tensor, "N M D"], lengths: Sequence[int], *, near: bool = False, only: int | None = None
    ) -> TextCodes:
        """The codes of raw activations of all models: whole texts, `lengths` coded tokens each.

        Dense codes are made piece by piece, so memory is bounded whatever the number of latents.

        Args:
            x_NMD: activations of all the crosscoder's models.
            lengths: sums to N.
            near: whether `near_BL` is wanted.
            only: the model whose (normalised) activations stand in the place of all models', as a place among the
                sides: its own use of the latents, which a joint code can not tell.
        """
        length_B = torch.tensor(list(lengths), dtype=torch.int64)
        if int(length_B.sum()) != len(x_NMD):
            raise ValueError(f"lengths sum to {int(length_B.sum())}, but there are {len(x_NMD)} tokens")
        n_latents = self.crosscoder.n_latents
        near_BL = torch.full((len(length_B), n_latents), -torch.inf) if near else None
        text_N = torch.arange(len(length_B)).repeat_interleave(length_B)
        pieces, first = [], 0
        for x_CMD in x_NMD.split(code_chunk_tokens(self.crosscoder.config)):
            z_CMD = self.crosscoder.normalize(x_CMD)
            if only is not None:
                z_CMD = z_CMD[:, [only] * z_CMD.shape[1]]
            pre_CL = self.crosscoder.read(z_CMD)
            token_E, latent_E, f_E, scaled_CL = self._active(pre_CL)
            pieces.append(self._piece(z_CMD, token_E, latent_E, f_E, first))
            if near_BL is not None:
                _raise_to(near_BL, scaled_CL, text_N[first : first + len(x_CMD)])
            first += len(x_CMD)
        token_E, latent_E, f_E, error_EM, reconstruction_EM = (
            (torch.cat(parts) for parts in zip(*pieces, strict=True)) if pieces else self._nothing()
        )
        norm_E, inverse_E1 = self._norm_L[latent_E], self._inverse_L[latent_E, None]
        size_EM = (error_EM + f_E[:, None] * self._own_LM[latent_E]) * inverse_E1
        return TextCodes(
            entries=Entries.of(token_E, latent_E, len(x_NMD), n_latents),
            length_B=length_B,
            f_E=f_E,
            activation_E=f_E * norm_E,
            error_EM=error_EM,
            reconstruction_EM=reconstruction_EM,
            presence_EM=size_EM * norm_E[:, None],
            near_BL=near_BL,
        )

    def _active(self, pre_CL: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Active entries of a piece with their code, as `Crosscoder.code` chooses them, and the scaled pre-activations.

        Under the usual rule nothing but these is made for all (token, latent) pairs.
        """
        if not self._by_threshold:
            f_CL = self.crosscoder.code(pre_CL)
            token_E, latent_E = f_CL.nonzero(as_tuple=True)
            return token_E, latent_E, f_CL[token_E, latent_E], self.crosscoder.scaled(pre_CL)
        scaled_CL = pre_CL * self._code_norm_L
        token_E, latent_E = (scaled_CL > self.crosscoder.threshold).nonzero(as_tuple=True)
        return token_E, latent_E, pre_CL[token_E, latent_E], scaled_CL

    def _piece(
        self, z_CMD: Tensor, token_E: Tensor, latent_E: Tensor, f_E: Tensor, first: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Entries of a piece whose first token is `first`, and their products with the probes."""
        entries = Entries.of(token_E, latent_E, len(z_CMD), self.crosscoder.n_latents)
        decoded_CMD = decode(entries, f_E, self._d_LX).unflatten(1, z_CMD.shape[1:]) + self.crosscoder.b_dec_MD
        found = [
            torch.stack([products(y_CMD[:, m].contiguous(), self._probe_LD, entries) for m in self.pair], dim=1)
            for y_CMD in (z_CMD - decoded_CMD, decoded_CMD)
        ]
        return (token_E + first).cpu(), latent_E.cpu(), f_E.cpu(), found[0].cpu(), found[1].cpu()

    def _nothing(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        none, empty = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=self._norm_L.dtype)
        return none, none, empty, empty.view(0, 1).expand(0, 2), empty.view(0, 1).expand(0, 2)


def _raise_to(near_BL: Tensor, scaled_CL: Tensor, text_C: Tensor) -> None:
    """Raise the texts' maxima to those of a piece."""
    if len(text_C) == 0:
        return
    text_S, length_S = torch.unique_consecutive(text_C, return_counts=True)
    found_SL = torch.segment_reduce(scaled_CL, "max", lengths=length_S.to(scaled_CL.device), axis=0)
    near_BL[text_S] = torch.maximum(near_BL[text_S], found_SL.float().cpu())
