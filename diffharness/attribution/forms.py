"""From two evaluations of a task to documents that can be accounted for: which tokens, which surrogate.

One account a task, on its primary metric. Table of the design, "Surrogates M of the metric".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from diffharness.attribution.batches import DocumentForm, Span
from diffharness.attribution.surrogates import Choice, LogLikelihood, Preference, TargetProbability
from diffharness.evaluation.ledger import Reading
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, Value

DocumentValue = Callable[[Value], float | None]
"""What one document's value is worth by itself, for metrics that are of a whole task."""

_WHOLE_TASK_CHOICES = ("f1", "mcc", "brier_score", "likelihood")
"""Metrics of choices that make no right or wrong of a document."""
_ROLLING_METRICS = ("bits_per_byte", "byte_perplexity", "word_perplexity")


@dataclass(frozen=True)
class TaskForms:
    """A task's documents as functions of activations."""

    name: str
    """What the surrogate is, in words."""
    unit: str
    higher_is_better: bool
    forms: tuple[DocumentForm, ...]
    constant: dict[int, float]
    """Documents whose score can not differ between the models' stacks (equal answers): their M, by `doc_id`."""
    weights: dict[int, float]
    """What a document weighs in the task's score: its bytes where the score is a ratio, else 1."""


@dataclass(frozen=True)
class RepeatedPreference(Preference):
    """Generated answers with repeats: m is the mean over pairs, repeat r of one side against repeat r of the other.

    Readings: of each pair whose answers differ, the baseline's, then the candidate's.
    """

    n_repeats: int

    @property
    def n_pairs(self) -> int:
        """Pairs of answers, those that are equal included."""
        return self.n_repeats

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """Mean log-odds; pairs of equal answers count as 0."""
        return (log_likelihood_R[1::2] - log_likelihood_R[0::2]).sum() / self.n_repeats


class NoAccountError(Exception):
    """Why a task has no account; shown in the report in place of one."""


def task_forms(
    task: str,
    metric: MetricKey,
    baseline: Evaluation,
    candidate: Evaluation,
    document_value: DocumentValue | None = None,
) -> TaskForms:
    """The task's documents under its primary metric.

    Args:
        task: its name.
        metric: the primary metric.
        baseline: one side's answers.
        candidate: the other's.
        document_value: makes a number of a generated answer's value where the metric is of the whole task
            (`evaluation.comparison.document_value`).

    Raises:
        NoAccountError: the metric has no surrogate, or the two sides did not read the same prompts.
    """
    output_type = baseline.task(task).output_type
    scores = baseline.of(task, metric.filter)
    sides = baseline.ledger.by_document(task), candidate.ledger.by_document(task)
    if sorted(sides[0]) != sorted(sides[1]):
        raise NoAccountError("the two sides answered different documents")
    if output_type == "generate_until":
        return _generated(metric, sides, scores, candidate.of(task, metric.filter), document_value)
    for doc_id, readings in sides[0].items():
        if [(r.ids, r.start) for r in readings] != [(r.ids, r.start) for r in sides[1][doc_id]]:
            raise NoAccountError(f"the two sides read different prompts (first in document {doc_id})")
    if output_type == "multiple_choice":
        return _multiple_choice(metric, sides[0], scores)
    if output_type == "loglikelihood":
        return _target(metric, sides[0])
    if output_type == "loglikelihood_rolling":
        return _rolling(metric, sides[0], scores)
    raise NoAccountError(f"output type {output_type!r} has no surrogate")


def _spans(readings: Sequence[Reading]) -> tuple[Span, ...]:
    return tuple(Span(r.ids, r.start, r.targets) for r in readings)


def _multiple_choice(
    metric: MetricKey, readings: dict[int, list[Reading]], scores: dict[int, DocumentScore]
) -> TaskForms:
    divide = {
        "acc": lambda _: 1.0,
        "acc_mutual_info": lambda _: 1.0,
        "acc_norm": lambda choice: float(len(choice)),
        "acc_bytes": lambda choice: float(len(choice.encode())),
        **dict.fromkeys(_WHOLE_TASK_CHOICES, lambda _: 1.0),
    }.get(metric.metric)
    if divide is None:
        raise NoAccountError(f"metric {metric.metric!r} of a multiple_choice task has no surrogate")
    forms, constant = [], {}
    for doc_id, rows in readings.items():
        score = scores[doc_id]
        n = len(score.choices)
        if not 0 < len(score.gold) < n:
            constant[doc_id] = float(len(score.gold) == n and n > 0)
            continue
        unconditional = metric.metric == "acc_mutual_info"
        surrogate = Choice(score.gold, tuple(divide(c) for c in score.choices), unconditional)
        forms.append(DocumentForm(doc_id, _spans(rows if unconditional else rows[:n]), surrogate))
    name = "probability of the right choice"
    if metric.metric in _WHOLE_TASK_CHOICES:
        name += f", in place of the task's {metric.metric}"
    return TaskForms(name, "probability", True, tuple(forms), constant, dict.fromkeys(readings, 1.0))


