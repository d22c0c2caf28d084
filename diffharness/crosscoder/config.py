"""What a crosscoder is and how it is trained, as data that is written beside the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sparsity = Literal["batch_topk", "topk", "l1", "jumprelu"]
Rule = Literal["relu", "threshold", "topk", "batch_topk", "groupmax"]
CodeNorm = Literal["sum", "concatenated", "mixed", "none", "per_model"]


class TrainingSettings(BaseModel):
    """How a crosscoder is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_latents: int = Field(default=512, ge=1)
    k: int = Field(default=16, ge=1)
    """Mean number of active latents a token, in training and (calibrated) at inference."""
    sparsity: Sparsity = "batch_topk"
    """What keeps the code sparse: the k largest of a token on average over the batch, or of every token; a penalty on
    the code times its decoders' norms; or a threshold for each latent that is learned with a penalty."""
    penalty: float | None = Field(default=None, gt=0)
    """Weight of the penalty, for `l1` in units of the width's root, for `jumprelu` in units of the width
    (`penalties.py`); left out: adapted from step to step until k latents are active."""
    n_tied: int = Field(default=0, ge=0)
    """Designated shared latents: their decoders are the same in all models."""
    tied_penalty: float = Field(default=0.2, gt=0, le=1)
    """What the penalty of designated shared latents is multiplied by (`l1` and `jumprelu`)."""
    n_dedicated: tuple[int, ...] = ()
    """Latents that read and write one model alone, a count for each model; the first latents, in the models' order."""
    groups: tuple[int, ...] = ()
    """Matryoshka: sizes of the nested dictionaries that have to explain the activations by themselves, ascending, the
    last being all latents; none for a single dictionary (`batch_topk` and `topk`)."""
    n_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; left out: enough for `n_epochs` over the tokens, but no fewer than a minimum."""
    n_epochs: float = Field(default=4.0, gt=0)
    """Passes over the training tokens, where `n_steps` is left out."""
    batch_tokens: int = Field(default=1024, ge=1)
    """Tokens in a batch; data with fewer tokens are one batch."""
    block_tokens: int = Field(default=16, ge=1)
    """Neighbouring tokens that are read together and dealt out over as many batches (`batches.py`)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak of Adam's rate; left out: a rule of width and latents (`schedule.peak_learning_rate`)."""
    warmup_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises from 0 to its peak."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, in which the rate falls to 0."""
    gradient_clip: float = Field(default=0.1, gt=0)
    """Largest global norm of the gradient of the loss, which is about the share of variance that is unexplained;
    `gradient_norm` in the log says what is usual."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of the dead-latent auxiliary loss; 0 switches it off."""
    aux_tokens: int = Field(default=256, ge=1)
    """Tokens of a batch that the auxiliary loss is taken over: an estimate of the batch's, at a share of its cost."""
    dead_after_tokens: int | None = Field(default=None, ge=1)
    """A latent that was silent for so many tokens is dead; left out: a twentieth of all tokens read, at
    most 10 million."""
    initial_k: int | None = Field(default=None, ge=1)
    """Where set, k moves in a straight line from here to `k` within `annealing_share` of the steps; so does the number
    of active latents that an adapted penalty aims at."""
    annealing_share: float = Field(default=0.2, ge=0, le=1)
    product_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What candidates for the code are found in; the chosen are computed in float32 in any case. `auto`: bfloat16
    where the device has instructions for it and the dictionary is large enough to gain."""
    stop_patience: int | None = Field(default=None, ge=1)
    """Stop early when the explained variance of held-out tokens has not risen for so many evaluations; left out:
    never."""
    evaluate_every: int = Field(default=200, ge=1)
    """Steps between two evaluations on held-out tokens, where training may stop early."""
    seed: int = 0
    """Of the initial weights and of the order of the tokens."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        for name, value in (("k", self.k), ("initial_k", self.initial_k or 0)):
            if value > self.n_latents:
                raise ValueError(f"{name} ({value}) must not exceed the number of latents ({self.n_latents})")
        if sum(self.n_dedicated) + self.n_tied > self.n_latents:
            raise ValueError(
                f"dedicated ({sum(self.n_dedicated)}) and shared ({self.n_tied}) latents are more than the "
                f"{self.n_latents} that there are"
            )
        if self.groups and (list(self.groups) != sorted(set(self.groups)) or self.groups[-1] != self.n_latents):
            raise ValueError(f"groups must ascend and end with all {self.n_latents} latents, got {list(self.groups)}")
        if self.groups and self.sparsity not in ("batch_topk", "topk"):
            raise ValueError(f"groups go with batch_topk and topk, not with {self.sparsity}")
        if self.penalty is not None and self.sparsity not in ("l1", "jumprelu"):
            raise ValueError(f"penalty goes with l1 and jumprelu, not with {self.sparsity}; leave it out")
        return self


