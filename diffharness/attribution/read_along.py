"""The other model reads what a model is reading at the moment, step by step, with a cache of its own.

Hooks around the model that is run tell it what that is, so whatever lm-eval does with the model (scoring in batches,
generation with a cache, beams) is read along. It is done by a plain hook: for every generated token of a small
model a trace would be most of the time.

Legend: B rows, T positions of this step, D width.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.errors import RunError

_SAME = ("attention_mask", "position_ids")
"""Arguments that both models read with."""


class _ReachedError(Exception):
    """The layer was reached: not a failure, but the way out of a forward pass."""

    def __init__(self, state_BTD: Tensor) -> None:
        super().__init__("the layer was reached")
        self.state_BTD = state_BTD


def _stop(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
    raise _ReachedError(output[0] if isinstance(output, tuple) else output)


class ReadAlong:
    """A model's activations for whatever another one is reading.

    Args:
        reader: of the model that reads along, at the layer.
        skipped_ids: ids whose positions have no code.
    """

    def __init__(self, reader: LayerReader, skipped_ids: Collection[int] = ()) -> None:
        self.reader = reader
        self._layer = decoder_layers(reader.model)[1][reader.layer]
        self._skipped_ids = sorted(skipped_ids)
        self._cache: DynamicCache | None = None
        self._ids_BT: Tensor | None = None
        self._kwargs: dict[str, Any] = {}
        self._is_first_step = True

    def starts(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the model that is run: remember what it was given."""
        self._ids_BT = args[0] if args else kwargs["input_ids"]
        self._kwargs = {name: kwargs[name] for name in _SAME if kwargs.get(name) is not None}
        past = kwargs.get("past_key_values")
        self._is_first_step = not isinstance(past, Cache) or past.get_seq_length() == 0
        if isinstance(past, Cache):
            if self._is_first_step or self._cache is None:
                self._cache = self._new_cache()
                self._follow(past, self._cache)
            self._kwargs |= {"past_key_values": self._cache, "use_cache": True}

    def _new_cache(self) -> DynamicCache:
        """As `generate` makes it for the model that reads along."""
        model: Any = self.reader.model
        return DynamicCache(config=model.config.get_text_config(decoder=True))

    @staticmethod
    def _follow(past: Cache, own: DynamicCache) -> None:
        """Where beams change places in the model's cache, they do so in this one."""
        reorder = past.reorder_cache

        def both(beam_idx: Any) -> None:
            reorder(beam_idx)
            own.reorder_cache(beam_idx)

        past.reorder_cache = both

    def read(self) -> Float[Tensor, "B T D"]:
        """The other model's state on the same tokens; nothing above the layer is run."""
        assert self._ids_BT is not None
        device = self.reader.device
        kwargs = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in self._kwargs.items()}
        handle = self._layer.register_forward_hook(_stop)
        try:
            with torch.no_grad():
                self.reader.model(self._ids_BT.to(device), **{"use_cache": False, **kwargs})
        except _ReachedError as reached:
            return reached.state_BTD
        finally:
            handle.remove()
        raise RunError(f"{type(self.reader.model).__name__} does not run its layer {self.reader.layer}")

    def coded(self, device: torch.device) -> Bool[Tensor, "B T"]:
        """Positions that a code is computed for: not the first that is no padding, nor padding, nor skipped ids."""
        assert self._ids_BT is not None
        ids_BT = self._ids_BT.to(device)
        n_rows, n_positions = ids_BT.shape
        coded_BT = torch.ones(ids_BT.shape, dtype=torch.bool, device=device)
        first_B = torch.zeros(n_rows, dtype=torch.long, device=device)
        mask = self._kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2:
            coded_BT &= mask[:, -n_positions:].to(device).bool()
            first_B = mask.to(device).long().argmax(dim=1)
        if self._is_first_step:
            coded_BT[torch.arange(n_rows, device=device), first_B] = False
        if self._skipped_ids:
            coded_BT &= ~torch.isin(ids_BT, torch.tensor(self._skipped_ids, device=device))
        return coded_BT
