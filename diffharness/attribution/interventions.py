"""Exact interventions: the candidate with some latents put back to the baseline's version, while it is being scored.

At the layer, h − Σ_{j∈C} f_j (d_j^c − d_j^b) takes the place of h, f being the code of both models' activations on
the same tokens. It is done by hooks around the candidate itself, so whatever lm-eval does with the model (scoring,
generation with a cache) goes through it; the baseline reads along, step by step, with a cache of its own.

Legend: B rows, T positions, M models, D width, L latents, S latents put back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.crosscoder.model import Crosscoder


class _ReadAlong:
    """The baseline's activations for whatever the candidate is reading at the moment."""

    def __init__(self, reader: LayerReader, skipped_ids: Collection[int]) -> None:
        self.reader = reader
        self.skipped_ids = sorted(skipped_ids)
        self.cache: DynamicCache | None = None
        self.ids_BT: Tensor | None = None
        self.kwargs: dict[str, Any] = {}
        self.first_step = True

    def candidate_starts(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the candidate: remember what it was given."""
        self.ids_BT = args[0] if args else kwargs["input_ids"]
        past = kwargs.get("past_key_values")
        self.kwargs = {
            name: kwargs[name] for name in ("attention_mask", "position_ids") if kwargs.get(name) is not None
        }
        self.first_step = not isinstance(past, Cache) or past.get_seq_length() == 0
        if isinstance(past, Cache):
            if self.first_step or self.cache is None:
                self.cache = DynamicCache()
            self.kwargs |= {"past_key_values": self.cache, "use_cache": True}

    def read(self) -> Tensor:
        """x^b on the same tokens, (B, T, D)."""
        assert self.ids_BT is not None
        return self.reader.read(self.ids_BT, **self.kwargs)

    def coded(self, x_BTD: Tensor) -> Tensor:
        """Positions that a code is computed for, (B, T, 1): not the first that is no padding, nor skipped ids."""
        coded = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        if self.first_step:
            mask = self.kwargs.get("attention_mask")
            first_B = torch.zeros(len(coded), dtype=torch.long) if mask is None else mask.long().argmax(dim=1)
            coded[torch.arange(len(coded)), first_B.to(x_BTD.device)] = False
        if self.skipped_ids and self.ids_BT is not None:
            ids_BT = self.ids_BT.to(x_BTD.device)
            coded &= ~torch.isin(ids_BT, torch.tensor(self.skipped_ids, device=x_BTD.device))
        return coded[..., None]


@contextmanager
def put_back(
    candidate: nn.Module, baseline: LayerReader, crosscoder: Crosscoder, latents: np.ndarray
) -> Iterator[None]:
    """Within the context, the candidate runs with these latents in the baseline's version.

    Args:
        candidate: the model to change; restored on leaving.
        baseline: reads the baseline at the crosscoder's layer.
        crosscoder: over (baseline, candidate).
        latents: indices of the latents; with none, the model's outputs are untouched to the byte.
    """
    along = _ReadAlong(baseline, crosscoder.config.skipped_ids)
    chosen = torch.as_tensor(np.asarray(latents, dtype=np.int64), device=crosscoder.W_dec_LMD.device)
    with torch.no_grad():
        decoder_SMD = crosscoder.raw_decoder()[chosen]
        delta_SD = decoder_SMD[:, 1] - decoder_SMD[:, 0]

    def change(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        x_c = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            x_NMD = torch.stack([along.read().to(x_c.device), x_c], dim=2).flatten(0, 1)
            f_NS = crosscoder.encode(x_NMD.float())[:, chosen]
            shift = (f_NS @ delta_SD).unflatten(0, x_c.shape[:2]) * along.coded(x_c)
            changed = x_c - shift.to(x_c.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = [
        candidate.register_forward_pre_hook(along.candidate_starts, with_kwargs=True),
        decoder_layers(candidate)[1][baseline.layer].register_forward_hook(change),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
