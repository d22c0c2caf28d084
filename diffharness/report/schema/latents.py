"""The latents of the report, and how many of each category are specific to a model."""

from __future__ import annotations

from diffharness.report.schema.base import Interval, LatentStatus, Model


class CategoryShift(Model):
    """How many latents of a category are specific to either tuned model, against their ancestor."""

    name: str
    n_baseline: int
    n_candidate: int
    total_baseline: int
    """Specific latents of all categories on the baseline's side."""
    total_candidate: int
    mass_baseline: float
    """Share of the side's specific activation mass."""
    mass_candidate: float
    change: float | None
    """Normalised change in percent: 100 · ((n_c/N_c)/(n_b/N_b) − 1)."""
    change_reason: str | None = None
    interval: Interval | None
    """Of the ratio, in percent change."""
    p_value: float | None
    """Fisher exact."""
    q_value: float | None
    protocol: str
    conclusion: str
    """In words: up, down, or too few to tell."""


class Evidence(Model):
    """Why a latent has its name."""

    auroc: float | None
    q_value: float | None
    runner_up: str | None
    runner_up_auroc: float | None
    reason: str


class Example(Model):
    """A text on which a latent fires, token by token."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    source: str
    """Where the text is from: a task and document, or a corpus."""


class Latent(Model):
    """One crosscoder latent."""

    index: int
    status: LatentStatus
    category: str
    evidence: Evidence
    delta_norm: float | None
    nu_reconstruction: float | None
    nu_error: float | None
    decoder_cosine: float | None
    density: float
    """Share of held-out tokens on which it fires."""
    mean_activation: float | None
    """Over the tokens on which it fires."""
    first_token_share: float | None
    """Share of its activation on the first coded position of a text."""
    contributions: dict[str, float]
    """By task: its written contribution to the gap, in the surrogate's unit."""
    examples: tuple[Example, ...] = ()
