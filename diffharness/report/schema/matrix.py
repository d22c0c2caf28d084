"""One baseline and many candidates: what `matrix.json` holds. Every candidate has a whole report of its own."""

from __future__ import annotations

from pathlib import Path

from diffharness.report.schema.base import Interval, Model, TaskVerdict

MATRIX_VERSION = "1.0"


class MatrixCandidate(Model):
    """One of the models compared with the baseline."""

    name: str
    """What it is called here; its run lies in the folder of this name."""
    model: str
    report: str
    """Its report's page, relative to the matrix."""
    withheld: str | None
    """Why there are scores only, where its mechanism is withheld."""
    explained_variance: dict[str, float]
    """Of the pair, by the shared crosscoder cut down to it; none where the mechanism is withheld."""
    l0: float | None
    """Mean number of active latents a token, of the pair."""


class MatrixCell(Model):
    """A task's gap of one candidate, on the task's primary metric."""

    candidate: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    n: int
    baseline_score: float
    candidate_score: float
    gap: float
    interval: Interval
    p_value: float | None
    p_holm: float | None
    """Holm over all cells of the matrix that have a p-value."""
    verdict: TaskVerdict
    """As the candidate's own report says, without regard to the other candidates."""
    is_decided: bool
    """Whether it improved or regressed and `p_holm` is at most 5 %: a change that holds among all cells."""
    approximate: bool


class MatrixSum(Model):
    """What a candidate's categories are summed over: its tasks in one unit that moved and have an account."""

    candidate: str
    unit: str
    gap: float
    """Sum of these tasks' surrogate gaps; all parts of this candidate and unit add up to it."""
    tasks: tuple[str, ...]
    share_reason: str | None
    """Why there are no shares, where there are none."""


class MatrixPart(Model):
    """What one category (or the bias, an error, the prior, the prompt) carries of a candidate's summed gaps."""

    candidate: str
    unit: str
    kind: str
    category: str | None
    """For `latents` only."""
    contribution: float
    """Written and read together, summed over the tasks."""
    written: float | None
    read: float | None
    """`None` for what has no such part."""
    interval: Interval | None
    """Of the sum, by drawing each task's documents anew; `None` where documents weigh differently."""
    share: float | None
    """contribution / summed gap."""


class SharedCrosscoder(Model):
    """The one crosscoder over all models."""

    n_latents: int
    l0: float
    explained_variance: dict[str, float]
    """By side: the baseline's and every candidate's."""


class Matrix(Model):
    """Candidates × tasks, and categories × candidates."""

    schema_version: str = MATRIX_VERSION
    created: str
    """ISO 8601, UTC."""
    command: str
    baseline: str
    layer: int
    """0-based index of the decoder block whose output was compared."""
    n_layers: int
    smallest_effect: float
    candidates: tuple[MatrixCandidate, ...]
    tasks: tuple[str, ...]
    cells: tuple[MatrixCell, ...]
    sums: tuple[MatrixSum, ...]
    parts: tuple[MatrixPart, ...]
    left_out: tuple[str, ...] = ()
    """Tasks that moved and are in no sum, with the reason, a sentence each."""
    crosscoder: SharedCrosscoder
    names_from: str
    """Where the latents' names come from, in words."""
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Matrix:
        """Read `matrix.json`, or the folder that holds it."""
        path = Path(path)
        file = path / "matrix.json" if path.is_dir() else path
        return cls.model_validate_json(file.read_text(encoding="utf-8"))
