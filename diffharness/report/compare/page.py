"""A comparison as one HTML file: no script, no request, every string from outside escaped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffharness.report.compare.model import Comparison, Difference, TaskPart
from diffharness.report.compare.words import (
    headline,
    link,
    of_gaps,
    of_task,
    part_label,
    ranked,
    reasons,
    run_sentence,
    traced,
    word,
)
from diffharness.report.numbers import p_value
from diffharness.report.schema import component_label
from diffharness.report.side_by_side import part_order
from diffharness.report.static_page import render_page


@dataclass(frozen=True)
class TaskTable:
    """One task's components × runs, and the differences."""

    task: str
    unit: str
    rows: tuple[tuple[str, tuple[TaskPart | None, ...]], ...]
    """A component's name and its cells, by run."""
    differences: tuple[Difference, ...]


def render_html(comparison: Comparison) -> str:
    """The whole page."""
    return render_page(
        "comparison.html.jinja",
        comparison,
        comparison=comparison,
        heading=headline(comparison),
        gaps=of_gaps(comparison),
        ranked=ranked(comparison),
        reasons=reasons(comparison),
        runs=[(run, link(run), run_sentence(run)) for run in comparison.runs],
        task_tables=list(task_tables(comparison)),
        part_label=part_label,
        traced=lambda row: traced(comparison, row),
        word=word,
        p_value=p_value,
    )


def task_tables(comparison: Comparison) -> Iterator[TaskTable]:
    """A table a task that is summed: latents by their largest cell, then bias, errors, prior and prompt."""
    by_task: dict[str, list[TaskPart]] = {}
    for part in comparison.accounts:
        by_task.setdefault(part.task, []).append(part)
    for task, parts in by_task.items():
        rows: dict[tuple[str, str | None, str | None], dict[str, TaskPart]] = {}
        for part in parts:
            rows.setdefault((part.kind, part.category, part.origin), {})[part.run] = part
        size = {key: max(abs(part.contribution) for part in cells.values()) for key, cells in rows.items()}
        order = sorted(rows, key=lambda key: (part_order(key[0]), -size[key], *map(str, key)))
        yield TaskTable(
            task,
            parts[0].unit,
            tuple((component_label(*key), tuple(rows[key].get(run.name) for run in comparison.runs)) for key in order),
            tuple(of_task(comparison, task)),
        )
