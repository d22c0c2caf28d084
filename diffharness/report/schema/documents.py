"""Documents whose score changed: both answers, the account of each, and which tokens it comes from."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Model
from diffharness.report.schema.flips import FlipKindName


class TokenColumn(Model):
    """What a number at every token is of."""

    kind: Literal["latents", "other", "bias", "error"]
    """`other`: the latents of all categories that have no column of their own."""
    category: str | None
    """For `latents` only."""
    sum: float
    """Over all positions, written and read together; in the surrogate's unit."""


class TokenSegment(Model):
    """A stretch of what the models read: the prompt, an answer, a choice. Positions far from strong ones are cut."""

    name: str
    n_tokens: int
    """Positions, those left out too."""
    places: tuple[int, ...]
    """Of every piece's first token, from 0 at the segment's beginning."""
    lengths: tuple[int, ...]
    """Tokens of every piece: more than one where they make up one character."""
    texts: tuple[str, ...]
    """Of every piece, as it reads in the text."""
    values: tuple[tuple[float, ...], ...]
    """By column, of every piece; to four digits."""
    left_out: tuple[float, ...]
    """By column, the sum over positions left out."""


class FlippedDocument(Model):
    """A document whose score changed."""

    doc_id: int
    is_loss: bool
    kind: FlipKindName | None = None
    """What the answer with the worse score shows; `None` where there is no free answer to tell it from."""
    prompt: str
    """Its end."""
    gold: str
    baseline_answer: str
    candidate_answer: str
    baseline_score: float
    """In the metric's unit."""
    candidate_score: float
    baseline_surrogate: float
    candidate_surrogate: float
    contributions: dict[str, float]
    """By component label (`component_label`), in the surrogate's unit."""
    residual: float
    """What the quadrature missed."""
    columns: tuple[TokenColumn, ...]
    """The categories with the largest contributions first, then `other`, `bias`, `error`; with `prior` and `residual`
    they add up to the surrogate's difference."""
    segments: tuple[TokenSegment, ...]


class OtherFlips(Model):
    """Documents whose score changed too, and why their tokens are not shown."""

    reason: str
    lost: tuple[int, ...]
    """`doc_id`s."""
    gained: tuple[int, ...]


class TaskDocuments(Model):
    """The flipped documents of a task with a gap."""

    task: str
    metric: str
    unit: str | None
    """Of the surrogate; `None` where the task has no account."""
    documents: tuple[FlippedDocument, ...]
    """In the direction of the task's gap first; of these, those whose surrogate moved most first."""
    others: tuple[OtherFlips, ...] = ()
