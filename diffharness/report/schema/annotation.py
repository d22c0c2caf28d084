"""How latents got their names: each one's evidence, and the annotator's work as a whole."""

from __future__ import annotations

from diffharness.report.schema.base import Interval, Model


class Detection(Model):
    """A label tried on held-out texts: how well it tells those on which the latent fires from others."""

    score: float
    chance: float
    """What guessing scores."""
    n: int
    """Texts."""
    method: str


class Evidence(Model):
    """Why a latent has its name."""

    auroc: float | None
    q_value: float | None
    runner_up: str | None
    runner_up_auroc: float | None
    reason: str
    annotator: str = "probe"
    """Who named it: `probe`, `lm: <model>` or `file: <name>`."""
    contrast_share: float | None = None
    """Share of the best category's matched pairs whose text excites the latent more than its contrast does."""
    detection: Detection | None = None
    share: float | None = None
    """Share of the latent's activation on the probes that is on the name's texts, categories weighing alike."""
    is_clear: bool | None = None
    """Whether the evidence is more than enough for the name; `None` where the annotator does not grade."""
    best: str | None = None
    """The best category, also where the evidence is too weak to name the latent by it."""


class Agreement(Model):
    """How far a second annotator gives the same names."""

    other: str
    kappa: float | None
    """Cohen's κ."""
    kappa_interval: Interval | None
    n: int
    """Latents that both named."""
    reason: str | None
    """Why there is no κ."""


class Annotation(Model):
    """Who named the latents, and how far the names can be trusted."""

    annotator: str
    n_named: int
    n_unclear: int
    n_clear: int | None = None
    """Of those named, those whose evidence is more than enough; `None` where the annotator does not grade."""
    n_asked: int
    """Latents that the annotator was asked about."""
    n_calls: int = 0
    """Requests to a language model."""
    n_cached: int = 0
    """Answers that were kept from earlier."""
    n_tokens: int | None = None
    """Of prompts and answers."""
    detection: float | None
    """Mean detection score over named latents."""
    detection_chance: float | None
    agreement: Agreement | None
