"""A comparison's sentences and the order of its rows."""

from __future__ import annotations

from urllib.parse import quote

from diffharness.report.compare.model import ComparedRun, Comparison, Difference
from diffharness.report.numbers import interval, signed
from diffharness.report.schema import component_label
from diffharness.report.text import brief

_UNCLEAR = "unclear"
MOST_TASKS = 2
"""Tasks that a difference of sums is traced to."""


def headline(comparison: Comparison) -> str:
    """How much is shared, and which category differs most."""
    n_common, n_tasks = len(comparison.common), len(comparison.tasks)
    shared = f"{n_common} task{'' if n_common == 1 else 's'} in common"
    if n_common < n_tasks:
        shared += f" and {n_tasks - n_common} more that some share"
    start = f"{len(comparison.runs)} runs, {shared}"
    clear = [d for d in ranked(comparison) if d.is_clear and d.kind == "latents" and d.category != _UNCLEAR]
    if not clear:
        return f"{start}: no category is known to contribute differently"
    most = clear[0]
    return (
        f"{start}: {brief(most.category or '', 60)} differs most, {signed(most.difference)} {interval(most.interval)} "
        f"in {brief(most.run, 60)} against {brief(most.against, 60)}"
    )


def ranked(comparison: Comparison) -> list[Difference]:
    """Differences of sums, without those of all parts together: the largest first."""
    sums = [d for d in comparison.differences if d.task is None and d.kind != "gap"]
    return sorted(sums, key=lambda d: (-abs(d.difference), d.kind, d.category or "", d.run))


def of_gaps(comparison: Comparison) -> list[Difference]:
    """Differences of sums of all parts together, in the runs' order."""
    return [d for d in comparison.differences if d.task is None and d.kind == "gap"]


def of_task(comparison: Comparison, task: str) -> list[Difference]:
    """One task's differences, that of its gap last, else the largest first."""
    own = [d for d in comparison.differences if d.task == task]
    return sorted(own, key=lambda d: (d.kind == "gap", -abs(d.difference), d.category or "", d.run))


def part_label(difference: Difference) -> str:
    """`safety`, `error`, `gap`."""
    return component_label(difference.kind, difference.category)


def word(difference: Difference) -> str:
    """Whether the runs differ, as a table says it."""
    if difference.is_clear:
        return "differs"
    if difference.interval is None:
        return "no interval"
    if difference.apart_by_seeds is False:
        return "seeds differ as much"
    return "not clear"


def traced(comparison: Comparison, difference: Difference) -> str:
    """The tasks that a difference of sums is largest in: `organism_safety −0.310, organism_facts +0.020`."""
    own = [
        d
        for d in comparison.differences
        if d.task is not None
        and (d.run, d.unit, d.kind, d.category)
        == (difference.run, difference.unit, difference.kind, difference.category)
    ]
    largest = sorted(own, key=lambda d: -abs(d.difference))[:MOST_TASKS]
    return ", ".join(f"{brief(d.task or '', 60)} {signed(d.difference)}" for d in largest)


def reasons(comparison: Comparison) -> list[str]:
    """Why differences have no interval, each reason once."""
    return list(dict.fromkeys(d.reason for d in comparison.differences if d.task is None and d.reason is not None))


def link(run: ComparedRun) -> str | None:
    """The address of a run's page, beside the comparison."""
    return None if run.page is None else quote(run.page)


def run_sentence(run: ComparedRun) -> str:
    """What a run compares, and how well its crosscoder reads it."""
    inside = f"; {run.crosscoder}" if run.crosscoder is not None else ""
    return f"{brief(run.baseline, 60)} → {brief(run.candidate, 60)}, layer {run.layer} of {run.n_layers}{inside}"
