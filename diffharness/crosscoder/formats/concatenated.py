"""Crosscoders of Lucas-Armand/crosscoder-recatcher-steering: one linear map of both models' activations, end to end.

Legend: M = 2 models, D width of the wider, L latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffharness.crosscoder.formats.building import Parts, build, name_columns
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder, pad
from diffharness.errors import UsageError


@dataclass(frozen=True)
class Concatenated:
    """Model A then B; ReLU, or the k largest of a token after it."""

    name: str = "crosscoder-recatcher-steering"

    def recognises(self, files: Files) -> bool:
        """A decoder of each model."""
        return {"encoder.weight", "encoder.bias", "decoder_a.weight", "decoder_b.weight"} <= files.tensors.keys()

    def read(self, files: Files, options: Options) -> Crosscoder:
        """Encoder (L, D_a + D_b), decoders (D_m, L).

        Raises:
            UsageError: the configuration is missing, the input is normalised token by token, or tensors do not fit.
        """
        config = files.beside.get("config") or files.config("config.json")
        if not isinstance(config, Mapping) or not config:
            raise UsageError(
                f"{files.weights}: neither it nor a config.json beside it says how it was trained, so it could be an "
                "L1 or a top-k model; put its config.json beside it"
            )
        _refuse_token_norm(files, config)
        k = config.get("top_k")
        norm = "none" if k else "sum"
        options.check_code_norm(files, norm)
        widths = tuple(files.tensor(f"decoder_{m}.weight", (None, None)).shape[0] for m in "ab")
        (n_latents,) = files.tensor("encoder.bias", (None,)).shape
        W_enc = files.tensor("encoder.weight", (n_latents, sum(widths))).split(widths, dim=1)
        W_dec = [files.tensor(f"decoder_{m}.weight", (width, n_latents)).T for m, width in zip("ab", widths)]
        b_dec = [files.tensor(f"decoder_{m}.bias", (width,)) for m, width in zip("ab", widths)]
        named = tuple(str(config[key]) for key in ("model_a", "model_b") if config.get(key))
        fields: dict[str, Any] = {"activation": "topk", "k": k} if k else {"activation": "relu"}
        if len(set(widths)) > 1:
            fields["widths"] = widths
        source = [
            f"crosscoder-recatcher-steering, as {files.name}",
            f"the {k} largest activations of a token are kept, not scaled"
            if k
            else "every positive activation is kept",
            f"layer {config.get('layer', 'unknown')} by its own count, from which block that is can not be told",
        ]
        parts = Parts(
            W_enc_LMD=pad(W_enc),
            b_enc_L=files.tensor("encoder.bias", (n_latents,)),
            W_dec_LMD=pad(W_dec),
            b_dec_MD=pad([bias[None] for bias in b_dec])[0],
        )
        models = named if len(named) == len(widths) else ()
        return build(files, name_columns(files, options, 2), source, parts, code_norm=norm, models=models, **fields)


def _refuse_token_norm(files: Files, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        word = str(key).lower()
        if ("rms" in word and value not in (None, False)) or ("norm" in word and "rms" in str(value).lower()):
            raise UsageError(
                f"{files.weights}: its input is normalised token by token ({key}: {value}), which can not be held; "
                "one that reads raw activations is needed"
            )
