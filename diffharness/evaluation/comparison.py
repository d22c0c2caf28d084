"""Did the scores change: one row for every metric of every task, from the same documents on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diffharness.errors import RunError
from diffharness.evaluation.corpus_metrics import count, is_right
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, Value
from diffharness.statistics.bootstrap import bootstrap_statistic, percentile_interval
from diffharness.statistics.paired import PairedResult, paired_difference, paired_ratio

_RATIOS = ("bits_per_byte", "byte_perplexity", "word_perplexity")
"""Metrics of which a document has a log-likelihood and what it is divided by."""
_BOUNDED = ("f1", "mcc", "brier_score")
"""Metrics of a whole corpus whose score lies within −1 and 1."""
_MEANS = ("brier_score",)
"""Metrics that are means of what they make of a single document."""
_GENERIC_RESAMPLES = 500
"""Resamples of a metric that only lm-eval's own function can aggregate."""
_COUNTED_RESAMPLES = 2000
"""Resamples of a metric that is a function of counts."""

EffectKind = Literal["absolute", "relative", "logarithmic"]

Aggregation = Callable[[list[Any]], float]


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
    """The gap of one metric, with interval and test in pairs of documents.

    Raises:
        RunError: a score is not a number.
    """
    base, cand = baseline.of(task, metric.filter), candidate.of(task, metric.filter)
    ids = sorted(base)
    pairs = [base[i] for i in ids], [cand[i] for i in ids]
    b, c = baseline.task(task).scores[str(metric)], candidate.task(task).scores[str(metric)]
    if not (math.isfinite(b) and math.isfinite(c)):
        raise RunError(f"task {task!r}: {metric} is {b} and {c}, no numbers to compare; leave the metric or task out")
    result = _paired(metric, *pairs, aggregation, b, c, rng)
    values = [d.scalar(metric.metric) for side in pairs for d in side]
    bounded = metric.metric in _BOUNDED or (all(v is not None and 0 <= v <= 1 for v in values) and 0 <= b <= 1)
    kind: EffectKind = "absolute" if bounded else "logarithmic" if "perplexity" in metric.metric else "relative"
    return Comparison(task, metric, b, c, result, kind)


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
        if metric.metric in _RATIOS:
            return -value[0] / value[1] if value[1] else None
        return worth(value) if worth is not None else None
    if value is None or not math.isfinite(value):
        return None
    return -value if metric.metric == "perplexity" else value


def _paired(
    metric: MetricKey,
    base: list[DocumentScore],
    cand: list[DocumentScore],
    aggregation: Aggregation,
    b: float,
    c: float,
    rng: np.random.Generator,
) -> PairedResult:
    name, better = metric.metric, metric.higher_is_better
    raw = [[d.values[name] for d in side] for side in (base, cand)]
    scalar = all(isinstance(v, float) and math.isfinite(v) for side in raw for v in side)
    if scalar and name == "perplexity":
        sides = [np.stack([-np.asarray(side, dtype=float), np.ones(len(side))], axis=1) for side in raw]
        return paired_ratio(sides[0], sides[1], rng, transform=np.exp, higher_is_better=better)
    if scalar and np.allclose([np.mean(side) for side in raw], [b, c], rtol=0, atol=1e-9):
        return paired_difference(raw[0], raw[1], rng, higher_is_better=better)
    if name in _RATIOS:
        sides = [np.asarray(side, dtype=float) * [-1.0, 1.0] for side in raw]
        if name == "bits_per_byte":
            return paired_ratio(*(s / [math.log(2), 1.0] for s in sides), rng=rng, higher_is_better=better)
        return paired_ratio(*sides, rng=rng, transform=np.exp, higher_is_better=better)
    if name in _MEANS:
        each = [[float(aggregation([value])) for value in side] for side in raw]
        if np.allclose([np.mean(side) for side in each], [b, c], rtol=0, atol=1e-9):
            return paired_difference(each[0], each[1], rng, higher_is_better=better)
    return _recomputed(name, raw, aggregation, (b, c), rng)


def _recomputed(
    metric: str, raw: list[list[Any]], aggregation: Aggregation, scores: tuple[float, float], rng: np.random.Generator
) -> PairedResult:
    """Interval of a corpus metric, recomputed on resampled documents: by counts where it is made of such.

    Otherwise by lm-eval's own aggregation.
    """
    n = len(raw[0])
    counts = [count(metric, side, score) for side, score in zip(raw, scores, strict=True)]
    counted = [side for side in counts if side is not None]

    def by_counts(weights_RN: np.ndarray) -> np.ndarray:
        return counted[1].resampled(weights_RN) - counted[0].resampled(weights_RN)

    def by_aggregation(weights_RN: np.ndarray) -> np.ndarray:
        chosen = [np.repeat(np.arange(n), weights_N.astype(int)) for weights_N in weights_RN]
        base, cand = ([float(aggregation([side[i] for i in rows])) for rows in chosen] for side in raw)
        return np.subtract(cand, base)

    if len(counted) == 2:
        draws = bootstrap_statistic(by_counts, n, rng, _COUNTED_RESAMPLES)
    else:
        draws = bootstrap_statistic(by_aggregation, n, rng, _GENERIC_RESAMPLES)
    found = percentile_interval(draws, n=n)
    above = float((np.sum(draws > 0) + 0.5 * np.sum(draws == 0) + 0.5) / (len(draws) + 1))
    p_value = min(1.0, 2 * min(above, 1 - above))
    method = f"{found.method}, the metric recomputed"
    gap = scores[1] - scores[0]
    return PairedResult(gap, float(found.low), float(found.high), found.level, p_value, method, n, 0, 0)
