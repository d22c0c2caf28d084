"""The adapter to nnsight: the residual stream after some layers, and the same stack continued from a given state.

Legend: B sequences, T positions, D width.
"""

# nnsight compiles the body of a trace itself, which type checkers can not follow.
# pyright: reportAttributeAccessIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from nnsight import NNsight, save
from torch import Tensor, nn

from diffharness.activations.layers import decoder_layers, input_device
from diffharness.errors import UsageError


class _Traced(NNsight):
    """A wrapped model; nnsight sends inputs to its first parameter, which has no device where weights are offloaded."""

    @property
    def device(self) -> torch.device:
        """Where the model takes its ids."""
        return input_device(self._module)


class LayerReader:
    """Reads what some layers of a model write to the residual stream, under nnsight.

    Args:
        model: a causal language model of transformers.
        layers: 0-based index of a decoder block, or several.
        path: where the blocks are, if they are not to be searched (`decoder_layers`).

    Raises:
        UsageError: no layer, or one that the model does not have.
    """

    def __init__(self, model: nn.Module, layers: int | Sequence[int], path: str | None = None) -> None:
        path, blocks = decoder_layers(model, path)
        self.model = model
        self.layers = tuple(sorted({layers} if isinstance(layers, int) else set(layers)))
        if not self.layers or self.layers[0] < 0 or self.layers[-1] >= len(blocks):
            raise UsageError(f"layers {layers} can not be read; {type(model).__name__} has 0 to {len(blocks) - 1}")
        self._traced = _Traced(model)
        self._paths = [f"{path}.{layer}" for layer in self.layers]

    @property
    def device(self) -> torch.device:
        """Where the model takes its ids."""
        return input_device(self.model)

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
            ids_BT: token ids on any device, right-padded (causal attention keeps padding out of what stands before it).
            **kwargs: passed to the model's forward (attention mask, cache, positions).

        Returns:
            By layer, in the model's dtype, on the device of the layer.

        Raises:
            UsageError: the model has not one state a token.
        """
        kwargs.setdefault("use_cache", False)
        ids_BT = ids_BT.to(self.device)
        with torch.no_grad(), self._traced.trace(ids_BT, **kwargs) as tracer:
            outputs = save([])
            for path in self._paths:
                outputs.append(self._traced.get(path).output)
            tracer.stop()
        states = [output[0] if isinstance(output, tuple) else output for output in outputs]
        if states[0].ndim != 3 or states[0].shape[:2] != ids_BT.shape:
            raise UsageError(
                f"{type(self.model).__name__} answers ids of shape {tuple(ids_BT.shape)} with states of shape "
                f"{tuple(states[0].shape)}; several streams, or an adapter that adds tokens, can not be read"
            )
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


@dataclass(frozen=True)
class _Output:
    """What a block of a model answers with."""

    as_tuple: bool
    state_BTD: Tensor


class UpperStack:
    """The layers of a model above one layer, run from a given residual stream.

    Args:
        model: a causal language model of transformers.
        layer: 0-based index; layers `layer + 1 …` and the head are run.
        path: where the blocks are, if they are not to be searched (`decoder_layers`).
    """

    def __init__(self, model: nn.Module, layer: int, path: str | None = None) -> None:
        self.model = model
        self.layer = layer
        self._layers = decoder_layers(model, path)[1]
        self._output: _Output | None = None

    @contextmanager
    def _lifted(self, state_BTD: Tensor, as_tuple: bool) -> Iterator[None]:
        blocks = [self._layers[i] for i in range(self.layer + 1)]
        try:
            for i, block in enumerate(blocks):
                self._layers[i] = _Passed(block, state_BTD if i == self.layer else None, as_tuple)
            yield
        finally:
            for i, block in enumerate(blocks):
                self._layers[i] = block

    def _probe(self) -> _Output:
        """Three tokens are read to see what the layer answers with, and that the layers above need nothing else."""
        seen: list[_Output] = []

        def look(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            as_tuple = isinstance(output, tuple)
            seen.append(_Output(as_tuple, output[0] if as_tuple else output))

        ids_BT = torch.arange(3, device=input_device(self.model))[None]
        handle = self._layers[self.layer].register_forward_hook(look)
        try:
            with torch.no_grad():
                own_BTV = self.model(ids_BT, use_cache=False).logits
        finally:
            handle.remove()
        try:
            with torch.no_grad(), self._lifted(seen[0].state_BTD, seen[0].as_tuple):
                again_BTV = self.model(ids_BT, use_cache=False).logits
            alone = not ((again_BTV - own_BTV).abs() > 1e-2 * own_BTV.abs().max()).any()
        except (LookupError, TypeError, AttributeError, ValueError):
            alone = False
        if not alone:
            raise UsageError(
                f"the layers of {type(self.model).__name__} above layer {self.layer} read more than its residual "
                "stream (keys and values of lower layers, say); choose a lower or the last --layer"
            )
        return seen[0]

    def logits(
        self, ids_BT: Int[Tensor, "B T"], state_BTD: Float[Tensor, "B T D"], places: Int[Tensor, " S"] | None = None
    ) -> Float[Tensor, "B T V"] | Float[Tensor, "S V"]:
        """The model's logits when its residual stream after the layer is `state_BTD`; differentiable in it.

        Ids and state may lie on any device and the state may have any floating dtype: the model gets its own.

        Args:
            ids_BT: what is read.
            state_BTD: what stands at the layer.
            places: positions, row · T + column, that alone are unembedded; all by default.

        Returns:
            (B, T, V), or (S, V) for given places: with a large vocabulary most of the time goes into the others.

        Raises:
            UsageError: what lies above the layer does not follow from its residual stream alone.
        """
        if self._output is None:
            self._output = self._probe()
        device = input_device(self.model)
        state_BTD = state_BTD.to(device, self._output.state_BTD.dtype)
        with self._lifted(state_BTD, self._output.as_tuple), self._unembedding_only(places):
            found = self.model(ids_BT.to(device), use_cache=False).logits
        if places is None or found.ndim == 2:
            return found
        return found.flatten(0, 1).index_select(0, places.to(found.device))

    @contextmanager
    def _unembedding_only(self, places: Tensor | None) -> Iterator[None]:
        """Give the unembedding some positions only, where the model has one that can be found."""
        find: Any = getattr(self.model, "get_output_embeddings", lambda: None)
        head = find()
        if places is None or not isinstance(head, nn.Linear):
            yield
            return

        def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden_BTD = args[0]
            return (hidden_BTD.flatten(0, 1).index_select(0, places.to(hidden_BTD.device)), *args[1:])

        handle = head.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            handle.remove()
