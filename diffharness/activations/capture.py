"""The adapter to nnsight: the residual stream after some layers, and the same stack continued from a given state.

Legend: B sequences, T positions, D width.
"""

# nnsight compiles the body of a trace itself, which type checkers can not follow.
# pyright: reportAttributeAccessIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from nnsight import NNsight, save
from torch import Tensor, nn

from diffharness.activations.layers import decoder_layers
from diffharness.errors import UsageError


class LayerReader:
    """Reads what some layers of a model write to the residual stream, under nnsight.

    Args:
        model: a causal language model of transformers.
        layers: 0-based index of a decoder block, or several.

    Raises:
        UsageError: no layer, or one that the model does not have.
    """

    def __init__(self, model: nn.Module, layers: int | Sequence[int]) -> None:
        path, blocks = decoder_layers(model)
        self.model = model
        self.layers = tuple(sorted({layers} if isinstance(layers, int) else set(layers)))
        if not self.layers or self.layers[0] < 0 or self.layers[-1] >= len(blocks):
            raise UsageError(f"layers {layers} can not be read; {type(model).__name__} has 0 to {len(blocks) - 1}")
        self._traced = NNsight(model)
        self._paths = [f"{path}.{layer}" for layer in self.layers]

    @property
    def layer(self) -> int:
        """The only layer that is read.

        Raises:
            ValueError: there are several.
        """
        (layer,) = self.layers
        return layer

    def read(self, ids_BT: Int[Tensor, "B T"], **kwargs: Any) -> Float[Tensor, "B T D"]:
        """The activations after the only layer; as `read_layers`."""
        return self.read_layers(ids_BT, **kwargs)[self.layer]

    def read_layers(self, ids_BT: Int[Tensor, "B T"], **kwargs: Any) -> dict[int, Float[Tensor, "B T D"]]:
        """The activations after each of the layers, in one pass; nothing above the deepest is run.

        Args:
            ids_BT: token ids, right-padded (causal attention keeps padding out of what stands before it).
            **kwargs: passed to the model's forward (attention mask, cache, positions).
        """
        kwargs.setdefault("use_cache", False)
        with torch.no_grad(), self._traced.trace(ids_BT, **kwargs) as tracer:
            outputs = save([])
            for path in self._paths:
                outputs.append(self._traced.get(path).output)
            tracer.stop()
        states = (output[0] if isinstance(output, tuple) else output for output in outputs)
        return {layer: state.detach() for layer, state in zip(self.layers, states, strict=True)}


class _Passed(nn.Module):
    """Stands in for a block: answers with a given state, or hands on what it was given.

    Everything else that a model asks of its blocks (attention type, layer index, ...) is answered by the block.
    """

    def __init__(self, block: nn.Module, state_BTD: Tensor | None, as_tuple: bool) -> None:
        super().__init__()
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "state_BTD", state_BTD)
        object.__setattr__(self, "as_tuple", as_tuple)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "block"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The given state, or the hidden states unchanged."""
        del args, kwargs
        state = object.__getattribute__(self, "state_BTD")
        output = hidden_states if state is None else state
        return (output,) if object.__getattribute__(self, "as_tuple") else output


class UpperStack:
    """The layers of a model above one layer, run from a given residual stream.

    Args:
        model: a causal language model of transformers.
        layer: 0-based index; layers `layer + 1 …` and the head are run.
    """

    def __init__(self, model: nn.Module, layer: int) -> None:
        self.model = model
        self.layer = layer
        self._layers = decoder_layers(model)[1]
        self._as_tuple: bool | None = None

    @contextmanager
    def _lifted(self, state_BTD: Tensor) -> Iterator[None]:
        blocks = [self._layers[i] for i in range(self.layer + 1)]
        if self._as_tuple is None:
            self._as_tuple = self._returns_tuple()
        try:
            for i, block in enumerate(blocks):
                self._layers[i] = _Passed(block, state_BTD if i == self.layer else None, self._as_tuple)
            yield
        finally:
            for i, block in enumerate(blocks):
                self._layers[i] = block

    def _returns_tuple(self) -> bool:
        seen: list[bool] = []
        handle = self._layers[0].register_forward_hook(lambda _m, _i, output: seen.append(isinstance(output, tuple)))
        try:
            device = next(self.model.parameters()).device
            with torch.no_grad():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
        finally:
            handle.remove()
        return seen[0]

    def logits(self, ids_BT: Int[Tensor, "B T"], state_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """The model's logits when its residual stream after the layer is `state_BTD`; differentiable in it."""
        with self._lifted(state_BTD):
            return self.model(ids_BT, use_cache=False).logits
