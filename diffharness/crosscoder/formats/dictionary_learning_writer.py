"""Their current layout (era 5), written: what their newest code reads.

Legend: M models, D width, L latents.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from diffharness.crosscoder.checkpoint import write_together
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

CODE_NORM_NAMES = {
    "sum": (1, "CROSSCODER"),
    "concatenated": (2, "SAE"),
    "mixed": (3, "MIXED"),
    "none": (4, "NONE"),
    "per_model": (5, "DECOUPLED"),
}


def write(crosscoder: Crosscoder, folder: Path | str) -> None:
    """Write `config.json`, `model.safetensors` and `trainer_config.json`; other files in the folder stay.

    Their newest code (of 4 February 2026) then gives our `encode` and `decode`, but for what it adds to the scale
    where it divides by it: x̂ − mean is off by 1e-8 / scale, relatively, unless `scale_epsilon` says the same.

    Raises:
        UsageError: the layout can not say what the crosscoder does.
        RunError: the folder can not be written.
    """
    normalised = bool((crosscoder.mean_MD != 0).any() or (crosscoder.scale_M != 1).any())
    obstacle = _obstacle(crosscoder, normalised)
    if obstacle is not None:
        raise UsageError(f"the layout of dictionary_learning has no {obstacle}; keep the native one")
    texts = {"config.json": _config(crosscoder), "trainer_config.json": _trainer_config(crosscoder.config)}
    write_together(
        Path(folder),
        _tensors(crosscoder, normalised),
        {"format": "pt"},
        {name: json.dumps(content, indent=2) + "\n" for name, content in texts.items()},
    )


def _obstacle(crosscoder: Crosscoder, normalised: bool) -> str | None:
    """What of the crosscoder their layout can not say; none where it can say all."""
    config = crosscoder.config
    thresholds = ((len(config.columns), 1),) if config.decoupled else ((),)
    double = config.decoupled and normalised
    checks = {
        f"rule {config.activation}": config.activation not in ("threshold", "relu"),
        "negative activations (relu off)": not config.relu,
        f"thresholds of shape {config.threshold_shape}": (
            config.activation == "threshold" and config.threshold_shape not in thresholds
        ),
        "code of its own a model without thresholds (rule relu)": config.activation == "relu" and config.decoupled,
        f"models of different widths {list(config.widths)}": len(set(config.widths)) > 1,
        "k (it is not known)": config.activation == "threshold" and config.k is None,
        f"input of {config.expects} (put the factors in with fit_scale)": config.expects != "raw",
        "input that is normalised twice, but for decoupled codes": config.n_normalisations == 2 and not double,
        "decoupled code with input that is normalised once (their code does so twice)": (
            config.n_normalisations == 1 and double
        ),
        "scale of 0 or below": bool((crosscoder.scale_M <= 0).any()),
    }
    return next((what for what, holds in checks.items() if holds), None)


def _tensors(crosscoder: Crosscoder, normalised: bool) -> dict[str, Tensor]:
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in crosscoder.state().items()}
    mean_MD, scale_M = state["mean_MD"], state["scale_M"]
    tensors = {
        "encoder.weight": state["W_enc_MDL"],
        "encoder.bias": state["b_enc_L"],
        "decoder.weight": state["W_dec_LMD"].permute(1, 0, 2),
        "decoder.bias": state["b_dec_MD"],
        "code_normalization_id": torch.tensor(CODE_NORM_NAMES[crosscoder.config.code_norm][0]),
        "target_rms": torch.tensor(_target_rms(crosscoder)),
        "activation_mean": mean_MD if normalised else torch.full_like(mean_MD, torch.nan),
        "activation_std": _deviation(crosscoder) if normalised else torch.full_like(mean_MD, torch.nan),
        "activation_global_scale": scale_M,
    }
    if crosscoder.config.activation == "threshold":
        threshold = state["threshold"]
        tensors["k"] = torch.tensor(crosscoder.config.k, dtype=torch.int)
        tensors["threshold"] = threshold[:, 0] if threshold.ndim else threshold
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _target_rms(crosscoder: Crosscoder) -> float:
    """At least 2 a model's scale and never 1, so that their deviation is a number and no scale looks like none."""
    return 2.0 * max(1.0, float(crosscoder.scale_M.max()))


def _deviation(crosscoder: Crosscoder) -> Tensor:
    """The same for all dimensions, so that target_rms / √(Σ std² + 1e-8), which their code makes anew, is the scale."""
    ratio_M = _target_rms(crosscoder) / crosscoder.scale_M.detach().double().cpu()
    std_M = ((ratio_M.square() - 1e-8) / crosscoder.config.d_model).sqrt()
    return std_M.float()[:, None].expand(-1, crosscoder.config.d_model)


def _config(crosscoder: Crosscoder) -> dict[str, object]:
    """Arguments of their class, and its name; what tensors hold is left to them, as their `save_pretrained` does."""
    config = crosscoder.config
    is_l1 = config.activation == "relu"
    content: dict[str, object] = {
        "activation_dim": config.d_model,
        "activation_mean": None,
        "activation_std": None,
        "code_normalization": CODE_NORM_NAMES[config.code_norm][1],
        "dict_class": "CrossCoder" if is_l1 else "BatchTopKCrossCoder",
        "dict_size": config.n_latents,
        "norm_init_scale": 1.0,
        "num_layers": len(config.columns),
        "target_rms": _target_rms(crosscoder),
    }
    if not is_l1:
        content["k"] = config.k
    if config.code_norm == "mixed":
        content |= _mixture(config)
    return content


def _trainer_config(config: CrosscoderConfig) -> dict[str, object]:
    """What the layout keeps of training: the layer, and for readers of era 2 the code norm."""
    trainer: dict[str, object] = {
        "dict_class": "CrossCoder" if config.activation == "relu" else "BatchTopKCrossCoder",
        "activation_dim": config.d_model,
        "dict_size": config.n_latents,
        "k": config.k,
        "code_normalization": CODE_NORM_NAMES[config.code_norm][1],
        "layer": config.layer,
        "lm_name": "-".join(reversed(config.models)) or None,
        "submodule_name": None,
    }
    return {"trainer": trainer | (_mixture(config) if config.code_norm == "mixed" else {})}


def _mixture(config: CrosscoderConfig) -> dict[str, object]:
    concatenated, of_sum = config.code_norm_weights
    return {"code_normalization_alpha_sae": concatenated, "code_normalization_alpha_cc": of_sum}
