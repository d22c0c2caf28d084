"""From what a foreign file says to a crosscoder in memory.

Legend: M models (models × layers where several layers are read), D width, L latents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

DEFAULT_SIDES = {1: ("model",), 2: ("baseline", "candidate"), 3: ("ancestor", "baseline", "candidate")}
"""Files name their models by order alone, and this field puts the ancestor first."""

_HOOK_POINT = re.compile(r"^blocks\.(\d+)\.hook_resid_(pre|post)$")


@dataclass(frozen=True)
class Parts:
    """The tensors of a crosscoder, as `Crosscoder` keeps them; none: as in a blank one."""

    W_enc_LMD: Float[Tensor, "L M D"]
    b_enc_L: Float[Tensor, " L"]
    W_dec_LMD: Float[Tensor, "L M D"]
    b_dec_MD: Float[Tensor, "M D"]
    mean_MD: Float[Tensor, "M D"] | None = None
    scale_M: Float[Tensor, " M"] | None = None
    threshold: Tensor | None = None


@dataclass(frozen=True)
class Columns:
    """Names along the tensors' M axis."""

    sides: tuple[str, ...]
    layers: tuple[int, ...]


def name_columns(
    files: Files,
    options: Options,
    n_columns: int,
    *,
    sides: tuple[str, ...] | None = None,
    layers: tuple[int, ...] = (),
    n_layers: int | None = None,
) -> Columns:
    """Names and layers of the M axis, from what the user says, or from what the file does.

    Args:
        files: for messages.
        options: what the user says.
        n_columns: length of the M axis.
        sides: names that the file gives; none: by their number.
        layers: that the file gives; empty where unknown.
        n_layers: how many layers of each model are read, where the file tells them from the models.

    Raises:
        UsageError: the names do not fit, or are needed.
    """
    if options.sides is not None:
        found = _told(files, options.sides, layers)
        told_layers = max(1, len(found.layers))
        if len(found.sides) * told_layers != n_columns or n_layers not in (None, told_layers):
            raise UsageError(
                f"{files.weights} reads {n_columns} activations of a token, but --sides names {len(options.sides)} "
                f"({', '.join(options.sides)}); name the models, or every side@layer, in the file's order"
            )
        return found
    if (n_layers or 1) > 1 and not layers:
        raise UsageError(
            f"{files.weights} reads {n_layers} layers of each model, but does not say which; name them in the file's "
            "order, such as --sides baseline@3,baseline@7,candidate@3,candidate@7"
        )
    n_models = n_columns // max(1, len(layers))
    default = sides or DEFAULT_SIDES.get(n_models)
    if default is None:
        raise UsageError(
            f"{files.weights} reads {n_models} activations of a token and does not say what they are; name them in "
            "the file's order, such as --sides one,two,three,four or --sides model@3,model@7"
        )
    return Columns(default, layers)


def _told(files: Files, told: tuple[str, ...], layers: tuple[int, ...]) -> Columns:
    """Sides and layers of what the user says: names, or the product of names and layers."""
    if not any("@" in name for name in told):
        return Columns(told, layers)
    pairs = [name.rpartition("@") for name in told]
    if not all(side and layer.isdigit() for side, _, layer in pairs):
        raise UsageError(f"--sides {','.join(told)}: name all columns as side@layer, or none")
    sides = tuple(dict.fromkeys(side for side, _, _ in pairs))
    told_layers = tuple(dict.fromkeys(int(layer) for _, _, layer in pairs))
    if list(told) != [f"{side}@{layer}" for side in sides for layer in told_layers]:
        raise UsageError(f"--sides {','.join(told)}: give all layers of the first model, then all of the second")
    if layers and layers != told_layers:
        raise UsageError(
            f"{files.weights} reads layer {', '.join(map(str, layers))}, but --sides says "
            f"{', '.join(map(str, told_layers))}; leave the layers out of --sides"
        )
    return Columns(sides, told_layers)


def layer_of_hook_point(hook_point: str) -> int | None:
    """The 0-based block whose output a TransformerLens hook point is; none where it is another place.

    `blocks.N.hook_resid_pre` is the output of block N − 1.
    """
    match = _HOOK_POINT.match(hook_point)
    layer = -1 if match is None else int(match[1]) - (match[2] == "pre")
    return None if layer < 0 else layer


def build(files: Files, columns: Columns, source: Sequence[str], parts: Parts, **fields: Any) -> Crosscoder:
    """The crosscoder of some parts, in float32, without gradients.

    Args:
        files: for messages.
        columns: names along the M axis.
        source: format and every assumption, in words.
        parts: the tensors.
        fields: of `CrosscoderConfig`, besides what the parts say.

    Raises:
        UsageError: the parts do not fit together, or hold values that are not finite.
    """
    n_latents, _, d_model = parts.W_dec_LMD.shape
    dtypes = {str(t.dtype).removeprefix("torch.") for t in (parts.W_enc_LMD, parts.W_dec_LMD)} - {"float32"}
    notes = [*source, *(f"weights kept in {dtype}, read in float32" for dtype in sorted(dtypes))]
    try:
        config = CrosscoderConfig(
            sides=columns.sides,
            layers=columns.layers,
            d_model=d_model,
            n_latents=n_latents,
            threshold_shape=() if parts.threshold is None else tuple(parts.threshold.shape),
            source="; ".join(notes),
            **fields,
        )
    except ValidationError as error:
        details = error.errors()[0]
        where = ".".join(str(part) for part in details["loc"])
        raise UsageError(f"{files.weights}: not a crosscoder that can be held: {where} {details['msg']}") from error
    with torch.device("meta"):
        crosscoder = Crosscoder(config)
    for name in list(crosscoder.state_dict()):
        blank = getattr(crosscoder, name)
        tensor = _own(files, name, getattr(parts, name), blank)
        is_weight = isinstance(blank, nn.Parameter)
        setattr(crosscoder, name, nn.Parameter(tensor, requires_grad=False) if is_weight else tensor)
    return crosscoder


def _own(files: Files, name: str, given: Tensor | None, blank: Tensor) -> Tensor:
    """A copy in float32, in order, of a tensor that may be mapped from the file or turned."""
    if given is None:
        return torch.full(blank.shape, 1.0 if name == "scale_M" else 0.0)
    if given.shape != blank.shape:
        raise UsageError(
            f"{files.weights}: {name} would have shape {tuple(given.shape)}, but the other tensors say "
            f"{tuple(blank.shape)}; the file is damaged or of another format"
        )
    own = torch.empty(blank.shape, dtype=torch.float32).copy_(given)
    if not bool(own.isfinite().all()):
        raise UsageError(f"{files.weights}: {name} holds values that are not finite; fetch or save the file again")
    return own
