"""Models side by side: tasks × candidates and categories × candidates, as a terminal, Markdown and a page show them.

The matrix (candidates of one shared crosscoder) and the comparison (runs of their own) are made of these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.report.markup import Page, escape
from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.schema import component_label
from diffharness.report.schema.matrix import MatrixCell, MatrixPart, MatrixSum
from diffharness.report.text import brief, squeeze
from diffharness.report.words import VERDICT_SIGNS

_AFTER_LATENTS = {"bias": 1, "error": 2, "upper": 3, "prior": 4, "prompt": 5}
_CELL_WIDTH = 25
_NAME_WIDTH = 24
VERDICT_STYLES = {"improved": "bold cyan", "regressed": "bold dark_orange", "no change": "dim", "inconclusive": "none"}
DECIDED = "✓"
"""Behind a verdict that holds among all cells."""


class Named(Protocol):
    """What a column is headed with."""

    @property
    def name(self) -> str:
        """What it is called here."""
        ...


class SideBySide(Protocol):
    """What the tables are made of."""

    @property
    def candidates(self) -> Sequence[Named]:
        """The columns, in their order."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """The rows of scores."""
        ...

    @property
    def cells(self) -> tuple[MatrixCell, ...]:
        """A task's gap of one candidate."""
        ...

    @property
    def sums(self) -> tuple[MatrixSum, ...]:
        """What a candidate's parts are summed over."""
        ...

    @property
    def parts(self) -> tuple[MatrixPart, ...]:
        """What a category, or the bias, an error, the prior, the prompt, carries of these sums."""
        ...


@dataclass(frozen=True)
class UnitTable:
    """Categories × candidates in one unit."""

    unit: str
    sums: tuple[MatrixSum | None, ...]
    """By candidate."""
    rows: tuple[tuple[str, tuple[MatrixPart | None, ...]], ...]
    """A part's name and its cells, by candidate."""
    largest: float
    """Of all cells, in size."""


def part_order(kind: str) -> int:
    """Where parts of a kind stand in a table: latents first."""
    return _AFTER_LATENTS.get(kind, 0)


def score_rows(shown: SideBySide) -> list[tuple[str, tuple[MatrixCell | None, ...]]]:
    """A row a task, a cell a candidate."""
    cells = {(cell.task, cell.candidate): cell for cell in shown.cells}
    return [(task, tuple(cells.get((task, c.name)) for c in shown.candidates)) for task in shown.tasks]


def unit_tables(shown: SideBySide) -> list[UnitTable]:
    """A table a unit: categories by their largest cell, then bias, errors, prior and prompt."""
    made = []
    for unit in dict.fromkeys(whole.unit for whole in shown.sums):
        sums = {whole.candidate: whole for whole in shown.sums if whole.unit == unit}
        groups: dict[tuple[str, str | None], dict[str, MatrixPart]] = {}
        for part in shown.parts:
            if part.unit == unit:
                groups.setdefault((part.kind, part.category), {})[part.candidate] = part
        size = {key: max(abs(part.contribution) for part in cells.values()) for key, cells in groups.items()}
        order = sorted(groups, key=lambda key: (part_order(key[0]), -size[key], key[1] or ""))
        rows = tuple(
            (component_label(kind, category), tuple(groups[kind, category].get(c.name) for c in shown.candidates))
            for kind, category in order
        )
        by_candidate = tuple(sums.get(c.name) for c in shown.candidates)
        made.append(UnitTable(unit, by_candidate, rows, max(size.values(), default=0.0)))
    return made


def verdict_words(cell: MatrixCell) -> str:
    """`▲ improved ✓`."""
    return f"{VERDICT_SIGNS[cell.verdict]} {cell.verdict}" + (f" {DECIDED}" if cell.is_decided else "")


def sum_words(whole: MatrixSum | None) -> str:
    """`+1.520, 3 tasks`."""
    if whole is None:
        return "–"
    cancel = ", gaps cancel" if whole.share_reason else ""
    return f"{signed(whole.gap)}, {len(whole.tasks)} task{'s' if len(whole.tasks) != 1 else ''}{cancel}"


def part_words(part: MatrixPart | None, between: str = " ") -> str:
    """`+0.420 28 % [+0.380, +0.460]`."""
    if part is None:
        return "–"
    share = "" if part.share is None else f" {percent(part.share)}"
    return f"{signed(part.contribution)}{share}" + (f"{between}{interval(part.interval)}" if part.interval else "")


