"""The leaderboard's rows, and which of their gaps are real."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.assembly.numbers import number
from diffharness.statistics.multiple import benjamini_hochberg, holm
from diffharness.statistics.paired import Verdict, verdict
from diffharness.statistics.power import documents_to_settle

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
        "standard_error": result.standard_error,
        "mde": result.detectable,
        "n_clusters": result.n_clusters,
        "cluster": None,
        "approximate_reason": result.approximate_reason,
        "is_group": False,
        "is_primary": is_primary,
        "effect_kind": found.effect_kind,
        "hash": info.hash,
    }


def row_verdict(row: Mapping[str, Any], smallest_effect: float) -> Verdict:
    """improved, regressed, no change or inconclusive."""
    from diffharness.evaluation.comparison import effect_size

    effect = effect_size(row["effect_kind"], row["baseline"], smallest_effect)
    return verdict(row["gap"], row["low"], row["high"], effect, row["higher_is_better"])


def row_n_to_settle(row: Mapping[str, Any], smallest_effect: float) -> int | None:
    """For an inconclusive row the documents that would decide it, were gap and variance to stay; else `None`."""
    from diffharness.evaluation.comparison import effect_size

    if row_verdict(row, smallest_effect) != "inconclusive":
        return None
    effect = effect_size(row["effect_kind"], row["baseline"], smallest_effect)
    return documents_to_settle(
        row["gap"], row["low"], row["high"], row["n"], effect,
        standard_error=row["standard_error"], level=row["level"],
    )  # fmt: skip


def decisions(rows: Sequence[Mapping[str, Any]], smallest_effect: float) -> list[dict[str, Any]]:
    """What the report says of every row once all are known, as fields of its `Task`.

    Families are apart: Benjamini–Hochberg over groups and over everything else; Holm over the tasks' primary metrics,
    over groups, and over other metrics.
    """
    q_values = _by_family(rows, benjamini_hochberg, [row["is_group"] for row in rows])
    p_holm = _by_family(rows, holm, [(row["is_group"], row["is_primary"]) for row in rows])
    kept = ("is_group", "mde", "approximate_reason", "cluster", "n_clusters")
    return [
        {
            **{name: row[name] for name in kept},
            "q_value": q,
            "p_holm": p,
            "verdict": row_verdict(row, smallest_effect),
            "n_to_settle": row_n_to_settle(row, smallest_effect),
            "approximate": row["approximate_reason"] is not None,
        }
        for row, q, p in zip(rows, q_values, p_holm, strict=True)
    ]


def _by_family(
    rows: Sequence[Mapping[str, Any]], correct: Callable[[np.ndarray], np.ndarray], families: Sequence[Hashable]
) -> list[float | None]:
    adjusted: list[float | None] = [None] * len(rows)
    for family in set(families):
        members = [i for i, one in enumerate(families) if one == family]
        for i, p in zip(members, correct(np.array([rows[i]["p_value"] for i in members], dtype=float)), strict=True):
            adjusted[i] = number(float(p))
    return adjusted


def moved_tasks(rows: Sequence[Mapping[str, Any]], smallest_effect: float) -> set[str]:
    """Tasks whose primary gap is real."""
    return {
        row["task"]
        for row in rows
        if row["is_primary"] and row_verdict(row, smallest_effect) in ("improved", "regressed")
    }
