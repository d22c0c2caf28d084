"""The latents of the report, and how many of each category are specific to a model."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from diffharness.report.schema.annotation import Evidence
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
    """Share of the side's acquired mass: what it holds of latents beyond the ancestor, summed over tokens."""
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
    """By which crosscoders a latent is called specific, for example `two crosscoders` or `three-way`."""
    conclusion: str
    """In words: up, down, or too few to tell."""
    is_default: bool = True
    """Whether the row's protocol is the one that the report rests on."""
    mass_change: float | None = None
    """In points: 100 · (`mass_candidate` − `mass_baseline`)."""
    mass_interval: Interval | None = None
    """Of `mass_change`, in points."""
    mass_p_value: float | None = None
    mass_q_value: float | None = None
    mass_conclusion: str = ""
    """In words, as `conclusion`; empty where the masses were not tested."""
    n_matched_baseline: int | None = None
    """Of `n_baseline`, those that the crosscoder's other seeds found again; `None` for one seed."""
    n_matched_candidate: int | None = None


class Example(Model):
    """A text, token by token, and what a latent does on it."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    """The latent's activation a token."""
    source: str
    """Where the text is from: a task and document, or a corpus."""
    kind: Literal["top", "quantile", "near miss"] = "top"
    """Among the strongest, at a quantile of the latent's range, or one that came nearest without firing."""
    quantile: float | None = None
    """For `quantile`: where its peak lies among the peaks of the latent's texts, 0 to 1."""
    baseline: tuple[float, ...] = ()
    """How much of the latent the baseline alone holds on each token, in units of `values`; empty if not recorded."""
    candidate: tuple[float, ...] = ()
    """The same of the candidate."""

    @model_validator(mode="after")
    def _lengths(self) -> Example:
        for name, given in (("values", self.values), ("baseline", self.baseline), ("candidate", self.candidate)):
            if len(given) != len(self.tokens) and (given or name == "values"):
                raise ValueError(f"{len(self.tokens)} tokens with {len(given)} {name}")
        return self


class Use(Model):
    """How often and how strongly either model alone makes a latent fire, on the evaluation's tokens."""

    rate_baseline: float
    """Share of tokens, 0 to 1."""
    rate_candidate: float
    rate_interval: Interval
    """Of candidate − baseline."""
    mean_baseline: float
    """Mean activation a token."""
    mean_candidate: float
    mean_interval: Interval
    """Of candidate − baseline."""
    q_value: float | None


class Association(Model):
    """Whether a latent fires more on documents that the candidate gains, or loses. It shows no cause."""

    task: str | None
    """`None`: all tasks together."""
    direction: Literal["gains", "loses"]
    statistic: float
    p_value: float
    p_adjusted: float
    """Corrected for all latents that were tried."""
    n_gain: int
    """Documents that the candidate gains."""
    n_lose: int
    method: str


class Neighbour(Model):
    """A latent whose decoder vectors point almost the same way."""

    index: int
    cosine: float


class Promoted(Model):
    """Tokens whose logits a decoder vector moves, the strongest first."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    """Logits a unit of the latent."""


class Lens(Model):
    """What one model's decoder vector does to its next tokens, read directly through its own unembedding.

    Approximate below the last layers.
    """

    up: Promoted
    down: Promoted


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
    """By task: its contribution to the gap, written and read together, in the surrogate's unit."""
    read: dict[str, float] = {}
    """The part of it that is read: what the models' upper layers make differently of the same latent."""
    examples: tuple[Example, ...] = ()
    side: str | None = None
    """The model that it is specific to; `None` where it is to none."""
    status_by_norm: LatentStatus | None = None
    """What Δnorm alone would call it."""
    status_reason: str = ""
    """In words: by which evidence it has its status."""
    nu_reconstruction_interval: Interval | None = None
    nu_error_interval: Interval | None = None
    n_active: int = 0
    """Tokens on which it fires."""
    n_texts: int = 0
    """Texts on which it fires."""
    special_token_share: float | None = None
    """Share of its activation on special tokens."""
    template_token_share: float | None = None
    """Share of its activation on the chat template's own tokens."""
    density_by_task: dict[str, float] = {}
    """Share of the task's tokens on which it fires."""
    use: Use | None = None
    association: Association | None = None
    matched: bool | None = None
    """Whether the crosscoder's other seeds found it again; `None` for one seed."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest first."""
    lens: dict[str, Lens] = {}
    """By side."""


class ChangedUse(Model):
    """What changed where nothing, or little, is specific: shared latents that the candidate uses otherwise."""

    n_specific_baseline: int
    n_specific_candidate: int
    sentence: str
    latents: tuple[int, ...]
    """Indices of the shared latents whose use changed most, the most first; at most 12."""
