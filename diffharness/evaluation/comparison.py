"""Did the scores change: one row for every metric of every task, from the same documents on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffharness.errors import RunError
from diffharness.evaluation.corpus_metrics import is_right
from diffharness.evaluation.measures import RATIOS, Aggregation, Measure, measure
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, Value
from diffharness.statistics.paired import PairedResult

_BOUNDED = ("f1", "mcc", "brier_score")
"""Metrics of a whole corpus whose score lies within −1 and 1."""
EffectKind = Literal["absolute", "relative", "logarithmic"]


@dataclass(frozen=True)
class Comparison:
    """One metric of one task on both sides."""

    task: str
    metric: MetricKey
    baseline: float
    candidate: float
    result: PairedResult
    effect_kind: EffectKind


@dataclass(frozen=True)
class Comparability:
    """Whether both sides were asked the same."""

    documents_equal: bool
    prompts_equal: bool
    notes: tuple[str, ...]


def comparability(baseline: Evaluation, candidate: Evaluation) -> Comparability:
    """Compare the two evaluations' documents and prompts.

    Raises:
        RunError: a task has other documents on the other side.
    """
    notes = []
    prompts_equal = True
    for info in baseline.tasks:
        base = {d.doc_id: d for d in baseline.documents if d.task == info.name}
        cand = {d.doc_id: d for d in candidate.documents if d.task == info.name}
        if {i: d.doc_hash for i, d in base.items()} != {i: d.doc_hash for i, d in cand.items()}:
            raise RunError(
                f"task {info.name!r} has other documents on the candidate's side; evaluate both with the same "
                "task version and --limit"
            )
        different = [i for i, d in base.items() if cand[i].prompt_hash != d.prompt_hash]
        if different:
            prompts_equal = False
            notes.append(f"{info.name}: {len(different)} of {len(base)} documents have different prompts")
    return Comparability(documents_equal=True, prompts_equal=prompts_equal, notes=tuple(notes))


def compare(
    task: str,
    metric: MetricKey,
    baseline: Evaluation,
    candidate: Evaluation,
    aggregation: Aggregation,
    rng: np.random.Generator,
) -> Comparison:
    """The gap of one metric, with interval and test in pairs of documents, or of clusters of them where they have such.

    Raises:
        RunError: a score is not a number.
    """
    base, _ = documents(task, metric, baseline, candidate)
    b, c = (side.task(task).scores[str(metric)] for side in (baseline, candidate))
    made = measured(task, metric, baseline, candidate, aggregation)
    result = made.result(rng, clusters(base), better=metric.higher_is_better)
    return Comparison(task, metric, b, c, result, effect_kind(task, metric, baseline, candidate))


def effect_kind(task: str, metric: MetricKey, baseline: Evaluation, candidate: Evaluation) -> EffectKind:
    """What a smallest effect is compared with: see `effect_size`."""
    values = [d.scalar(metric.metric) for side in documents(task, metric, baseline, candidate) for d in side]
    within = all(v is not None and 0 <= v <= 1 for v in values) and 0 <= baseline.task(task).scores[str(metric)] <= 1
    if metric.metric in _BOUNDED or within:
        return "absolute"
    return "logarithmic" if "perplexity" in metric.metric else "relative"


def measured(
    task: str, metric: MetricKey, baseline: Evaluation, candidate: Evaluation, aggregation: Aggregation
) -> Measure:
    """How a metric is made of a task's documents.

    Raises:
        RunError: a score is not a number.
    """
    b, c = (side.task(task).scores[str(metric)] for side in (baseline, candidate))
    if not (math.isfinite(b) and math.isfinite(c)):
        raise RunError(f"task {task!r}: {metric} is {b} and {c}, no numbers to compare; leave the metric or task out")
    return measure(metric, *documents(task, metric, baseline, candidate), aggregation, (b, c))


def documents(
    task: str, metric: MetricKey, baseline: Evaluation, candidate: Evaluation
) -> tuple[list[DocumentScore], list[DocumentScore]]:
    """A task's documents on both sides, in one order."""
    base, cand = baseline.of(task, metric.filter), candidate.of(task, metric.filter)
    ids = sorted(base)
    return [base[i] for i in ids], [cand[i] for i in ids]


def clusters(scores: Sequence[DocumentScore]) -> list[str] | None:
    """Each document's cluster; `None` where documents are by themselves."""
    names = [d.cluster for d in scores if d.cluster is not None]
    return names if names and len(names) == len(scores) else None


def effect_size(kind: EffectKind, baseline: float, smallest_effect: float) -> float:
    """What `--smallest-effect` means for a metric, in its unit.

    Absolute for scores between 0 and 1; for others relative to the baseline's score, or to its logarithm for a
    perplexity: 0.02 is 2 % of the loss.
    """
    if kind == "absolute":
        return smallest_effect
    if kind == "logarithmic":
        return baseline * -math.expm1(-smallest_effect * abs(math.log(baseline)))
    return smallest_effect * abs(baseline)


def document_value(aggregation: Aggregation) -> Callable[[Value], float | None]:
    """What one document's value is worth by itself, for metrics that are of a whole task.

    A pair of labels (f1, mcc): 1 if they agree, else 0. Anything else: the task's aggregation of that document
    alone; `None` where it makes no number of one document.
    """

    def worth(value: Value) -> float | None:
        right = is_right(value)
        if right is not None:
            return right
        try:
            found = float(aggregation([value]))
        except (TypeError, ValueError, ArithmeticError, IndexError):
            return None
        return found if math.isfinite(found) else None

    return worth


def document_metric(
    score: DocumentScore, metric: MetricKey, worth: Callable[[Value], float | None] | None = None
) -> float | None:
    """One document's value in the direction of the task's metric, or `None`; for ranks, not for sums.

    `worth` (see `document_value`) makes a number of the values of metrics that are of a whole task.
    """
    value = score.values.get(metric.metric)
    if isinstance(value, tuple):
        if metric.metric in RATIOS:
            return -value[0] / value[1] if value[1] else None
        return worth(value) if worth is not None else None
    if value is None or not math.isfinite(value):
        return None
    return -value if metric.metric == "perplexity" else value
