"""A comparison as one tidy table: a row a number."""

from __future__ import annotations

from collections.abc import Iterable

from diffharness.report.compare.model import Comparison
from diffharness.report.compare.words import word
from diffharness.report.schema import Interval
from diffharness.report.tables import Cell, Row, Table

_COLUMNS: dict[str, type] = {
    "what": str, "run": str, "against": str, "task": str, "metric": str, "filter": str, "unit": str, "kind": str,
    "origin": str, "category": str, "baseline": float, "candidate": float, "value": float, "low": float, "high": float,
    "p_value": float, "q_value": float, "word": str, "reason": str,
}  # fmt: skip


def comparison_table(comparison: Comparison) -> Table:
    """Rows of `what`: `score` (`value` is the gap), `sum` (a part over tasks), `part` (of a task), `difference`."""
    return Table(_COLUMNS, tuple(_rows(comparison)))


def _rows(comparison: Comparison) -> Iterable[Row]:
    for cell in comparison.cells:
        yield _row(
            "score", cell.candidate, cell.gap, cell.interval, task=cell.task, metric=cell.metric, filter=cell.filter,
            baseline=cell.baseline_score, candidate=cell.candidate_score, p_value=cell.p_value, word=cell.verdict,
        )  # fmt: skip
    for part in comparison.parts:
        yield _row(
            "sum", part.candidate, part.contribution, part.interval, unit=part.unit, kind=part.kind,
            category=part.category,
        )  # fmt: skip
    for part in comparison.accounts:
        yield _row(
            "part", part.run, part.contribution, part.interval, task=part.task, unit=part.unit, kind=part.kind,
            origin=part.origin, category=part.category,
        )  # fmt: skip
    for found in comparison.differences:
        yield _row(
            "difference", found.run, found.difference, found.interval, against=found.against, task=found.task,
            unit=found.unit, kind=found.kind, category=found.category, p_value=found.p_value, q_value=found.q_value,
            word=word(found), reason=found.reason,
        )  # fmt: skip


def _row(what: str, run: str, value: float, inside: Interval | None, **more: Cell) -> Row:
    known: dict[str, Cell] = {
        "what": what, "run": run, "value": value, "low": inside and inside.low, "high": inside and inside.high, **more,
    }  # fmt: skip
    return {name: known.get(name) for name in _COLUMNS}
