"""Crosscoders of oli-clive-griffin/crosscode: models × hook points, five activation functions.

Legend: M models, P hook points of each, D width, L latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffharness.crosscoder.formats.building import Parts, build, name_columns
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

_THRESHOLD = "_activation_fn.log_threshold_L"


@dataclass(frozen=True)
class Crosscode:
    """`ModelHookpointAcausalCrosscoder`."""

    name: str = "crosscode"

    def recognises(self, files: Files) -> bool:
        """Its encoder's name."""
        return "_W_enc_XiDiL" in files.tensors

    def read(self, files: Files, options: Options) -> Crosscoder:
        """Scaling that was folded into the weights is taken out again, so that decoders compare as trained.

        Raises:
            UsageError: the configuration is missing, of another class, or tensors do not fit.
        """
        config = files.config("model_cfg.yaml")
        if "n_hookpoints" not in config or "activation_fn" not in config:
            raise UsageError(
                f"{files.weights}: no model_cfg.yaml of a crosscode crosscoder beside it; put the project's own there"
            )
        n_latents, n_models, n_layers, d_model = files.tensor("_W_dec_LXoDo", (None, None, None, None)).shape
        n_columns = n_models * n_layers
        source = [f"crosscode, as {files.name}"]
        fields, threshold = _rule(files, config["activation_fn"], n_latents, source)
        options.check_code_norm(files, fields["code_norm"])
        W_enc_MPDL = files.tensor("_W_enc_XiDiL", (n_models, n_layers, d_model, n_latents))
        b_enc_L = W_enc_MPDL.new_zeros(n_latents)
        if config.get("use_encoder_bias", True):
            b_enc_L = files.tensor("b_enc_L", (n_latents,))
        b_dec_MPD = W_enc_MPDL.new_zeros(n_models, n_layers, d_model)
        if config.get("use_decoder_bias", True):
            b_dec_MPD = files.tensor("_b_dec_XoDo", (n_models, n_layers, d_model))
        parts = Parts(
            W_enc_LMD=W_enc_MPDL.flatten(0, 1).permute(2, 0, 1),
            b_enc_L=b_enc_L,
            W_dec_LMD=files.tensors["_W_dec_LXoDo"].flatten(1, 2),
            b_dec_MD=b_dec_MPD.flatten(0, 1),
            threshold=threshold,
        )
        if "is_folded" in files.tensors and bool(files.tensor("is_folded", ())):
            parts = _unfolded(files, parts, source)
        else:
            fields["expects"] = "mean norm √width"
            source.append("its input is scaled to mean norm √width by factors that the file does not hold")
        columns = name_columns(files, options, n_columns, n_layers=n_layers)
        return build(files, columns, source, parts, **fields)


def _rule(
    files: Files, activation: Mapping[str, Any], n_latents: int, source: list[str]
) -> tuple[dict[str, Any], Tensor | None]:
    """Which activations are kept, and the thresholds of JumpReLU."""
    name, settings = str(activation.get("classname")), activation.get("cfg") or {}
    if name == "ReLUActivation":
        source.append("every positive activation is kept, and its loss scales the code by the sum of norms")
        return {"activation": "relu", "code_norm": "sum"}, None
    if name in ("AnthropicSTEJumpReLUActivation", "JumpReLUActivationFunction"):
        source.append("a threshold a latent on the code as it is")
        threshold = files.tensor(_THRESHOLD, (n_latents,)).float().exp()
        return {"activation": "threshold", "code_norm": "none"}, threshold
    rules = {
        "TopkActivation": ("topk", "k"),
        "BatchTopkActivation": ("batch_topk", "k_per_example"),
        "GroupMaxActivation": ("groupmax", "k_groups"),
    }
    if name not in rules:
        raise UsageError(
            f"{files.weights}: activation function {name} is not known; convert it to one of {list(rules)}"
        )
    rule, key = rules[name]
    k = settings.get(key)
    if not isinstance(k, int) or not 0 < k <= n_latents or (rule == "groupmax" and n_latents % k):
        raise UsageError(
            f"{files.weights}: {key} {k} of {name} does not fit {n_latents} latents; put the file's own "
            "model_cfg.yaml beside it"
        )
    source.append("selected by the code as it is, negative values too, as its activation function has no ReLU")
    if rule == "batch_topk":
        source.append("no threshold for inference: what is kept of a token depends on the others in its batch")
    return {"activation": rule, "k": k, "code_norm": "none", "relu": False}, None


def _unfolded(files: Files, parts: Parts, source: list[str]) -> Parts:
    """Weights for scaled input, and the factors as the normaliser's scale."""
    shape = (None, None)
    scale_in, scale_out = (files.tensor(f"folded_scaling_factors_{name}", shape) for name in ("in_Xi", "out_Xo"))
    if not bool((scale_in == scale_out).all()) or not bool((scale_in > 0).all()):
        source.append("scaling factors folded into the weights")
        return parts
    source.append("scaling factors taken out of the weights")
    scale_M = scale_in.flatten()
    if len(scale_M) != parts.W_enc_LMD.shape[1]:
        raise UsageError(f"{files.weights}: {len(scale_M)} scaling factors do not fit its weights; fetch it again")
    return Parts(
        W_enc_LMD=parts.W_enc_LMD / scale_M[:, None],
        b_enc_L=parts.b_enc_L,
        W_dec_LMD=parts.W_dec_LMD * scale_M[:, None],
        b_dec_MD=parts.b_dec_MD * scale_M[:, None],
        scale_M=scale_M,
        threshold=parts.threshold,
    )
