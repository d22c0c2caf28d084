"""Crosscoders of `dictionary_learning` (science-of-finetuning/crosscoder_learning, jkminder, saprmarks), five eras.

They differ by the tensors that a file holds:
    1 (Nov 2024): encoder and decoder alone, an L1 model.  2 (Mar 2025): + k, threshold.  3 (May 2025):
    + code_normalization_id.  4 (June 2025): + a normaliser with one scale for all models.  5 (30 June 2025): with one
    scale a model. Their newest code reads none of 1 from a `.pt`, fails on 4, and takes every file of 2 for `sum`.

Legend: M models, D width, L latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffharness.crosscoder.config import CodeNorm
from diffharness.crosscoder.formats.building import Columns, Parts, build, name_columns
from diffharness.crosscoder.formats.dictionary_learning_writer import write
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.formats.registry import CODE_NORMS, Options
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

__all__ = ["CODE_NORM_IDS", "DictionaryLearning", "write"]

CODE_NORM_IDS: dict[int, CodeNorm] = {1: "sum", 2: "concatenated", 3: "mixed", 4: "none", 5: "per_model"}
SCALE_EPSILON = 1e-8
"""Added where their code divides by the scale."""

_WEIGHTS = {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
_RULE = {"k", "threshold"}
_NORMALISER = {"target_rms", "activation_mean", "activation_std", "activation_global_scale"}
_HINTS = {"ccloss": "sum", "saeloss": "concatenated", "decoupled": "per_model"}


@dataclass(frozen=True)
class DictionaryLearning:
    """All eras; index 0 is the base model."""

    name: str = "dictionary_learning"

    def recognises(self, files: Files) -> bool:
        """A weight of three axes for encoder and decoder each."""
        return files.tensors.keys() >= _WEIGHTS and files.tensors["encoder.weight"].ndim == 3

    def read(self, files: Files, options: Options) -> Crosscoder:
        """By the rules of the file's era.

        Raises:
            UsageError: an unknown era or code norm, one that the file does not say, or tensors that do not fit.
        """
        checkpoint = _Checkpoint(files, options)
        checkpoint.find_code_norm()
        checkpoint.find_rule()
        parts = checkpoint.parts()
        return build(files, checkpoint.columns(), checkpoint.source, parts, **checkpoint.fields)


@dataclass
class _Checkpoint:
    """One file while it is read: what was found and assumed so far."""

    files: Files
    options: Options
    source: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    code_norm: CodeNorm = "sum"

    def __post_init__(self) -> None:
        extra = self.files.tensors.keys() - _WEIGHTS
        self.is_l1 = not (_RULE & extra)
        self.era = self._era(extra)
        self.source.append(f"dictionary_learning, era {self.era}, as {self.files.name}")
        self.n_models = self.files.tensors["decoder.weight"].shape[0]
        self.d_model = self.files.tensors["encoder.weight"].shape[1]
        self.n_latents = self.files.tensors["encoder.weight"].shape[2]
        if name := self.said("lm_name"):
            self.source.append(f"lm_name {name}")

    def _era(self, extra: set[str]) -> int:
        rest = extra - _RULE
        if extra & _RULE in (set(), _RULE):
            if not rest:
                return 1 if self.is_l1 else 2
            if rest == {"code_normalization_id"}:
                return 3
            if rest == {"code_normalization_id", *_NORMALISER}:
                return 4 if self.files.tensors["activation_global_scale"].ndim == 0 else 5
        raise UsageError(
            f"{self.files.weights}: of no era of dictionary_learning that is known (besides the weights it holds "
            f"{', '.join(sorted(extra))}); the five known ones add k and threshold, code_normalization_id, and "
            f"{', '.join(sorted(_NORMALISER))}"
        )

    @property
    def _trainer(self) -> Mapping[str, Any]:
        """Their trainer's settings: of the published layout, or of a local run's."""
        of_hub, of_run = self.files.config("trainer_config.json"), self.files.config("config.json")
        found = of_hub.get("trainer", of_hub) or of_run.get("trainer", {})
        return found if isinstance(found, Mapping) else {}

    def said(self, *keys: str) -> Any:
        """The first of some settings that a configuration says."""
        of_class = self._trainer.get("dict_class_kwargs")
        places = (self._trainer, of_class if isinstance(of_class, Mapping) else {}, self.files.config("config.json"))
        found = (place.get(key) for place in places for key in keys)
        return next((value for value in found if value not in (None, "None")), None)

    def find_code_norm(self) -> None:
        """From the tensors, else the trainer's settings, else what the user says."""
        found, where = self._code_norm_of_file()
        if found is None and self.options.code_norm is None and not self.is_l1:
            raise UsageError(f"{self.files.weights} does not say by which code norm its threshold is; {self._remedy()}")
        if found is not None:
            self.options.check_code_norm(self.files, found)
        self.code_norm = found or self.options.code_norm or "sum"
        if found is None:
            where = "assumed, as of L1 models of era 1" if self.options.code_norm is None else "as the user says"
        self.source.append(f"code norm {self.code_norm} ({where})")
        if self.code_norm == "mixed":
            self.fields["code_norm_weights"] = self._mixture()
        if self.code_norm == "per_model" and self.is_l1:
            self.code_norm = "sum"
            self.source.append("L1 models have one code for all models even where decoupled, scaled by the sum")
        self.fields["code_norm"] = self.code_norm

    def _code_norm_of_file(self) -> tuple[CodeNorm | None, str]:
        if "code_normalization_id" in self.files.tensors:
            number = int(self.files.tensor("code_normalization_id", ()))
            if number not in CODE_NORM_IDS:
                raise UsageError(
                    f"{self.files.weights}: code_normalization_id {number} is not known (1 to 5 are); the file is "
                    "damaged or newer than this reader"
                )
            return CODE_NORM_IDS[number], "its tensor code_normalization_id"
        said = self.said("code_normalization", "sparsity_loss_type")
        if said is None:
            return None, ""
        name = str(said).rpartition(".")[2].lower()
        if name not in CODE_NORMS:
            raise UsageError(f"{self.files.weights}: its trainer's code norm {said} is not known; use --code-norm")
        return CODE_NORMS[name], "its trainer's settings"

    def _remedy(self) -> str:
        hints = [norm for word, norm in _HINTS.items() if f"-{word}" in self.files.name.lower()]
        if hints:
            return f"its name {self.files.name} suggests --code-norm {hints[0]}; give it, or its trainer_config.json"
        return "put its trainer_config.json beside it, or say --code-norm sum (or concatenated, mixed:A,B, per_model)"

    def _mixture(self) -> tuple[float, float]:
        """Weights of the two norms, which no tensor holds."""
        said = [self.said(f"code_normalization_alpha_{of}", f"sparsity_loss_alpha_{of}") for of in ("sae", "cc")]
        told = self.options.code_norm_weights
        if None in said and told is None:
            raise UsageError(
                f"{self.files.weights}: code norm mixed, but no configuration says its two weights; put its "
                "trainer_config.json beside it, or say --code-norm mixed:1.0,0.1 (their defaults)"
            )
        if None in said:
            assert told is not None
            self.source.append(f"weights {told[0]:g} and {told[1]:g} of the mixture as the user says")
            return told
        found = (float(said[0]), float(said[1]))
        if told not in (None, found):
            raise UsageError(
                f"{self.files.weights}: its configuration mixes the code norms by {found[0]:g} and {found[1]:g}, not "
                "as --code-norm says; leave the weights out"
            )
        return found

    def find_rule(self) -> None:
        """ReLU for L1 models, else the threshold on the scaled code."""
        self.threshold: Tensor | None = None
        if self.is_l1:
            self.fields["activation"] = "relu"
            self.source.append("an L1 model: every positive activation is kept")
            return
        decoupled = self.code_norm == "per_model"
        threshold = self.files.tensor("threshold", (self.n_models,) if decoupled else ())
        self.threshold = threshold[:, None] if decoupled else threshold
        self.fields |= {"activation": "threshold", "k": int(self.files.tensor("k", ()))}
        if bool((threshold < 0).any()):
            self.source.append("a threshold below 0, as training never set it: every positive activation is kept")

    def columns(self) -> Columns:
        """Names of the models, and the layer that the trainer's settings name."""
        layer = self.said("layer")
        known = isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0
        return name_columns(self.files, self.options, self.n_models, layers=(layer,) if known else ())

    def parts(self) -> Parts:
        """The tensors, the encoder of models that it does not read being zero."""
        n_models, d_model, n_latents = self.n_models, self.d_model, self.n_latents
        read = self._models_read()
        W_enc = self.files.tensor("encoder.weight", (len(read), d_model, n_latents))
        if read != list(range(n_models)):
            whole = W_enc.new_zeros(n_models, d_model, n_latents)
            W_enc = whole.index_add(0, torch.tensor(read), W_enc)
            self.source.append(f"its encoder reads models {read} of {n_models} alone (encoder_layers)")
        mean_MD, scale_M = self._normaliser()
        return Parts(
            W_enc_LMD=W_enc.permute(2, 0, 1),
            b_enc_L=self.files.tensor("encoder.bias", (n_latents,)),
            W_dec_LMD=self.files.tensor("decoder.weight", (n_models, n_latents, d_model)).permute(1, 0, 2),
            b_dec_MD=self.files.tensor("decoder.bias", (n_models, d_model)),
            mean_MD=mean_MD,
            scale_M=scale_M,
            threshold=self.threshold,
        )

    def _models_read(self) -> list[int]:
        """Which models the encoder reads: all, but for `encoder_layers`."""
        said = self.said("encoder_layers")
        try:
            read = [int(m) for m in (json.loads(said) if isinstance(said, str) else said or ())]
        except (ValueError, TypeError):
            read = [-1]
        if any(not 0 <= m < self.n_models for m in read):
            raise UsageError(
                f"{self.files.weights}: encoder_layers {said} are not models among the {self.n_models} that it writes; "
                "the file does not belong to its configuration"
            )
        return read or list(range(self.n_models))

    def _normaliser(self) -> tuple[Tensor | None, Tensor | None]:
        """Mean and scale, from the tensors alone: the configuration may say none where there is one."""
        if self.era < 4:
            return None, None
        shape = (self.n_models, self.d_model)
        mean_MD, std_MD = (self.files.tensor(f"activation_{name}", shape) for name in ("mean", "std"))
        if bool(mean_MD.isnan().any() or std_MD.isnan().any()):  # as their code tells
            self.source.append("no normaliser: its mean or standard deviation is NaN")
            return None, None
        scale = self.files.tensor("activation_global_scale", () if self.era == 4 else (self.n_models,))
        target_rms = float(self.files.tensor("target_rms", ()))
        if bool((scale == 1).all()) and not _is_scale(scale, target_rms, std_MD):
            raise UsageError(
                f"{self.files.weights}: normalises every dimension by its own deviation (keep_relative_variance off), "
                "which can not be held; scale the weights to one factor a model"
            )
        self.fields["scale_epsilon"] = SCALE_EPSILON
        if self.era == 4:
            self.source.append("one scale for all models")
        if self.code_norm == "per_model":
            self.fields["n_normalisations"] = 2
            self.source.append("its code normalises the encoder's input twice where decoupled, and so does this")
        return mean_MD, scale.expand(self.n_models)


def _is_scale(scale: Tensor, target_rms: float, std_MD: Tensor) -> bool:
    """Whether it is target_rms / √(Σ std²), of all models together or of each."""
    variance_M = std_MD.double().square().sum(dim=-1)
    total = variance_M.sum() if scale.ndim == 0 else variance_M
    return torch.allclose(scale.double(), target_rms / (total + SCALE_EPSILON).sqrt(), rtol=1e-3)
