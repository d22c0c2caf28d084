"""Decoder directions as a file that lm-eval's own `steered` model loads.

Legend: L latents, M models, D width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import RunError, UsageError

HOOKPOINT = "layers.{layer}"
"""Name of a decoder block inside `model.base_model`, in Llama, Mistral, Qwen, Gemma, OLMo and GPT-NeoX alike."""


def steering_vectors(crosscoder: Crosscoder, latents: Sequence[int], side: str) -> dict[int, Float[Tensor, " D"]]:
    """What one unit of each of some latents together adds to a model's residual stream, by layer, in raw units.

    Raises:
        UsageError: the crosscoder's layers or units are not known, or a latent or side that it does not have.
    """
    config = crosscoder.config
    if side not in config.sides:
        raise UsageError(f"--side {side} is not of this crosscoder; it has {', '.join(config.sides)}")
    if not latents:
        raise UsageError("--latents is missing; name the latents that steer, for example --latents 3,17")
    wrong = next((j for j in latents if not 0 <= j < config.n_latents), None)
    if wrong is not None:
        raise UsageError(f"--latents {wrong} is out of range; the crosscoder has latents 0 to {config.n_latents - 1}")
    if not config.layers:
        raise UsageError("the crosscoder's file does not say which layer it reads; give it as --layer")
    if config.expects != "raw":
        raise UsageError(
            "the crosscoder's file does not hold the scale of its input, so its rows are not in the model's units; "
            "load it in a run (--crosscoder) and export what the run leaves in crosscoder/"
        )
    decoder_LMD = crosscoder.raw_decoder().detach()
    first = config.sides.index(side) * len(config.layers)
    width = config.widths[first] if config.widths else config.d_model
    chosen = sorted(set(latents))
    return {
        layer: decoder_LMD[chosen, first + place, :width].sum(dim=0).cpu() for place, layer in enumerate(config.layers)
    }


def write(
    crosscoder: Crosscoder,
    file: Path,
    *,
    latents: Sequence[int],
    side: str,
    coefficient: float,
    hookpoint: str = HOOKPOINT,
) -> None:
    """Write the `.pt` file that makes lm-eval's model `steered` add coefficient · Σ_j d_j to every position.

    lm-eval run --model steered --model_args pretrained=MODEL,steer_path=FILE. Its `add` action changes all positions,
    the first included. With several layers there is an entry for each.

    Args:
        crosscoder: in raw units its decoder rows are what is added (`raw_decoder`).
        file: where; has to end in `.pt`, or lm-eval does not read it.
        latents: whose rows are added up.
        side: whose decoder.
        coefficient: how much of every latent's activation, in units of f.
        hookpoint: name of a decoder block inside `model.base_model`, with `{layer}` in place of the index.

    Raises:
        UsageError: `steering_vectors`, or a name of file or hookpoint that lm-eval can not use.
        RunError: the file can not be written.
    """
    if file.suffix != ".pt":
        raise UsageError(f"{file} has to end in .pt, or lm-eval's steered model does not read it; rename it")
    if not re.fullmatch(r"[\w.]*\{layer\}[\w.]*", hookpoint):
        raise UsageError(f"--hookpoint {hookpoint!r} has no {{layer}} for the index; give one such as layers.{{layer}}")
    entries: dict[str, dict[str, Any]] = {
        hookpoint.format(layer=layer): {
            "steering_vector": vector_D.float().contiguous().clone(),
            "steering_coefficient": float(coefficient),
            "action": "add",
            "bias": None,
            "head_index": None,
        }
        for layer, vector_D in steering_vectors(crosscoder, latents, side).items()
    }
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(entries, partial)
        partial.replace(file)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{file} can not be written ({error})") from error
