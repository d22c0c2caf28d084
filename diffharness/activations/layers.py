"""Where a model's decoder blocks are, and which of them a user means by `--layer`."""

from __future__ import annotations

from torch import nn

from diffharness.errors import UsageError


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The dotted path and the list of decoder blocks: the longest `ModuleList` of blocks of one class.

    Raises:
        UsageError: the model has no such list.
    """
    best: tuple[str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) > 0
            and len({type(block) for block in module}) == 1
            and any(True for _ in module[0].children())
            and (best is None or len(module) > len(best[1]))
        ):
            best = (name, module)
    if best is None:
        raise UsageError(f"{type(model).__name__} has no list of decoder blocks to read activations from")
    return best


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
