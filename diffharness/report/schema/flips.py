"""Documents whose score changed, sorted by what their answers show."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Model

FlipKindName = Literal[
    "refused",
    "ran on past the answer",
    "language switched",
    "truncated",
    "empty",
    "wrong format",
    "position",
    "answer differs",
]


class FlipExample(Model):
    """A document whose score changed."""

    doc_id: int
    is_loss: bool
    baseline_answer: str
    """As it was written, the beginning."""
    candidate_answer: str
    gold: str
    evidence: tuple[str, ...]
    """All that the answer of the side with the worse score shows, what decided first."""


class FlipKind(Model):
    """The documents of one kind."""

    kind: FlipKindName
    n_lost: int
    n_gained: int
    gap: float | None
    """Sum of their score differences over all documents of the task: their part of the gap, in the metric's unit."""
    n_accounted: int
    """How many of them are in the account."""
    contributions: dict[str, float]
    """By component label, the mean over those; in the surrogate's unit."""
    examples: tuple[FlipExample, ...]


class PositionShift(Model):
    """The place among the choices that answers moved to most; 0-based."""

    position: int
    n: int
    baseline: float
    """Share of the answers at that place."""
    candidate: float
    right: float
    """Share of the right answers at that place."""
    p_value: float
    q_value: float
    """Benjamini–Hochberg over all multiple-choice tasks."""
    moved: bool


class FlipKinds(Model):
    """A task's documents whose score changed."""

    task: str
    metric: str
    n: int
    """Documents."""
    n_flips: int
    n_lost: int
    n_gained: int
    kinds: tuple[FlipKind, ...]
    """In the order of precedence; those that no document is of are left out."""
    reason: str | None = None
    """Why there are no kinds, or what has to be known of them."""
    gap_reason: str | None = None
    """Why the kinds have no gap."""
    position: PositionShift | None = None
