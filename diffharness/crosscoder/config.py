"""What a crosscoder is and how it is trained, as data that is written beside the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingSettings(BaseModel):
    """How a BatchTopK crosscoder is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_latents: int = Field(default=512, ge=1)
    k: int = Field(default=16, ge=1)
    """Mean number of active latents a token, in training and (calibrated) at inference."""
    n_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; left out: enough for `n_epochs` over the tokens, but no fewer than a minimum."""
    n_epochs: float = Field(default=4.0, gt=0)
    """Passes over the training tokens, where `n_steps` is left out."""
    batch_tokens: int = Field(default=1024, ge=1)
    """Tokens in a batch; data with fewer tokens are one batch."""
    block_tokens: int = Field(default=16, ge=1)
    """Neighbouring tokens that are read together and dealt out over as many batches (`batches.py`)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak of Adam's rate; left out: a rule of width and latents (`training.BASE_LEARNING_RATE`)."""
    warmup_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises from 0 to its peak."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, in which the rate falls to 0."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradient."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of the dead-latent auxiliary loss; 0 switches it off."""
    dead_after_tokens: int | None = Field(default=None, ge=1)
    """A latent that was silent for so many tokens is dead; left out: a twentieth of all tokens read, at
    most 10 million."""
    initial_k: int | None = Field(default=None, ge=1)
    """Where set, k moves in a straight line from here to `k` within `annealing_share` of the steps."""
    annealing_share: float = Field(default=0.2, ge=0, le=1)
    seed: int = 0
    """Of the initial weights and of the order of the tokens."""

    @model_validator(mode="after")
    def _k_within_latents(self) -> TrainingSettings:
        if self.k > self.n_latents or (self.initial_k or 0) > self.n_latents:
            raise ValueError(f"k ({self.k}) must not exceed the number of latents ({self.n_latents})")
        return self


class CrosscoderConfig(BaseModel):
    """Enough to rebuild the blank model that the tensors are loaded into, and to tell what they mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["diffharness-crosscoder"] = "diffharness-crosscoder"
    version: Literal[1] = 1
    sides: tuple[str, ...] = Field(min_length=1)
    """Names of the models, in the order of the tensors' M axis."""
    d_model: int = Field(ge=1)
    n_latents: int = Field(ge=1)
    k: int = Field(ge=1)
    """Mean number of active latents a token that the threshold is calibrated to."""
    layer: int | None = None
    """0-based index of the decoder block whose output is read."""
    activation: Literal["batch top-k, threshold at inference"] = "batch top-k, threshold at inference"
    code_norm: Literal["sum of decoder norms"] = "sum of decoder norms"
    """What an activation is multiplied by before it is compared with the threshold."""
    skipped_ids: tuple[int, ...] = ()
    """Ids of tokens (such as special ones) whose positions have no code, besides the first of a sequence."""
    normalisation: Literal["mean and one scale a model"] = "mean and one scale a model"
    """z = scale · (x − mean): a mean a model and dimension, and one scale a model that makes the mean of
    ‖z‖² the width."""
    loss: Literal["squared error"] = "squared error"
    n_train_tokens: int = Field(default=0, ge=0)
    n_heldout_tokens: int = Field(default=0, ge=0)
    """Tokens that the threshold was calibrated on."""
    training: TrainingSettings | None = None
    """How it was trained; none for a crosscoder that was fitted otherwise."""
    description: str = ""

    @model_validator(mode="after")
    def _sides_differ(self) -> CrosscoderConfig:
        if len(set(self.sides)) != len(self.sides):
            raise ValueError(f"sides must differ, got {list(self.sides)}")
        return self
