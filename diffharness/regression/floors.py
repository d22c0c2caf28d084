"""Scores that have to reach a value, whatever the baseline's were, by the candidate's own one-sided interval."""

from __future__ import annotations

import math

import numpy as np

from diffharness.regression.columns import Column
from diffharness.regression.outcome import RuleResult, RuleVerdict
from diffharness.regression.policy import Floor
from diffharness.report.schema.base import Interval
from diffharness.statistics.distributions import normal_quantile, student_quantile


def decide_floor(floor: Floor, column: Column | str, *, higher_is_better: bool, alpha: float) -> RuleResult:
    """Decide one floor: passed where the whole one-sided interval reaches it, a regression where none of it does.

    Right and wrong: Wilson's interval, as vLLM's own gate; other means of numbers: Student's. Anything else has no
    interval of one side alone, and is an error.

    Args:
        floor: the value, and how far below it is accepted.
        column: the candidate's scores, or why there are none.
        higher_is_better: of the metric; else the value is a ceiling.
        alpha: one-sided.
    """
    name = f"{floor.task} {floor.metric} reaches {floor.value:g}"
    if isinstance(column, str) or column.kind != "mean":
        reason = column if isinstance(column, str) else f"it is made of {column.kind}, not a mean of documents"
        said = f"the score has no interval of its own: {reason}; leave the metric out of the file"
        return RuleResult(
            rule=name, kind="score", verdict="error", sentence=said, task=floor.task, metric=floor.metric, alpha=alpha
        )
    sign = 1.0 if higher_is_better else -1.0
    accepted = floor.tolerance * abs(floor.value)
    low, high, method = _interval(column.values_NC[:, 0], alpha)
    difference = sign * (column.score - floor.value)
    least, most = sorted((sign * (low - floor.value), sign * (high - floor.value)))
    verdict: RuleVerdict = "pass" if least >= -accepted else "regression" if most < -accepted else "inconclusive"
    reached = {"pass": "reaches", "regression": "does not reach", "inconclusive": "may or may not reach"}[verdict]
    limit = floor.value - sign * accepted
    return RuleResult(
        rule=name,
        kind="score",
        verdict=verdict,
        sentence=(
            f"{column.score:.4g} [{low:.4g}, {high:.4g}] {reached} {limit:.4g}, which is {floor.value:g} less "
            f"{floor.tolerance:.0%} of it"
            if higher_is_better
            else f"{column.score:.4g} [{low:.4g}, {high:.4g}] {reached} {limit:.4g}, which is {floor.value:g} and "
            f"{floor.tolerance:.0%} of it more"
        ),
        task=floor.task,
        metric=floor.metric,
        baseline=floor.value,
        candidate=column.score,
        difference=difference,
        interval=Interval(low=least, high=most, level=1 - 2 * alpha, method=method) if math.isfinite(least) else None,
        margin=accepted,
        alpha=alpha,
        n=column.n,
    )


def _interval(values_N: np.ndarray, alpha: float) -> tuple[float, float, str]:
    """Two one-sided bounds of a mean, and their method."""
    n, mean = len(values_N), float(values_N.mean())
    if bool(np.isin(values_N, (0.0, 1.0)).all()):
        z = float(normal_quantile(1 - alpha))
        middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half, "Wilson"
    if n < 2:
        return -math.inf, math.inf, "Student"
    half = float(student_quantile(1 - alpha, n - 1)) * float(values_N.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half, "Student"