def print_scores(shown: SideBySide, console: Console, *, scores: bool = False) -> None:
    """Tasks × candidates, in blocks of as many candidates as fit; with `scores` the candidate's own score too."""
    for few in _blocks(shown, console.width):
        table = _table(shown, few, "task")
        for task, cells in score_rows(shown):
            own = [cells[place] for place in few]
            table.add_row(Text(squeeze(task, _NAME_WIDTH)), *(_score_cell(cell, scores) for cell in own))
        console.print(table)
    console.print(Text(f"{DECIDED} holds among all cells (Holm, 5 %)", style="dim"))


def _score_cell(cell: MatrixCell | None, scores: bool) -> Text:
    if cell is None:
        return Text("–")
    score = f"{plain(cell.candidate_score)} " if scores else ""
    numbers = f"{signed(cell.gap)} {interval(cell.interval)}\n{score}"
    return Text.assemble(numbers, (verdict_words(cell), VERDICT_STYLES[cell.verdict]))


def print_parts(shown: SideBySide, console: Console, *, origins: bool = False) -> None:
    """Categories × candidates, a table a unit; with `origins` what is written and what is read of each."""
    for unit in unit_tables(shown):
        console.print(Text(f"\nWhat the gaps are made of, in {brief(unit.unit, 40)}", style="bold underline"))
        for few in _blocks(shown, console.width):
            table = _table(shown, few, "part")
            sums = [sum_words(unit.sums[place]).replace(", gaps", "\ngaps") for place in few]
            table.add_row(Text("summed gap", style="bold"), *map(Text, sums))
            for name, cells in unit.rows:
                own = [_part_cell(cells[place], origins) for place in few]
                table.add_row(Text(squeeze(name, _NAME_WIDTH)), *own)
            console.print(table)
    if not shown.sums:
        console.print(Text("\nThere is no gap to explain."))


def _part_cell(part: MatrixPart | None, origins: bool) -> Text:
    cell = Text(part_words(part, "\n"))
    if origins and part is not None and part.written is not None and part.read is not None:
        cell.append(f"\nw {signed(part.written)}, r {signed(part.read)}", style="dim")
    return cell


def _blocks(shown: SideBySide, width: int) -> Iterator[list[int]]:
    """Places of as many candidates as fit next to each other."""
    size = max(1, (width - _NAME_WIDTH - 2) // (_CELL_WIDTH + 2))
    for first in range(0, len(shown.candidates), size):
        yield list(range(first, min(first + size, len(shown.candidates))))


def _table(shown: SideBySide, few: Sequence[int], name: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(name, no_wrap=True, max_width=_NAME_WIDTH)
    for place in few:
        table.add_column(Text(squeeze(shown.candidates[place].name, _CELL_WIDTH)), min_width=_CELL_WIDTH)
    return table


def add_scores(page: Page, shown: SideBySide, *, scores: bool = False) -> None:
    """Tasks × candidates as Markdown."""
    words = (lambda cell: _cell_words(cell, scores=True)) if scores else _cell_words
    rows = [_line(escape(brief(task, 80)), cells, words) for task, cells in score_rows(shown)]
    page.table(_head("task", shown), rows, "tasks", share=0.5)
    page.add(f"{DECIDED} holds among all cells (Holm, 5 %).")


def add_parts(page: Page, shown: SideBySide, *, origins: bool = False) -> None:
    """Categories × candidates as Markdown, a table a unit."""
    for table in unit_tables(shown):
        page.add(f"#### What the gaps are made of, in {escape(brief(table.unit, 60))}")
        words = _part_words_with_origins if origins else part_words
        rows = [_line("**summed gap**", table.sums, sum_words)]
        rows += [_line(escape(brief(name, 60)), cells, words) for name, cells in table.rows]
        page.table(_head("part", shown), rows, "parts", share=0.5)


def _head(first: str, shown: SideBySide) -> str:
    names = [escape(brief(c.name, 60)) for c in shown.candidates]
    return f"| {first} | {' | '.join(names)} |\n|---|{'---|' * len(names)}"


def _line(name: str, cells: Sequence[Any], words: Callable[[Any], str]) -> str:
    return f"| {name} | {' | '.join(words(cell) for cell in cells)} |"


def _cell_words(cell: MatrixCell | None, *, scores: bool = False) -> str:
    if cell is None:
        return "–"
    score = f"{plain(cell.candidate_score)}, " if scores else ""
    return f"{score}{signed(cell.gap)} {interval(cell.interval)} {verdict_words(cell)}"


def _part_words_with_origins(part: MatrixPart | None) -> str:
    split = part is not None and part.written is not None and part.read is not None
    return part_words(part) + (
        f"<br>written {signed(part.written)}, read {signed(part.read)}" if part and split else ""
    )
