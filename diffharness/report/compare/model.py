"""What a comparison of finished runs holds: `comparison.json`. Every run has a whole report of its own."""

from __future__ import annotations

from diffharness.report.schema.base import Interval, Model
from diffharness.report.schema.matrix import MatrixCell, MatrixPart, MatrixSum

COMPARISON_VERSION = "1.0"


class ComparedRun(Model):
    """One of the runs."""

    name: str
    """What it is called here: its candidate, or where two runs share that name its folder."""
    folder: str
    """As it was given."""
    schema_version: str
    created: str
    baseline: str
    candidate: str
    baseline_fingerprint: str
    candidate_fingerprint: str
    layer: int
    n_layers: int
    crosscoder: str | None
    """How well it reads the pair, in words; `None` where there is none."""
    has_documents: bool
    """Whether the contributions of single documents are there, which intervals of differences need."""
    page: str | None = None
    """Its report's page, relative to where the comparison was written."""


class TaskPart(Model):
    """A component of one run's account of a task that all runs share."""

    run: str
    task: str
    unit: str
    kind: str
    origin: str | None
    category: str | None
    contribution: float
    interval: Interval


class Difference(Model):
    """What a part contributes in one run, minus in the run that all are compared with."""

    run: str
    against: str
    unit: str
    task: str | None
    """`None`: summed over the tasks of the unit's sum."""
    kind: str
    """As of a component; `gap` for all parts together."""
    category: str | None
    difference: float
    """Written and read together, in the surrogate's unit."""
    written: float | None
    read: float | None
    interval: Interval | None
    """By drawing the same documents for both runs; it holds the error of the documents only."""
    reason: str | None
    """Why there is no interval."""
    p_value: float | None
    q_value: float | None
    """Benjamini–Hochberg over all differences of sums, or over all of single tasks."""
    apart_by_seeds: bool | None
    """Whether the two runs' ranges over crosscoder seeds do not overlap; `None` where a run has one seed."""
    is_clear: bool
    """Whether the interval excludes 0, `q_value` is at most 5 %, and seeds do not speak against it."""


class Comparison(Model):
    """Runs × tasks, categories × runs, and the differences from the first run."""

    schema_version: str = COMPARISON_VERSION
    created: str
    """ISO 8601, UTC."""
    command: str
    runs: tuple[ComparedRun, ...]
    """The first is the one that the others are compared with."""
    tasks: tuple[str, ...]
    """That at least two runs share."""
    common: tuple[str, ...]
    """That all runs share."""
    cells: tuple[MatrixCell, ...]
    sums: tuple[MatrixSum, ...]
    parts: tuple[MatrixPart, ...]
    accounts: tuple[TaskPart, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    """Tasks that can not be compared, or are in no sum, with the reason, a sentence each."""
    notes: tuple[str, ...]
    """What the runs do not have in common, a sentence each."""

    @property
    def candidates(self) -> tuple[ComparedRun, ...]:
        """The columns of the tables."""
        return self.runs
