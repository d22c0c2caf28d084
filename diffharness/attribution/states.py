"""Both models' states at the layer on a batch, and how the crosscoder takes them apart.

x^m = Σ_j f_j d_j^m + b^m + ε^m at coded positions; elsewhere (the first of a sequence, skipped ids) there is no code
and no bias. Everything here is in raw units and float64, codes as entries: one a token and active latent.

Legend: B rows, T positions, M = 2 models, D width, L latents, N coded tokens, E entries, G documents, K groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.replay import coded_positions
from diffharness.attribution.batches import Rows
from diffharness.crosscoder.model import Crosscoder

_CHUNK_CELLS = 8_000_000
"""Numbers of a temporary table: pre-activations of some tokens, decoders of some entries."""


@dataclass(frozen=True)
class ModelPair:
    """Both models at one layer, and the crosscoder over them (sides: baseline, candidate)."""

    readers: tuple[LayerReader, LayerReader]
    uppers: tuple[UpperStack, UpperStack]
    crosscoder: Crosscoder

    @property
    def device(self) -> torch.device:
        """Where states and codes are."""
        return self.crosscoder.W_dec_LMD.device


class PairStates:
    """The two models' states on the same tokens.

    Args:
        pair: reads them.
        rows: what is read.
    """

    def __init__(self, pair: ModelPair, rows: Rows) -> None:
        self.rows = rows
        self._crosscoder = pair.crosscoder
        x = [reader.read(rows.ids_BT).to(pair.device) for reader in pair.readers]
        self.x_BTD: tuple[Tensor, Tensor] = (x[0], x[1])
        skipped = pair.crosscoder.config.skipped_ids
        self.coded_BT = coded_positions(rows.ids_BT, rows.lengths, skipped).to(pair.device)
        self._row_N, self._place_N = self.coded_BT.nonzero(as_tuple=True)
        self._decoder_LMD = pair.crosscoder.raw_decoder().double()
        self._bias_MD = pair.crosscoder.raw_bias().double()
        self._document_B = rows.document_B.to(pair.device)
        self._encode()

    def _encode(self) -> None:
        """The code as entries: token, latent, and its activation for either model (the same unless decoupled)."""
        tokens, latents, values = [], [], []
        step = max(1, _CHUNK_CELLS // self._crosscoder.n_latents)
        with torch.no_grad():
            for start in range(0, max(1, len(self._row_N)), step):
                f_NML = self._crosscoder.encode(self._coded_states(start, start + step).float())
                f_NML = f_NML[:, None].expand(-1, 2, -1) if f_NML.ndim == 2 else f_NML
                token_E, latent_E = f_NML.any(dim=1).nonzero(as_tuple=True)
                tokens.append(token_E + start)
                latents.append(latent_E)
                values.append(f_NML[token_E, :, latent_E].double())
        self.token_E, self.latent_E = torch.cat(tokens), torch.cat(latents)
        self.value_EM = torch.cat(values)

    def _coded_states(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "N M D"]:
        rows, places = self._row_N[start:stop], self._place_N[start:stop]
        return torch.stack([x_BTD[rows, places] for x_BTD in self.x_BTD], dim=1)

    def _chunks(self) -> Iterator[slice]:
        step = max(1, _CHUNK_CELLS // self._decoder_LMD.shape[-1])
        yield from (slice(start, start + step) for start in range(0, max(1, len(self.token_E)), step))

    def decoded(self, model: int, latents: Tensor | None = None) -> Float[Tensor, "B T D"]:
        """Σ_j f_j d_j^m at coded positions, 0 elsewhere.

        Args:
            model: 0 or 1.
            latents: which latents (L, boolean); all by default.
        """
        sum_ND = self._decoder_LMD.new_zeros(len(self._row_N), self._decoder_LMD.shape[-1])
        for part in self._chunks():
            latent_E, token_E, value_E = self.latent_E[part], self.token_E[part], self.value_EM[part, model]
            if latents is not None:
                chosen = latents[latent_E]
                latent_E, token_E, value_E = latent_E[chosen], token_E[chosen], value_E[chosen]
            sum_ND.index_add_(0, token_E, value_E[:, None] * self._decoder_LMD[latent_E, model])
        return self._placed(sum_ND)

    def _placed(self, values_ND: Tensor) -> Float[Tensor, "B T D"]:
        state_BTD = values_ND.new_zeros(*self.coded_BT.shape, values_ND.shape[-1])
        state_BTD[self._row_N, self._place_N] = values_ND
        return state_BTD

    def bias(self, model: int) -> Float[Tensor, "B T D"]:
        """b^m at coded positions, 0 elsewhere."""
        return self._placed(self._bias_MD[model].expand(len(self._row_N), -1))

    def start(self, model: int) -> Float[Tensor, "B T D"]:
        """The state that says nothing: b^m at coded positions, the model's own state elsewhere."""
        return self.bias(model) + self.x_BTD[model].double() * ~self.coded_BT[..., None]

    def by_document(self, parts_BT: Float[Tensor, "B T"]) -> np.ndarray:
        """Numbers a position summed to documents (G), padding left out."""
        sums_B = (parts_BT * self.rows.read_BT.to(parts_BT.device)).sum(dim=1)
        total_G = sums_B.new_zeros(self.rows.n_documents).index_add(0, self._document_B, sums_B)
        return total_G.cpu().numpy()

    def latents_by_document(self, gradient_MBTD: tuple[Tensor | None, Tensor | None]) -> sparse.csr_array:
        """Σ_t f_tj^m ⟨g_t^m, d_j^m⟩ of every document and latent (G, L), summed over the models.

        Args:
            gradient_MBTD: what each model's decoders meet; `None` leaves that model out.
        """
        document_E = self._document_B[self._row_N[self.token_E]]
        shape = (self.rows.n_documents, self._crosscoder.n_latents)
        sum_E = self._of_entries(gradient_MBTD)
        entries = (sum_E.cpu().numpy(), (document_E.cpu().numpy(), self.latent_E.cpu().numpy()))
        found = sparse.coo_array(entries, shape=shape).tocsr()
        found.sum_duplicates()
        return found

    def groups_by_position(
        self, gradient_MBTD: tuple[Tensor | None, Tensor | None], group_L: Int[Tensor, " L"], n_groups: int
    ) -> Float[Tensor, "B T K"]:
        """The same products of every position and group of latents.

        Args:
            gradient_MBTD: what each model's decoders meet; `None` leaves that model out.
            group_L: the group of every latent, from 0.
            n_groups: K.
        """
        token_E = self.token_E
        place_E = self._row_N[token_E] * self.coded_BT.shape[1] + self._place_N[token_E]
        found = self.value_EM.new_zeros(self.coded_BT.numel() * n_groups)
        found.index_add_(0, place_E * n_groups + group_L[self.latent_E], self._of_entries(gradient_MBTD))
        return found.reshape(*self.coded_BT.shape, n_groups)

    def _of_entries(self, gradient_MBTD: tuple[Tensor | None, Tensor | None]) -> Float[Tensor, " E"]:
        """Σ_m f^m ⟨g^m, d^m⟩ of every entry."""
        gradients = [None if g is None else g[self._row_N, self._place_N] for g in gradient_MBTD]
        parts = []
        for part in self._chunks():
            latent_E, token_E = self.latent_E[part], self.token_E[part]
            sum_E = self.value_EM.new_zeros(len(latent_E))
            for m, g_ND in enumerate(gradients):
                if g_ND is not None:
                    sum_E += self.value_EM[part, m] * (g_ND[token_E] * self._decoder_LMD[latent_E, m]).sum(-1)
            parts.append(sum_E)
        return torch.cat(parts)
