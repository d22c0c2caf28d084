"""Crosscoders of Neel Nanda's code and of ckkissane/crosscoder-model-diff-replication.

Legend: M models, D width, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffharness.crosscoder.formats.building import Parts, build, layer_of_hook_point, name_columns
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

_WEIGHTS = {"W_enc", "b_enc", "W_dec", "b_dec"}
_K = ("k", "top_k", "topk")


@dataclass(frozen=True)
class Nanda:
    """L1 models whose input was scaled to mean norm √width by a buffer that kept the factors to itself."""

    name: str = "ckkissane/Nanda"

    def recognises(self, files: Files) -> bool:
        """Its four tensors alone, with no k and masks as dedicated-feature crosscoders have them."""
        return files.tensors.keys() == _WEIGHTS and "activation_dim" not in files.config("config.json")

    def read(self, files: Files, options: Options) -> Crosscoder:
        """W_enc (M, D, L), W_dec (L, M, D).

        Raises:
            UsageError: its configuration is missing or of a fork, or tensors do not fit.
        """
        config = files.config("cfg.json") or files.config("config.json")
        if "d_in" not in config:
            raise UsageError(
                f"{files.weights}: no cfg.json beside it says how it was trained, and its tensors could be of an L1 or "
                "of a top-k model; put its configuration beside it"
            )
        k_words = [key for key in _K if config.get(key)]
        if k_words:
            raise UsageError(
                f"{files.weights}: a fork of ckkissane's format with {k_words[0]} {config[k_words[0]]}, whose "
                "inference rule is not known; convert it to a format that says it"
            )
        options.check_code_norm(files, "sum")
        n_latents, n_models, d_model = files.tensor("W_dec", (None, None, None)).shape
        hook_point = str(config.get("hook_point", "of unknown name"))
        layer = layer_of_hook_point(hook_point)
        source = [
            f"ckkissane/Nanda, as {files.name}",
            f"hook point {hook_point}" + ("" if layer is None else f", the output of block {layer}"),
            f"model {config.get('model_name', 'unknown')}",
            "an L1 model: every positive activation is kept, and its loss scales the code by the sum of norms",
            "its input is scaled to mean norm √width by factors that the file does not hold; the first token left out",
        ]
        parts = Parts(
            W_enc_LMD=files.tensor("W_enc", (n_models, d_model, n_latents)).permute(2, 0, 1),
            b_enc_L=files.tensor("b_enc", (n_latents,)),
            W_dec_LMD=files.tensor("W_dec", (n_latents, n_models, d_model)),
            b_dec_MD=files.tensor("b_dec", (n_models, d_model)),
        )
        columns = name_columns(files, options, n_models, layers=() if layer is None else (layer,))
        return build(files, columns, source, parts, activation="relu", code_norm="sum", expects="mean norm √width")
