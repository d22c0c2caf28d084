"""The report's one data model: every view (terminal, Markdown, HTML, JSON) is made from it.

Lower case words are the design's: a gap is always candidate − baseline, a component is one part of a gap.
A value that can not be computed is `None` with a reason beside it; NaN is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = "1.1"

Side = Literal["baseline", "candidate", "ancestor"]
TaskVerdict = Literal["improved", "regressed", "no change", "inconclusive"]
LatentStatus = Literal["baseline-specific", "candidate-specific", "ancestor-specific", "shared", "other", "dead"]


class Model(BaseModel):
    """Base of all parts: unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Interval(Model):
    """A two-sided interval."""

    low: float
    high: float
    level: float = 0.95
    method: str = "paired percentile bootstrap over documents"

    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


class RunInfo(Model):
    """What was run."""

    name: str
    created: str
    """ISO 8601, UTC."""
    command: str
    """A command that reproduces the run."""
    layer: int
    """0-based index of the decoder block whose output was compared."""
    n_layers: int
    order: str
    """Whose upper stack the account uses, in words."""
    smallest_effect: float
    seed: int
    seconds: float
    """Wall time of the stages that ran."""
    notes: tuple[str, ...] = ()
    """What a reader has to know before the tables, in whole sentences."""


class ModelInfo(Model):
    """One of the models compared."""

    side: Side
    name: str
    model_args: str
    n_parameters: int
    n_layers: int
    hidden_size: int
    dtype: str
    fingerprint: str
    """Of the model's files, or of its Hub id and revision; first 16 hex digits of a SHA-256."""


class Comparability(Model):
    """Whether the two sides answered the same questions."""

    documents_equal: bool
    prompts_equal: bool
    tokenizers_equal: bool
    notes: tuple[str, ...] = ()


class Histogram(Model):
    """Counts between edges; `len(edges) == len(counts) + 1`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class CrosscoderQuality(Model):
    """How well one crosscoder reads its models, on tokens it was not trained on."""

    name: str
    """For example `baseline–candidate`."""
    models: tuple[Side, ...]
    n_latents: int
    k: int | None
    """Wanted mean number of active latents a token; `None` where the crosscoder's file does not say it."""
    l0: float
    """Measured mean number of active latents a token at the inference threshold."""
    threshold: float
    explained_variance: dict[str, float]
    """By side: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖², a ratio of sums."""
    dead_share: float
    """Share of latents that never fired on the held-out tokens."""
    decoder_cosine_median: float | None
    """Median cosine between the first two models' decoder vectors of a latent."""
    delta_norm: Histogram
    n_train_tokens: int
    n_heldout_tokens: int
    n_by_status: dict[str, int]
    """Number of latents by status (`LatentStatus`)."""


class Ablation(Model):
    """The exact check: the candidate with a category's latents put back to the baseline's version."""

    score: float
    """lm-eval's own metric of the candidate without the category's change."""
    change: float
    """candidate − `score`: what the category's change is worth in the real metric, the rest in place."""
    interval: Interval
    n: int


class Component(Model):
    """One part of a task's gap."""

    kind: Literal["latents", "bias", "error", "upper", "prior", "prompt"]
    origin: Literal["written", "read"] | None
    category: str | None
    """For `latents` only."""
    contribution: float
    """In the surrogate's unit."""
    contribution_raw: float
    """In the unit that the path integrates (log-odds or log-likelihood)."""
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
    verdict: TaskVerdict
    surrogate: Surrogate | None
    not_tracked: float | None
    """gap − surrogate gap; `None` where the surrogate is in another unit."""
    interaction: float | None
    """Half the difference of the two orders; `None` where one order was computed."""
    components: tuple[Component, ...]
    account_reason: str | None = None
    """Why there is no account, where `components` is empty."""
    completeness: float | None = None
    """Largest quadrature residual of a document, in the surrogate's unit."""
    n_accounted: int = 0
    """Documents in the account."""
    documents: tuple[Document, ...] = ()


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


class ReplayCheck(Model):
    """The validity gate: a model's upper layers, run from stored activations, against lm-eval's own answers."""

    task: str
    side: Side
    n: int
    """Sequences tried."""
    n_requests: int = 0
    """Requests with a log-likelihood to compare."""
    median: float | None
    maximum: float | None
    """Nats a scored token; `None` where no request has a log-likelihood."""
    tolerance: float
    """Of `maximum`."""
    median_tolerance: float | None = None
    n_decisions: int = 0
    """Decisions compared: is the answer the most likely one, which token comes next."""
    changed_share: float | None = None
    """Share of them that differ; `None` where there are none."""
    changed_tolerance: float | None = None
    holds: bool


class Rescored(Model):
    """Documents whose log-probability lm-eval's grouping of requests got wrong, scored again without it."""

    task: str
    side: Side
    n: int
    largest: float
    """Largest difference of a request's log-likelihood, in nats; both values are in `ledger.parquet`."""


class CorpusSource(Model):
    """What one source gave to the crosscoder's training texts."""

    source: str
    n_documents: int
    n_sequences: int
    n_tokens: int
    share: float


class Completeness(Model):
    """Quadrature residual over max(|written| + |upper|, 0.01 unit), over documents."""

    median: float
    percentile_99: float
    maximum: float
    n: int
    nodes: int
    """Gauss–Legendre nodes, the most that any batch needed."""


class Control(Model):
    """The account of one task again, with the naming or the encoder destroyed."""

    name: Literal["shuffled labels", "random encoder"]
    task: str
    category: str
    """The category with the largest written contribution of the gap's sign in the real account."""
    share: float | None
    """Its share of all that latents write, in the real account."""
    control_share: float | None
    """The same under the control (mean over shuffles)."""
    is_largest: float | None
    """How often the category is still the largest under the control, 0 to 1."""


class Validation(Model):
    """Can it be trusted."""

    completeness: Completeness | None
    replay: tuple[ReplayCheck, ...]
    rescored: tuple[Rescored, ...] = ()
    controls: tuple[Control, ...]
    mechanism_withheld: str | None = None
    """Why the mechanism section is withheld, where it is."""


class Provenance(Model):
    """What made this report."""

    versions: dict[str, str]
    platform: str
    config: dict[str, object]
    config_hash: str
    task_hashes: dict[str, str]


class Report(Model):
    """A leaderboard whose every row says why."""

    schema_version: str = SCHEMA_VERSION
    run: RunInfo
    models: tuple[ModelInfo, ...]
    comparability: Comparability
    quality: tuple[CrosscoderQuality, ...]
    tasks: tuple[Task, ...]
    categories: tuple[CategoryShift, ...]
    categories_reason: str | None = None
    """Why there is no category shift."""
    latents: tuple[Latent, ...]
    corpus: tuple[CorpusSource, ...] = ()
    validation: Validation
    provenance: Provenance

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read `report.json`, or the run folder that holds it."""
        path = Path(path)
        file = path / "report.json" if path.is_dir() else path
        return cls.model_validate_json(file.read_text(encoding="utf-8"))


def component_label(kind: str, category: str | None, origin: str | None = None) -> str:
    """The name of a component in tables and figures, for example `safety` or `error`."""
    name = category if kind == "latents" and category is not None else kind
    return f"{name} (read)" if origin == "read" else name