def _target(metric: MetricKey, readings: dict[int, list[Reading]]) -> TaskForms:
    weights = dict.fromkeys(readings, 1.0)
    if metric.metric in ("acc", "exact_match"):
        forms = tuple(DocumentForm(d, _spans(rows), TargetProbability()) for d, rows in readings.items())
        return TaskForms("probability of the target", "probability", True, forms, {}, weights)
    if metric.metric == "perplexity":
        forms = tuple(
            DocumentForm(d, _spans(rows), LogLikelihood(1 / len(rows[0].targets), float(len(rows[0].targets))))
            for d, rows in readings.items()
        )
        return TaskForms("log-likelihood of the target", "nats", True, forms, {}, weights)
    raise NoAccountError(f"metric {metric.metric!r} of a loglikelihood task has no surrogate")


def _rolling(metric: MetricKey, readings: dict[int, list[Reading]], scores: dict[int, DocumentScore]) -> TaskForms:
    if metric.metric not in _ROLLING_METRICS:
        raise NoAccountError(f"metric {metric.metric!r} of a loglikelihood_rolling task has no surrogate")
    n_bytes = {d: float(len(scores[d].prompt.encode())) for d in readings}
    scale = -len(readings) / (math.log(2) * sum(n_bytes.values()))
    forms = tuple(DocumentForm(d, _spans(rows), LogLikelihood(1.0, scale)) for d, rows in readings.items())
    return TaskForms("bits per byte", "bits per byte", False, forms, {}, n_bytes)


def _generated(
    metric: MetricKey,
    sides: tuple[dict[int, list[Reading]], dict[int, list[Reading]]],
    baseline: dict[int, DocumentScore],
    candidate: dict[int, DocumentScore],
    document_value: DocumentValue | None,
) -> TaskForms:
    forms, constant = [], {}
    n_repeats, alone = 1, False
    for doc_id, rows in sides[0].items():
        pairs = _pairs(doc_id, rows, sides[1][doc_id])
        n_repeats = max(n_repeats, len(pairs))
        alone = alone or baseline[doc_id].scalar(metric.metric) is None
        r_b, r_c = (document_score(side[doc_id], metric, document_value) for side in (baseline, candidate))
        different = [(own, other) for own, other in pairs if own.targets != other.targets]
        if r_b == r_c or not different:
            constant[doc_id] = r_b
            continue
        spans = tuple(span for own, other in different for span in _answers_from_first_difference(own, other))
        surrogate = Preference(r_b, r_c) if len(pairs) == 1 else RepeatedPreference(r_b, r_c, len(pairs))
        forms.append(DocumentForm(doc_id, spans, surrogate))
    name = "expected score of choosing between the two recorded answers"
    if alone:
        name += f", each document's {metric.metric} by itself"
    if n_repeats > 1:
        name += f", log-odds averaged over {n_repeats} pairs of repeats"
    weights = dict.fromkeys(sides[0], 1.0)
    return TaskForms(name, "score", metric.higher_is_better, tuple(forms), constant, weights)


def _pairs(doc_id: int, rows: list[Reading], others: list[Reading]) -> list[tuple[Reading, Reading]]:
    """Repeat r of the baseline's answers with repeat r of the candidate's."""
    if [r.repeat for r in rows] != [r.repeat for r in others]:
        raise NoAccountError(f"the two sides answered document {doc_id} unequally often")
    for own, other in zip(rows, others, strict=True):
        if own.ids[: own.start + 1] != other.ids[: other.start + 1]:
            raise NoAccountError(f"the two sides read different prompts (first in document {doc_id})")
    return list(zip(rows, others, strict=True))


def document_score(score: DocumentScore, metric: MetricKey, document_value: DocumentValue | None) -> float:
    """One document's metric, whatever it takes to make a number of it."""
    found = score.scalar(metric.metric)
    if found is None and document_value is not None and metric.metric in score.values:
        found = document_value(score.values[metric.metric])
    if found is None or not math.isfinite(found):
        raise NoAccountError(f"metric {metric.metric!r} has no number for a single document")
    return found


def _answers_from_first_difference(own: Reading, other: Reading) -> tuple[Span, Span]:
    """Both answers, scored from the first token in which they differ to the stop."""
    same = 0
    while same < min(len(own.targets), len(other.targets)) and own.targets[same] == other.targets[same]:
        same += 1
    first, second = (Span(r.ids, r.start + same, r.targets[same:]) for r in (own, other))
    return first, second
