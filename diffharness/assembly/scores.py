"""The leaderboard's rows, and which of their gaps are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffharness.assembly.numbers import number
from diffharness.statistics.paired import Verdict, verdict

if TYPE_CHECKING:
    from diffharness.evaluation.comparison import Comparison
    from diffharness.evaluation.scores import TaskInfo


def scored_row(info: TaskInfo, found: Comparison, ancestor: float | None, *, is_primary: bool) -> dict[str, Any]:
    """One metric of a task as JSON, without a verdict: that depends on the smallest effect asked for.

    `effect_kind` says what a smallest effect means for the metric.
    """
    result = found.result
    return {
        "task": info.name,
        "metric": found.metric.metric,
        "filter": found.metric.filter,
        "output_type": info.output_type,
        "higher_is_better": found.metric.higher_is_better,
        "categories": list(info.categories),
        "n": result.n,
        "baseline": found.baseline,
        "candidate": found.candidate,
        "ancestor": ancestor,
        "gap": found.candidate - found.baseline,
        "low": result.low,
        "high": result.high,
        "level": result.level,
        "method": result.method,
        "p_value": number(result.p_value),
        "n_better": result.n_better,
        "n_worse": result.n_worse,
        "is_primary": is_primary,
        "effect_kind": found.effect_kind,
        "hash": info.hash,
    }


def row_verdict(row: Mapping[str, Any], smallest_effect: float) -> Verdict:
    """improved, regressed, no change or inconclusive."""
    from diffharness.evaluation.comparison import effect_size

    effect = effect_size(row["effect_kind"], row["baseline"], smallest_effect)
    return verdict(row["gap"], row["low"], row["high"], effect, row["higher_is_better"])


def moved_tasks(rows: Sequence[Mapping[str, Any]], smallest_effect: float) -> set[str]:
    """Tasks whose primary gap is real."""
    return {
        row["task"]
        for row in rows
        if row["is_primary"] and row_verdict(row, smallest_effect) in ("improved", "regressed")
    }
