"""What the report says of its own checks."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Model, Side


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
    """The category with the largest contribution (written and read) of the gap's sign in the real account."""
    share: float | None
    """Its share of all that latents carry, in the real account."""
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