class CrosscoderConfig(BaseModel):
    """Enough to rebuild the blank model that the tensors are loaded into, and to tell what they mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["diffharness-crosscoder"] = "diffharness-crosscoder"
    version: Literal[2] = 2
    sides: tuple[str, ...] = Field(min_length=1)
    """Names of the models, in the order of the tensors' M axis."""
    layers: tuple[int, ...] = ()
    """0-based indices of the decoder blocks whose outputs are read; none where unknown. With several, the M axis
    holds all layers of the first model, then all of the second."""
    d_model: int = Field(ge=1)
    """Width of the models, of the widest where they differ."""
    widths: tuple[int, ...] = ()
    """Width of each model where they differ: narrower ones are padded with zeros."""
    n_latents: int = Field(ge=1)
    k: int | None = Field(default=None, ge=1)
    """Mean number of active latents a token that the rule is made for; none where unknown."""
    activation: Rule = "threshold"
    """Which positive activations the code keeps at inference: all; those whose scaled value is above the threshold;
    the k of largest scaled value of a token, or k a token of the whole batch given; the largest of each of k groups."""
    code_norm: CodeNorm = "sum"
    """What an activation is multiplied by to be the *scaled* one: Σ_m ‖d_j^m‖; the norm of all models' decoders
    together; a weighted sum of the two; 1; or each model's own ‖d_j^m‖, which gives every model a code of its own."""
    code_norm_weights: tuple[float, float] = (1.0, 0.1)
    """Weights of the concatenated norm and of the sum, for `mixed`."""
    threshold_shape: tuple[int, ...] = ()
    """(): one for all; (L,): one a latent; (M, 1) or (M, L): one a model, or a model and latent."""
    relu: bool = True
    """Whether negative activations are cut off before the rule; only some foreign top-k files do without."""
    n_tied: int = 0
    n_dedicated: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    """As in `TrainingSettings`."""
    expects: Literal["raw", "mean norm √width"] = "raw"
    """What `encode` takes: raw activations, or (foreign files that do not hold the factors) activations that the
    caller scaled so that their mean norm is the root of the width; `loading.fit_scale` puts the factors in."""
    n_normalisations: Literal[1, 2] = 1
    """How often the encoder's input was normalised in training: twice in some foreign files, by their mistake."""
    scale_epsilon: float = Field(default=0.0, ge=0)
    """Added to the scale where it is divided by, as some foreign files' code does."""
    skipped_ids: tuple[int, ...] = ()
    """Ids of tokens (such as special ones) whose positions have no code, besides the first of a sequence."""
    models: tuple[str, ...] = ()
    """What the models are called by their owners, in the order of `sides`; none where unknown."""
    source: str = ""
    """Where a crosscoder of another format came from, and what was assumed in reading it."""
    loss: str = "squared error"
    n_train_tokens: int = Field(default=0, ge=0)
    n_heldout_tokens: int = Field(default=0, ge=0)
    """Tokens that the threshold was calibrated on."""
    training: TrainingSettings | None = None
    """How it was trained; none for a crosscoder that was not trained here."""
    description: str = ""

    @property
    def layer(self) -> int | None:
        """The layer, where there is one and it is known."""
        return self.layers[0] if len(self.layers) == 1 else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names along the tensors' M axis: the sides, with their layer where there are several."""
        if len(self.layers) < 2:
            return self.sides
        return tuple(f"{side}@{layer}" for side in self.sides for layer in self.layers)

    @property
    def decoupled(self) -> bool:
        """Whether every model has a code of its own."""
        return self.code_norm == "per_model"

    @model_validator(mode="after")
    def _consistent(self) -> CrosscoderConfig:
        if len(set(self.sides)) != len(self.sides):
            raise ValueError(f"sides must differ, got {list(self.sides)}")
        if self.widths and (len(self.widths) != len(self.columns) or max(self.widths) != self.d_model):
            raise ValueError(
                f"widths {list(self.widths)} do not fit {len(self.columns)} models of at most {self.d_model}"
            )
        if self.n_dedicated and len(self.n_dedicated) != len(self.sides):
            raise ValueError(
                f"n_dedicated needs a count for each of {', '.join(self.sides)}, got {list(self.n_dedicated)}"
            )
        if self.activation in ("topk", "batch_topk", "groupmax") and self.k is None:
            raise ValueError(f"the rule {self.activation} needs k")
        return self
