"""Where a model's decoder blocks are, where it takes its ids, and which blocks a user means by `--layer`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffharness.errors import UsageError


def decoder_layers(model: nn.Module, path: str | None = None) -> tuple[str, nn.ModuleList]:
    """The dotted path and the list of a model's decoder blocks, in any wrapper (adapters, vision towers, encoders).

    Of all lists of blocks that lie in no other list (an expert is no layer), those of the text decoder, as
    transformers names it; of several, those as long as the text configuration says; of several, the longest.

    Args:
        model: a causal language model.
        path: where the list is, if it is not to be searched; what wraps a model need not be named
            (`model.layers` finds `base_model.model.model.layers`).

    Raises:
        UsageError: no such list, or two that nothing tells apart.
    """
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0}
    if path is not None:
        named = [name for name in lists if name == path or name.endswith(f".{path}")]
        if len(named) != 1:
            raise UsageError(
                f"{type(model).__name__} has no list of blocks {path!r}; it has {', '.join(lists) or 'none'}"
            )
        return named[0], lists[named[0]]
    found = [name for name, blocks in lists.items() if all(any(True for _ in block.children()) for block in blocks)]
    found = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    decoder, n_layers = _text_decoder(model), getattr(_text_config(model), "num_hidden_layers", None)
    of_decoder = [name for name in found if any(m is lists[name] for m in decoder.modules())]
    found = of_decoder or found
    found = [name for name in found if len(lists[name]) == n_layers] or found
    longest = max((len(lists[name]) for name in found), default=0)
    found = [name for name in found if len(lists[name]) == longest]
    if not found:
        raise UsageError(f"{type(model).__name__} has no list of decoder blocks to read activations from")
    if len(found) > 1:
        raise UsageError(f"{type(model).__name__} has {' and '.join(found)}; name the decoder blocks by their path")
    return found[0], lists[found[0]]


def _text_decoder(model: nn.Module) -> nn.Module:
    """The part that transformers calls the decoder, else the whole model."""
    get: Any = getattr(model, "get_decoder", None)
    decoder = get() if callable(get) else None
    return decoder if isinstance(decoder, nn.Module) else model


def _text_config(model: nn.Module) -> Any:
    """The configuration of the text decoder; None where there is none, or where it can not be told."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return config
    try:
        return config.get_text_config(decoder=True)
    except ValueError:  # several text parts
        return None


def context_border(model: nn.Module) -> int | None:
    """The length beyond which one sequence changes how all of its batch is read; None for most models.

    Rotary embeddings of type `longrope` and `dynamic` take their frequencies from the longest of a batch, padding
    included, so that sequences on both sides of this length must not be read together.
    """
    config = _text_config(model)
    rope: Any = getattr(config, "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]
    borders = [
        int(kind.get("original_max_position_embeddings") or config.max_position_embeddings)
        for kind in kinds
        if kind.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(borders, default=None)


def input_device(model: nn.Module) -> torch.device:
    """Where a model wants its token ids, also when its blocks are spread over devices or offloaded."""
    get: Any = getattr(model, "get_input_embeddings", None)
    embedding = get() if callable(get) else None
    part = embedding if isinstance(embedding, nn.Module) else model
    for hook in _hooks(part):
        if getattr(hook, "execution_device", None) is not None:
            return torch.device(hook.execution_device)
    return next(part.parameters()).device


def _hooks(module: nn.Module) -> list[Any]:
    """What accelerate hung onto a module when it was dispatched."""
    hook: Any = getattr(module, "_hf_hook", None)
    return list(getattr(hook, "hooks", [hook]))


def resolve_layer(spec: str, n_layers: int) -> int:
    """The 0-based layer that `spec` means: an index (`3`, `-1`), or a fraction of depth (`0.5`).

    Raises:
        UsageError: not a number, or outside the model.
    """
    try:
        number = float(spec) if "." in spec else int(spec)
    except ValueError:
        raise UsageError(
            f"--layer {spec!r} is not a layer; give an index from 0 to {n_layers - 1} or a fraction such as 0.5"
        ) from None
    if "." in spec:
        if not 0 <= number <= 1:
            raise UsageError(f"--layer {spec} is not a fraction of depth; give one from 0.0 to 1.0")
        return min(int(number * n_layers), n_layers - 1)
    layer = int(number)
    if not -n_layers <= layer < n_layers:
        raise UsageError(f"--layer {spec} is out of range; the models have layers 0 to {n_layers - 1}")
    return layer % n_layers
