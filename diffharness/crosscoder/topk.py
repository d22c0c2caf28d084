"""BatchTopK and TopK: losses and gradients written out for sparse codes, without an autograd graph.

Only the search for candidates looks at every (token, latent) pair; decoding and all gradients touch the kept ones.

Legend: N tokens, M models, D width, L latents, X = M·D, E active entries, G nested dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.auxiliary import add_auxiliary_gradients
from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.objective import Step
from diffharness.crosscoder.schedule import k_at
from diffharness.crosscoder.selection import (
    GUESS_SHARE,
    Encoder,
    Selection,
    largest_of_batch,
    largest_of_tokens,
)
from diffharness.crosscoder.sparse import ByLatent, Entries, decode, products

LARGE = 1 << 21
"""Numbers in an encoder from which on candidates are found in bfloat16, where that is fast."""


class TopKObjective:
    """Mean squared error of the code with the k largest f_j · Σ_m ‖d_j^m‖, plus the dead latents' auxiliary loss.

    The mean is over tokens, models and dimensions. With nested dictionaries (Matryoshka, Bussmann et al. 2503.17547) it
    is the mean over the dictionaries too: each has to do with its own, first, latents of the one code.
    """

    def __init__(self, crosscoder: Crosscoder, settings: TrainingSettings) -> None:
        self._crosscoder = crosscoder
        self._settings = settings
        self._dtype = product_dtype(crosscoder, settings)
        self._smallest = 0.0

    def parameters(self) -> list[Tensor]:
        """None besides the crosscoder's."""
        return []

    @torch.no_grad()
    def gradients(self, z_NMD: Float[Tensor, "N M D"], *, share: float, dead_L: Bool[Tensor, " L"]) -> Step:
        """Set `.grad` of the crosscoder's weights to that of the loss."""
        crosscoder, z_NX = self._crosscoder, z_NMD.flatten(1)
        k = k_at(share, self._settings)
        chosen = self._select(z_NX, k)
        self._smallest = chosen.smallest
        error_NX = self._set_gradients(z_NX, chosen)
        if self._settings.aux_coefficient > 0 and bool(dead_L.any()):
            some = slice(None, None, -(-len(z_NX) // self._settings.aux_tokens))
            add_auxiliary_gradients(crosscoder, z_NX[some], error_NX[some], dead_L, self._settings.aux_coefficient)
        fired_L = torch.zeros_like(dead_L)
        fired_L[chosen.entries.latent_E] = True
        unexplained = float((error_NX.norm() / z_NX.norm()).square())
        return Step(unexplained, len(chosen.f_E) / len(z_NX), fired_L, {"k": k})

    def finish(self) -> None:
        """Nothing: the threshold is calibrated on held-out tokens."""

    def state(self) -> dict[str, Tensor]:
        """Where the next search for the largest values starts."""
        return {"smallest": torch.tensor(self._smallest, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        self._smallest = float(state["smallest"])

    def _select(self, z_NX: Tensor, k: int) -> Selection:
        crosscoder = self._crosscoder
        encoder = Encoder.of(crosscoder.W_enc_LMD.flatten(1), crosscoder.b_enc_L, crosscoder.code_norm_L, self._dtype)
        if self._settings.sparsity == "topk":
            return largest_of_tokens(z_NX, encoder, k)
        return largest_of_batch(z_NX, encoder, k * len(z_NX), GUESS_SHARE * self._smallest)

    def _set_gradients(self, z_NX: Tensor, chosen: Selection) -> Tensor:
        """Gradients of the squared errors of all nested dictionaries; the error of the whole one."""
        crosscoder = self._crosscoder
        d_LX, shape_MD = crosscoder.W_dec_LMD.flatten(1), crosscoder.b_dec_MD.shape
        nested = _nested(chosen, (0, *(self._settings.groups or (crosscoder.n_latents,))))
        slopes, error_NX = [], crosscoder.b_dec_MD.flatten() - z_NX
        for entries, f_E, latents in nested:
            error_NX = decode(entries, f_E, d_LX[latents]).add_(error_NX)
            slopes.append(error_NX * (2 / (error_NX.numel() * len(nested))))
        decoder, encoder, bias = [], [], []
        slope_NX = None
        # A latent is in its own dictionary and all larger ones, so slopes add up from the largest on.
        for (entries, f_E, latents), own_NX in zip(reversed(nested), reversed(slopes)):
            slope_NX = own_NX if slope_NX is None else own_NX.add_(slope_NX)
            slope_E = products(slope_NX, d_LX[latents], entries)
            by_latent = ByLatent.of(entries)
            decoder.insert(0, by_latent.sum_over_tokens(f_E, slope_NX))
            encoder.insert(0, by_latent.sum_over_tokens(slope_E, z_NX))
            bias.insert(0, slope_E.new_zeros(entries.n_latents).index_add_(0, entries.latent_E, slope_E))
        crosscoder.W_dec_LMD.grad = _joined(decoder).unflatten(1, shape_MD)
        crosscoder.W_enc_LMD.grad = _joined(encoder).unflatten(1, shape_MD)
        crosscoder.b_enc_L.grad = _joined(bias)
        crosscoder.b_dec_MD.grad = slopes[0].sum(dim=0).unflatten(0, shape_MD)
        return error_NX


def product_dtype(crosscoder: Crosscoder, settings: TrainingSettings) -> torch.dtype:
    """What candidates are found in: as asked for, or bfloat16 where the device is fast at it and has much to do."""
    weight_LMD = crosscoder.W_enc_LMD
    if settings.product_dtype != "auto":
        return getattr(torch, settings.product_dtype)
    if weight_LMD.is_cuda:
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = weight_LMD.device.type == "cpu" and getattr(torch.cpu, "get_capabilities", dict)().get(
            "avx512_bf16", False
        )
    return torch.bfloat16 if fast and weight_LMD.numel() >= LARGE else weight_LMD.dtype


def _nested(chosen: Selection, ends: tuple[int, ...]) -> list[tuple[Entries, Tensor, slice]]:
    """The entries of every group of latents, counted from the group's first latent."""
    if len(ends) == 2:
        return [(chosen.entries, chosen.f_E, slice(None))]
    parts = []
    for start, end in pairwise(ends):
        mask_E = (chosen.entries.latent_E >= start) & (chosen.entries.latent_E < end)
        entries = chosen.entries.where(mask_E)
        own = Entries.of(entries.token_E, entries.latent_E - start, entries.n_tokens, end - start)
        parts.append((own, chosen.f_E[mask_E], slice(start, end)))
    return parts


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
