"""What a metric needs of every document, so that a baseline file can hold it and a check can pair it.

Legend: N documents, C numbers a document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diffharness.evaluation.corpus_metrics import count
from diffharness.evaluation.measures import Means, Ratios, measure
from diffharness.evaluation.scores import DocumentScore, MetricKey

Aggregate = Literal["mean", "ratio", "exponential ratio"] | Callable[[np.ndarray], np.ndarray]
Kind = Literal["mean", "ratio", "exponential ratio", "labels", "texts"]
_LABELLED = ("f1", "mcc")


@dataclass(frozen=True)
class Column:
    """One metric of one side."""

    kind: Kind
    """A mean of numbers; a ratio of sums, or its exponential; a function of pairs of labels (gold and answer); or one
    of texts, which no file holds."""
    values_NC: np.ndarray
    score: float
    """What lm-eval made of all documents."""
    span: float | None
    """The most that one document's score can change."""
    pairs: tuple[Any, ...] = ()
    """Each document's (reference, answer), of `texts`."""

    @property
    def is_bounded(self) -> bool:
        """Whether the metric's score lies within known limits."""
        return self.span is not None or self.kind == "labels"

    def rounded(self) -> Column:
        """As a baseline file holds it: in single precision."""
        values = self.values_NC.astype(np.float32).astype(np.float64)
        return Column(self.kind, values, self.score, self.span, self.pairs)

    def taken(self, chosen: Sequence[int]) -> Column:
        """Some documents, in this order; their score is only known where it is a mean or a ratio of sums."""
        rows = np.asarray(chosen, dtype=np.int64)
        pairs = tuple(self.pairs[i] for i in chosen) if self.pairs else ()
        values = self.values_NC[rows] if len(self.values_NC) else self.values_NC
        whole = len(rows) == self.n and bool((rows == np.arange(self.n)).all())
        return Column(self.kind, values, self.score if whole else math.nan, self.span, pairs)

    @property
    def n(self) -> int:
        """Documents."""
        return len(self.pairs) or len(self.values_NC)


def column(metric: MetricKey, documents: Sequence[DocumentScore], score: float) -> Column | str:
    """What a metric is made of, or why it can not be compared again.

    Args:
        metric: whose.
        documents: of one side, in order; all values are numbers.
        score: what lm-eval made of them.
    """
    found = measure(metric, documents, documents, _aggregation(metric.metric), (score, score))
    if isinstance(found, Means):
        return Column("mean", found.base_N[:, None], score, found.span)
    if isinstance(found, Ratios):
        kind = "ratio" if found.transform is None else "exponential ratio"
        return Column(kind, found.base_N2, score, None)
    if found.counts is None:
        return "it is made by a function of the task's own, of more than a number a document"
    raw = found.raw[0]
    if metric.metric in _LABELLED:
        return Column("labels", np.asarray(raw, dtype=np.float64), score, None)
    return Column("texts", np.empty((0, 0)), score, None, tuple(raw))


@dataclass(frozen=True)
class Paired:
    """One metric of the same documents on both sides."""

    baseline: np.ndarray
    """(N,) of a mean, else (N, C)."""
    candidate: np.ndarray
    aggregate: Aggregate
    span: float | None


def paired(metric: str, base: Column, cand: Column) -> Paired | str:
    """Both sides' columns of the same documents, or why they do not go together.

    Args:
        metric: lm-eval's name.
        base: one side.
        cand: the other, the same documents in the same order.
    """
    if base.kind != cand.kind:
        return f"it is made of {base.kind} on one side and of {cand.kind} on the other"
    if base.kind == "mean":
        both = base.span is not None and cand.span is not None
        span = max(base.span or 0.0, cand.span or 0.0) if both else None
        return Paired(base.values_NC[:, 0], cand.values_NC[:, 0], "mean", span)
    if base.kind == "ratio" or base.kind == "exponential ratio":
        return Paired(base.values_NC, cand.values_NC, base.kind, None)
    raw = [list(side.pairs) if side.kind == "texts" else _label_pairs(side) for side in (base, cand)]
    whole = all(math.isfinite(side.score) for side in (base, cand))
    counts = count(metric, raw, [base.score, cand.score] if whole else None)
    if counts is None:
        return "counts of its documents do not give lm-eval's score"
    return Paired(counts[0].counts_NC, counts[1].counts_NC, counts[0].score, None)


def _label_pairs(side: Column) -> list[Any]:
    return [(int(gold), int(answer)) for gold, answer in side.values_NC]


def _aggregation(metric: str) -> Any:
    return _brier if metric == "brier_score" else _never


def _brier(values: Sequence[Any]) -> float:
    """lm-eval's: the squared distance between the choices' probabilities and the right one, a document's mean."""
    each = []
    for gold, probabilities in values:
        p = np.asarray(probabilities, dtype=np.float64)
        each.append(float(((p - np.eye(len(p))[int(gold)]) ** 2).sum()))
    return float(np.mean(each))


def _never(values: Sequence[Any]) -> float:
    raise ValueError(f"{len(values)} values of a metric that only lm-eval can aggregate")
