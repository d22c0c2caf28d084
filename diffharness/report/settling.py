"""What could have been seen, in words: smallest detectable gaps, documents that would settle a row, and which intervals
are approximate."""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.report.numbers import count, plain, small
from diffharness.report.schema import Report, Task
from diffharness.report.text import brief
from diffharness.report.view import by_severity

_MOST_NAMED = 5


def shown(report: Report) -> tuple[Task, ...]:
    """The rows of a short table: every task's primary metric, and groups; the most severe first."""
    return by_severity(tuple(task for task in report.tasks if task.is_primary or task.is_group))


def settling_sentence(report: Report) -> str | None:
    """How many documents would decide what is undecided; none where nothing is, or nothing tells."""
    parts = [
        f"{brief(task.task, 60)} at about {count(task.n_to_settle)} documents (now {count(task.n)})"
        for task in shown(report)
        if task.n_to_settle is not None
    ]
    return None if not parts else f"undecided rows would be decided, were they to go on alike: {_listed(parts)}"


def approximate_sentence(report: Report) -> str | None:
    """Whose interval may cover less than it says, and why; none where none may."""
    by_reason: dict[str, list[str]] = {}
    for task in shown(report):
        if task.approximate:
            reason = task.approximate_reason or "no reason was recorded"
            by_reason.setdefault(reason, []).append(brief(task.task, 60))
    parts = [f"{_listed(names)} ({reason})" for reason, names in by_reason.items()]
    return None if not parts else f"approximate intervals: {_listed(parts)}"


def interval_reason(task: Task) -> str:
    """How a row's interval was made, and what it could have found."""
    parts = [task.interval.method] if task.interval.method else []
    if task.cluster is not None and task.n_clusters is not None:
        parts.append(f"documents with the same {task.cluster} are drawn together")
    if task.p_value is not None:
        corrected = "" if task.p_holm is None else f", {small(task.p_holm)} corrected for all rows decided on (Holm)"
        parts.append(f"p = {small(task.p_value)}{corrected}")
    if task.mde is not None:
        parts.append(f"a gap of {plain(task.mde)} would be found in four of five such samples")
    if task.n_to_settle is not None:
        parts.append(f"about {count(task.n_to_settle)} documents would decide it")
    if task.approximate:
        parts.append(f"approximate: {task.approximate_reason or 'no reason was recorded'}")
    return "; ".join(parts)


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _MOST_NAMED} more" if len(parts) > _MOST_NAMED else ""
    return ", ".join(parts[:_MOST_NAMED]) + more
