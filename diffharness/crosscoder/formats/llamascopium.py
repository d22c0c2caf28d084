"""Crosscoders of OpenMOSS/Language-Model-SAEs (Llamascopium): a code a head, selected by that head's decoder norm.

Legend: M heads (hook points: layers of a model, or models), D width, L latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffharness.crosscoder.formats.building import Columns, Parts, build, layer_of_hook_point, name_columns
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

_NORM = "dataset_average_activation_norm."
_RULES = {"relu": "relu", "jumprelu": "threshold", "topk": "topk", "batchtopk": "batch_topk"}


@dataclass(frozen=True)
class Llamascopium:
    """`sae_type: crosscoder`."""

    name: str = "Llamascopium"

    def recognises(self, files: Files) -> bool:
        """Its tensors, one axis of which are heads."""
        return {"W_E", "b_E", "W_D", "b_D"} <= files.tensors.keys() and files.tensors["W_E"].ndim == 3

    def read(self, files: Files, options: Options) -> Crosscoder:
        """W_E (M, D, L), b_E (M, L) of which the sum counts, W_D (M, L, D), b_D (M, D).

        Raises:
            UsageError: the configuration is missing or says what can not be held, or tensors do not fit.
        """
        config = files.config("config.json")
        hook_points = config.get("hook_points")
        if config.get("sae_type") != "crosscoder" or not isinstance(hook_points, list):
            raise UsageError(
                f"{files.weights}: no config.json with sae_type crosscoder and hook_points beside it; put the "
                "project's own there"
            )
        if not config.get("sparsity_include_decoder_norm", True):
            raise UsageError(
                f"{files.weights}: sparsity_include_decoder_norm is off, which its own project does not allow in "
                "crosscoders; the configuration is not the file's"
            )
        options.check_code_norm(files, "per_model")
        n_heads, d_model, n_latents = files.tensor("W_E", (len(hook_points), None, None)).shape
        source = [f"Llamascopium, as {files.name}", f"hook points {', '.join(map(str, hook_points))}"]
        fields, threshold = _rule(files, config, n_latents)
        scale_M = _scale(files, config, fields, source)
        if fields["activation"] == "batch_topk":
            source.append("no threshold for inference: what is kept of a token depends on the others in its batch")
        parts = Parts(
            W_enc_LMD=files.tensor("W_E", (n_heads, d_model, n_latents)).permute(2, 0, 1),
            b_enc_L=files.tensor("b_E", (n_heads, n_latents)).sum(dim=0),
            W_dec_LMD=files.tensor("W_D", (n_heads, n_latents, d_model)).permute(1, 0, 2),
            b_dec_MD=files.tensor("b_D", (n_heads, d_model)),
            scale_M=scale_M,
            threshold=threshold,
        )
        columns = _columns(files, options, [str(point) for point in hook_points])
        return build(files, columns, source, parts, code_norm="per_model", **fields)


def _rule(files: Files, config: Mapping[str, Any], n_latents: int) -> tuple[dict[str, Any], Tensor | None]:
    rule = str(config.get("act_fn", "relu")).lower()
    if rule not in _RULES:
        raise UsageError(f"{files.weights}: act_fn {rule} is not known; one of {', '.join(_RULES)} is needed")
    fields: dict[str, Any] = {"activation": _RULES[rule]}
    if "topk" in rule:
        fields["k"] = config.get("top_k")
    if rule != "jumprelu":
        return fields, None
    return fields, files.tensor("activation_function.log_jumprelu_threshold", (n_latents,)).float().exp()


def _scale(files: Files, config: Mapping[str, Any], fields: dict[str, Any], source: list[str]) -> Tensor | None:
    """√D over the mean norm of the dataset's activations; 1 where it was put into the biases."""
    how = config.get("norm_activation", "dataset-wise")
    if how == "inference":
        source.append("its scale was put into the biases")
        return None
    if how != "dataset-wise":
        raise UsageError(
            f"{files.weights}: its input is normalised {how}, by what each token or batch itself is, which can not be "
            "held; one with norm_activation dataset-wise or inference is needed"
        )
    keys = [f"{_NORM}{point}" for point in config["hook_points"]]
    if not all(key in files.tensors for key in keys):
        fields["expects"] = "mean norm √width"
        source.append("its input is scaled to mean norm √width by factors that the file does not hold")
        return None
    norm_M = torch.tensor([float(files.tensor(key, ())) for key in keys], dtype=torch.float64)
    if not bool((norm_M.isfinite() & (norm_M > 0)).all()):
        raise UsageError(
            f"{files.weights}: its {_NORM}* are {norm_M.tolist()}, no mean norms (they are left unset where its "
            "project did not measure them); save it again with them"
        )
    return (math.sqrt(files.tensors["W_E"].shape[1]) / norm_M).float()


def _columns(files: Files, options: Options, hook_points: list[str]) -> Columns:
    """Layers of one model where the hook points are such, else models of their names."""
    layers = [layer_of_hook_point(point) for point in hook_points]
    known = tuple(layer for layer in layers if layer is not None)
    if len(set(known)) == len(hook_points):
        return name_columns(files, options, len(hook_points), layers=known)
    return name_columns(files, options, len(hook_points), sides=tuple(hook_points))
