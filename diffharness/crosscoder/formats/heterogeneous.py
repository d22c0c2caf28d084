"""Crosscoders over models of different widths, of yzc-666/understanding-opd-crosscoders.

Legend: M models, D width of the widest, L latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffharness.crosscoder.formats.building import Parts, build, name_columns
from diffharness.crosscoder.formats.dictionary_learning import CODE_NORM_IDS, SCALE_EPSILON
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder, pad
from diffharness.errors import UsageError


@dataclass(frozen=True)
class Heterogeneous:
    """A projection a model; as `dictionary_learning` in all else."""

    name: str = "heterogeneous dictionary_learning"

    def recognises(self, files: Files) -> bool:
        """Its tensor of widths."""
        return "activation_dims_tensor" in files.tensors

    def read(self, files: Files, options: Options) -> Crosscoder:
        """Projections (L, D_m) in and (D_m, L) out, padded with zeros to the widest.

        Raises:
            UsageError: an unknown code norm, weights of a mixture that no file says, or tensors that do not fit.
        """
        widths = [int(width) for width in files.tensor("activation_dims_tensor", (None,))]
        models = range(len(widths))
        (n_latents,) = files.tensor("encoder.bias", (None,)).shape
        source = [f"heterogeneous dictionary_learning, as {files.name}"]
        fields = _code_norm(files, options, source)
        threshold = None
        if "threshold" in files.tensors:
            threshold = files.tensor("threshold", ())
            fields |= {"activation": "threshold", "k": int(files.tensor("k", ()))}
            if float(threshold) < 0:
                source.append("a threshold below 0, as training never set it: every positive activation is kept")
        else:
            fields["activation"] = "relu"
            source.append("an L1 model: every positive activation is kept")
        if len(set(widths)) > 1:
            fields["widths"] = tuple(widths)
        mean_MD, scale_M = _normaliser(files, widths, fields, source)
        W_enc = [files.tensor(f"encoder.projections.{m}.weight", (n_latents, widths[m])) for m in models]
        W_dec = [files.tensor(f"decoder.projections.{m}.weight", (widths[m], n_latents)).T for m in models]
        b_dec = [files.tensor(f"decoder.projections.{m}.bias", (widths[m],)) for m in models]
        parts = Parts(
            W_enc_LMD=pad(W_enc),
            b_enc_L=files.tensor("encoder.bias", (n_latents,)),
            W_dec_LMD=pad(W_dec),
            b_dec_MD=pad([bias[None] for bias in b_dec])[0],
            mean_MD=mean_MD,
            scale_M=scale_M,
            threshold=threshold,
        )
        return build(files, name_columns(files, options, len(widths)), source, parts, **fields)


def _code_norm(files: Files, options: Options, source: list[str]) -> dict[str, Any]:
    number = int(files.tensor("code_normalization_id", ()))
    norm = CODE_NORM_IDS.get(number)
    if norm is None or norm == "per_model":
        raise UsageError(
            f"{files.weights}: code_normalization_id {number} is none of 1 to 4; the file is damaged or newer than "
            "this reader"
        )
    options.check_code_norm(files, norm)
    source.append(f"code norm {norm} (its tensor code_normalization_id)")
    if norm != "mixed":
        return {"code_norm": norm}
    config = files.config("config.json")
    said = [config.get(f"code_normalization_alpha_{of}") for of in ("sae", "cc")]
    weights = options.code_norm_weights if None in said else (float(said[0]), float(said[1]))  # pyright: ignore
    if weights is None:
        raise UsageError(
            f"{files.weights}: code norm mixed, but no configuration says its two weights; put its config.json beside "
            "it, or say --code-norm mixed:1.0,0.1 (their defaults)"
        )
    source.append(
        f"weights {weights[0]:g} and {weights[1]:g} of the mixture {'as the user says' if None in said else ''}"
    )
    return {"code_norm": norm, "code_norm_weights": weights}


def _normaliser(
    files: Files, widths: Sequence[int], fields: dict[str, Any], source: list[str]
) -> tuple[Tensor | None, Tensor | None]:
    means = [files.tensor(f"normalizer.mean_{m}", (width,)) for m, width in enumerate(widths)]
    if any(bool(mean.isnan().any()) for mean in means):
        source.append("no normaliser: its mean is NaN")
        return None, None
    fields["scale_epsilon"] = SCALE_EPSILON
    scale_M = torch.stack([files.tensor(f"normalizer.scale_{m}", ()) for m in range(len(widths))])
    return pad([mean[None] for mean in means])[0], scale_M
