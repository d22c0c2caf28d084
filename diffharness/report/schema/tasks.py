"""A task of the report: its scores, and the account of its gap."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Interval, Model, TaskVerdict


class Ablation(Model):
    """The exact check, in lm-eval's own metric, by running the models with another state at the layer.

    Of what is written: the candidate with a category's latents put back to the baseline's version. Of what is read: the
    category taken out of the baseline's state under either model's layers above. Of `prompt`: the candidate asked in
    the baseline's chat template (`score`), and what its own changes.
    """

    score: float
    """Of the candidate without the category's change; of what is read: of its layers above on the baseline's state
    without the category."""
    change: float
    """What the category is worth in the real metric, the rest in place: candidate − `score`; of what is read: what
    taking it out costs under the candidate's layers above, minus what it costs the baseline."""
    interval: Interval
    n: int


class Component(Model):
    """One part of a task's gap."""

    kind: Literal["latents", "bias", "error", "upper", "prior", "prompt"]
    """`prompt`: the candidate's own chat template in place of the baseline's, where `--own-templates` was given."""
    origin: Literal["written", "read"] | None
    category: str | None
    """For `latents` only."""
    contribution: float
    """In the surrogate's unit."""
    contribution_raw: float | None
    """In the unit that the path integrates (log-odds or log-likelihood); `None` for the `prompt` of generated answers,
    which no path integrates."""
    interaction: float | None = None
    """Half of what the two orders (whose upper layers come first) make of it differ by, in the surrogate's unit."""
    interval: Interval
    share: float | None
    """contribution / gap; `None` where the gap is too small to share out."""
    p_value: float | None
    q_value: float | None
    """Benjamini–Hochberg over all components of all tasks."""
    n_latents: int | None = None
    ablation: Ablation | None = None
    ablation_reason: str | None = None
    """Why there is no ablation."""
    second_start: float | None = None
    """Of `prior`: the same at a second start, the documents' states without their latents."""
    at_own_states: float | None = None
    """Of `prior`: the same on the documents' own states, which is the prior and all that is read."""
    is_content_free: bool | None = None
    """Of `prior`: whether it and the value at the documents' own states agree in sign and within a quarter, so that it
    can be called a shift that does not depend on content."""
    seeds: tuple[float, ...] = ()
    """The contribution by crosscoders trained with other seeds (`--seeds`), each with names of its own."""


class Surrogate(Model):
    """The smooth stand-in of the metric whose gap is split."""

    name: str
    unit: str
    baseline: float
    candidate: float
    gap: float
    rank_correlation: float | None
    """Spearman, over documents, of the surrogate's and the metric's difference."""
    tracks: bool
    tracks_reason: str
    """Why it does, or why nothing may be worded as a cause."""
    higher_is_better: bool | None = None
    """The stand-in's own direction (a log-likelihood rises where a perplexity falls); `None` in older reports."""


class Document(Model):
    """A document whose score changed most."""

    doc_id: int
    prompt: str
    gold: str
    baseline_answer: str
    candidate_answer: str
    baseline_score: float
    candidate_score: float
    contributions: dict[str, float]
    """By component label (`component_label`), in the surrogate's unit."""


class Task(Model):
    """One row of the leaderboard, and why."""

    task: str
    metric: str
    filter: str
    is_primary: bool = True
    """Whether this is the metric that the task's account is of; other metrics of the task are rows without one."""
    is_group: bool = False
    """Whether this is lm-eval's score of a group of tasks; it has no account of its own."""
    output_type: str
    higher_is_better: bool
    categories: tuple[str, ...]
    """From the YAML's `metadata.category`; shown, never used to name latents."""
    n: int
    baseline: float
    candidate: float
    ancestor: float | None = None
    gap: float
    interval: Interval
    p_value: float | None
    q_value: float | None
    """Benjamini–Hochberg over all rows, those of groups apart."""
    p_holm: float | None = None
    """Holm over the rows that are decided together: primary ones, groups, other metrics."""
    verdict: TaskVerdict
    mde: float | None = None
    """The smallest gap that this test finds with 80 % power (two-sided 5 %); `None` where nothing tells."""
    n_to_settle: int | None = None
    """Documents at which an inconclusive row would be decided, were gap and variance to stay as they are."""
    approximate: bool = False
    """Whether the interval lies outside the region in which its coverage was tried."""
    approximate_reason: str | None = None
    cluster: str | None = None
    """Field of the documents that says which are drawn together."""
    n_clusters: int | None = None
    """How many such clusters there are; `None` where every document is by itself."""
    surrogate: Surrogate | None
    not_tracked: float | None
    """gap − surrogate gap; `None` where the surrogate is in another unit."""
    interaction: float | None
    """Half of what is written under the candidate's upper layers minus under the baseline's, already shared out; `None`
    where one order was computed."""
    components: tuple[Component, ...]
    account_reason: str | None = None
    """Why there is no account, where `components` is empty."""
    upper_check: Ablation | None = None
    """lm-eval's own score of the candidate's layers above on the baseline's state, and what it differs by from the
    baseline's: the exact check of all that is read, the prior included."""
    completeness: float | None = None
    """Largest quadrature residual of a document, in the surrogate's unit."""
    n_accounted: int = 0
    """Documents in the account."""
    documents: tuple[Document, ...] = ()


def component_label(kind: str, category: str | None, origin: str | None = None) -> str:
    """The name of a component in tables and figures, for example `safety` or `error`."""
    name = category if kind == "latents" and category is not None else kind
    return f"{name} (read)" if origin == "read" else name
