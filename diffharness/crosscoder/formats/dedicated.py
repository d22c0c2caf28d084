"""Dedicated-feature crosscoders (2602.11729) as antebe/model_diffing_crosscoders publishes them.

Legend: M models, D width, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffharness.crosscoder.formats.building import Parts, build, name_columns
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

_WEIGHTS = {"W_enc", "b_enc", "W_dec", "b_dec"}
_MASKS = {"enc_mask", "dec_mask"}


@dataclass(frozen=True)
class Dedicated:
    """Per-token top-k; latents of model A alone, of B alone, then shared; and the plain ones of the same project."""

    name: str = "dedicated-feature crosscoder"

    def recognises(self, files: Files) -> bool:
        """Its masks, or a configuration that names width and k as it does."""
        rest = files.tensors.keys() - _WEIGHTS
        plain = not rest and "activation_dim" in files.config("config.json")
        return files.tensors.keys() >= _WEIGHTS and (rest == _MASKS or plain)

    def read(self, files: Files, options: Options) -> Crosscoder:
        """W_enc (2, D, L) as it is; W_dec (L, 2, D) where its mask allows it.

        Raises:
            UsageError: k is missing, or tensors do not fit.
        """
        config = files.config("config.json")
        k = config.get("k")
        if not isinstance(k, int):
            raise UsageError(f"{files.weights}: no config.json beside it says k; put the project's own beside it")
        options.check_code_norm(files, "none")
        n_latents, n_models, d_model = files.tensor("W_dec", (None, 2, None)).shape
        W_dec_LMD, n_dedicated = files.tensors["W_dec"], ()
        source = [
            f"dedicated-feature crosscoder, as {files.name}",
            "the k largest activations of a token are kept, not scaled by the decoders",
            "raw activations in, as the project's evaluation gives them",
        ]
        if "dec_mask" in files.tensors:
            mask_LM = files.tensor("dec_mask", (n_latents, n_models))
            W_dec_LMD = W_dec_LMD * mask_LM[..., None]
            n_dedicated = _partition(mask_LM)
            source.append(
                "the encoder is not masked, as in the project's code"
                if n_dedicated
                else "masks that are not A-only, B-only, shared in this order: kept as zeros in the decoder"
            )
        named = tuple(str(config[key]) for key in ("model_a", "model_b") if config.get(key))
        models = named if len(named) == n_models else ()
        if not models:
            source.append("models A and B are not named; the project's published files have the fine-tuned one first")
        layer = config.get("layer")
        columns = name_columns(files, options, n_models, layers=(layer,) if isinstance(layer, int) else ())
        parts = Parts(
            W_enc_LMD=files.tensor("W_enc", (n_models, d_model, n_latents)).permute(2, 0, 1),
            b_enc_L=files.tensor("b_enc", (n_latents,)),
            W_dec_LMD=W_dec_LMD,
            b_dec_MD=files.tensor("b_dec", (n_models, d_model)),
        )
        return build(
            files,
            columns,
            source,
            parts,
            activation="topk",
            k=k,
            code_norm="none",
            n_dedicated=n_dedicated,
            models=models,
        )


def _partition(mask_LM: Tensor) -> tuple[int, ...]:
    """How many latents write each model alone; none where they are not in the models' order at the front."""
    n_a, n_b = int((mask_LM[:, 1] == 0).sum()), int((mask_LM[:, 0] == 0).sum())
    expected_LM = torch.ones_like(mask_LM)
    expected_LM[:n_a, 1] = 0
    expected_LM[n_a : n_a + n_b, 0] = 0
    return (n_a, n_b) if torch.equal(mask_LM, expected_LM) else ()
