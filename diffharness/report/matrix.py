"""The matrix of many candidates in every view: terminal, Markdown, one HTML file, JSON.

Strings from outside reach rich only as `Text`, Markdown escaped, and HTML through jinja's own escaping.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.report.markup import Page, escape
from diffharness.report.numbers import count, interval, percent, plain, signed
from diffharness.report.schema import component_label
from diffharness.report.schema.matrix import Matrix, MatrixCandidate, MatrixCell, MatrixPart, MatrixSum
from diffharness.report.text import brief, clean, squeeze
from diffharness.report.words import VERDICT_SIGNS

_AFTER_LATENTS = {"bias": 1, "error": 2, "prior": 3, "prompt": 4}
_CELL_WIDTH = 25
_NAME_WIDTH = 24
_STYLES = {"improved": "bold cyan", "regressed": "bold dark_orange", "no change": "dim", "inconclusive": "none"}
DECIDED = "✓"
"""Behind a verdict that holds among all cells."""


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


def headline(matrix: Matrix) -> str:
    """How many of the cells changed."""
    moved = [cell for cell in matrix.cells if cell.verdict in ("improved", "regressed")]
    decided = sum(cell.is_decided for cell in matrix.cells)
    among = f", {decided} of them also among all cells" if moved else ""
    return (
        f"{len(matrix.candidates)} candidates against {brief(matrix.baseline, 60)} on {len(matrix.tasks)} "
        f"task{'s' if len(matrix.tasks) != 1 else ''}: {len(moved)} of {len(matrix.cells)} gaps are a change{among}"
    )


def score_rows(matrix: Matrix) -> list[tuple[str, tuple[MatrixCell | None, ...]]]:
    """A row a task, a cell a candidate."""
    cells = {(cell.task, cell.candidate): cell for cell in matrix.cells}
    return [(task, tuple(cells.get((task, c.name)) for c in matrix.candidates)) for task in matrix.tasks]


def unit_tables(matrix: Matrix) -> list[UnitTable]:
    """A table a unit: categories by their largest cell, then bias, errors and prior."""
    made = []
    for unit in dict.fromkeys(whole.unit for whole in matrix.sums):
        sums = {whole.candidate: whole for whole in matrix.sums if whole.unit == unit}
        groups: dict[tuple[str, str | None], dict[str, MatrixPart]] = {}
        for part in matrix.parts:
            if part.unit == unit:
                groups.setdefault((part.kind, part.category), {})[part.candidate] = part
        size = {key: max(abs(part.contribution) for part in cells.values()) for key, cells in groups.items()}
        order = sorted(groups, key=lambda key: (_AFTER_LATENTS.get(key[0], 0), -size[key], key[1] or ""))
        rows = tuple(
            (component_label(kind, category), tuple(groups[kind, category].get(c.name) for c in matrix.candidates))
            for kind, category in order
        )
        by_candidate = tuple(sums.get(c.name) for c in matrix.candidates)
        made.append(UnitTable(unit, by_candidate, rows, max(size.values(), default=0.0)))
    return made


def verdict_words(cell: MatrixCell) -> str:
    """`▲ improved ✓`."""
    return f"{VERDICT_SIGNS[cell.verdict]} {cell.verdict}" + (f" {DECIDED}" if cell.is_decided else "")


def quality_sentence(matrix: Matrix, candidate: MatrixCandidate) -> str:
    """How well the shared crosscoder reads a pair."""
    if candidate.withheld is not None:
        return f"scores only: {candidate.withheld}"
    shares = ", ".join(f"{side} {percent(v, 1)}" for side, v in candidate.explained_variance.items())
    joint = matrix.crosscoder.explained_variance.get(f"candidate-{candidate.name}")
    over_all = "" if joint is None else f"; over all models together it explains {percent(joint, 1)} of this candidate"
    return f"explained variance {shares}, L0 {plain(candidate.l0, 1)}{over_all}"


def remarks(matrix: Matrix) -> list[str]:
    """What a reader has to know, in whole sentences."""
    shared = matrix.crosscoder
    first = (
        f"One crosscoder of {count(shared.n_latents)} latents (L0 {plain(shared.l0, 1)}) was trained over the baseline "
        f"and all candidates, at layer {matrix.layer} of {matrix.n_layers}, and cut down to every pair: latent numbers "
        "mean the same for all candidates. With a candidate more it is trained anew."
    )
    names = f"{matrix.names_from[0].upper()}{matrix.names_from[1:]}."
    cancelled = [
        f"{whole.candidate}, {whole.unit}: {whole.share_reason}." for whole in matrix.sums if whole.share_reason
    ]
    return [first, names, *matrix.notes, *cancelled, *(f"{said}." for said in matrix.left_out)]


def print_matrix(matrix: Matrix, console: Console, folder: Path | None = None) -> None:
    """Print the tables; `folder` is where the files lie, if they were written."""
    console.print(Text(""))
    console.print(Text(clean(headline(matrix)), style="bold"))
    for few in _blocks(matrix, console.width):
        console.print(_score_table(matrix, few))
    console.print(Text(f"{DECIDED} holds among all cells (Holm, 5 %)", style="dim"))
    for table in unit_tables(matrix):
        console.print(Text(f"\nWhat the gaps are made of, in {brief(table.unit, 40)}", style="bold underline"))
        for few in _blocks(matrix, console.width):
            console.print(_part_table(matrix, table, few))
    if not matrix.sums:
        console.print(Text("\nThere is no gap to explain."))
    console.print(Text("\nCan it be trusted", style="bold underline"))
    for candidate in matrix.candidates:
        console.print(Text(clean(f"{brief(candidate.name, 40)}: {quality_sentence(matrix, candidate)}")))
    for said in remarks(matrix)[:2]:
        console.print(Text(clean(said), style="dim"))
    for said in matrix.left_out:
        console.print(Text(clean(said), style="dim"))
    if folder is not None:
        console.print(Text(f"\n{folder / 'matrix.html'}"))
        for candidate in matrix.candidates:
            console.print(Text(f"{folder / candidate.report}", style="dim"))


def _blocks(matrix: Matrix, width: int) -> Iterator[list[int]]:
    """Places of as many candidates as fit next to each other."""
    size = max(1, (width - _NAME_WIDTH - 2) // (_CELL_WIDTH + 2))
    for first in range(0, len(matrix.candidates), size):
        yield list(range(first, min(first + size, len(matrix.candidates))))


def _table(matrix: Matrix, few: Sequence[int], name: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(name, no_wrap=True, max_width=_NAME_WIDTH)
    for place in few:
        table.add_column(Text(squeeze(matrix.candidates[place].name, _CELL_WIDTH)), min_width=_CELL_WIDTH)
    return table


def _score_table(matrix: Matrix, few: Sequence[int]) -> Table:
    table = _table(matrix, few, "task")
    for task, cells in score_rows(matrix):
        shown = [Text(squeeze(task, _NAME_WIDTH))]
        for cell in (cells[place] for place in few):
            if cell is None:
                shown.append(Text("–"))
                continue
            numbers = f"{signed(cell.gap)} {interval(cell.interval)}\n"
            shown.append(Text.assemble(numbers, (verdict_words(cell), _STYLES[cell.verdict])))
        table.add_row(*shown)
    return table


def _part_table(matrix: Matrix, unit: UnitTable, few: Sequence[int]) -> Table:
    table = _table(matrix, few, "part")
    sums = [_sum_words(unit.sums[place]).replace(", gaps", "\ngaps") for place in few]
    table.add_row(Text("summed gap", style="bold"), *map(Text, sums))
    for name, cells in unit.rows:
        table.add_row(Text(squeeze(name, _NAME_WIDTH)), *(Text(_part_words(cells[place], "\n")) for place in few))
    return table


def _sum_words(whole: MatrixSum | None) -> str:
    if whole is None:
        return "–"
    cancel = ", gaps cancel" if whole.share_reason else ""
    return f"{signed(whole.gap)}, {len(whole.tasks)} task{'s' if len(whole.tasks) != 1 else ''}{cancel}"


def _part_words(part: MatrixPart | None, between: str = " ") -> str:
    if part is None:
        return "–"
    share = "" if part.share is None else f" {percent(part.share)}"
    return f"{signed(part.contribution)}{share}" + (f"{between}{interval(part.interval)}" if part.interval else "")


def render_markdown(matrix: Matrix) -> str:
    """The matrix as Markdown of at most 60 KB."""
    page = Page()
    page.add(f"### {escape(headline(matrix))}")
    names = [escape(brief(c.name, 60)) for c in matrix.candidates]
    links = [f"[{name}]({c.report})" for name, c in zip(names, matrix.candidates, strict=True)]
    page.add(f"Whole reports: {', '.join(links)}. The gap is candidate − baseline.")
    page.table(
        _head("task", names),
        [_line(escape(brief(task, 80)), cells, _cell_words) for task, cells in score_rows(matrix)],
        "tasks",
        share=0.5,
    )
    page.add(f"{DECIDED} holds among all cells (Holm, 5 %).")
    for table in unit_tables(matrix):
        page.add(f"#### What the gaps are made of, in {escape(brief(table.unit, 60))}")
        rows = [_line("**summed gap**", table.sums, _sum_words)]
        rows += [_line(escape(brief(name, 60)), cells, _part_words) for name, cells in table.rows]
        page.table(_head("part", names), rows, "parts", share=0.5)
    page.add("#### Can it be trusted?")
    said = [f"{c.name}: {quality_sentence(matrix, c)}." for c in matrix.candidates]
    page.add("\n".join(f"- {escape(brief(line, 600))}" for line in [*said, *remarks(matrix)]))
    return page.text


def _head(first: str, names: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(names)} |\n|---|{'---|' * len(names)}"


def _line(name: str, cells: Sequence[Any], words: Callable[[Any], str]) -> str:
    return f"| {name} | {' | '.join(words(cell) for cell in cells)} |"


def _cell_words(cell: MatrixCell | None) -> str:
    return "–" if cell is None else f"{signed(cell.gap)} {interval(cell.interval)} {verdict_words(cell)}"


def render_html(matrix: Matrix) -> str:
    """One page: no script, no request, every string from outside escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("diffharness.report") / "templates"
    environment = Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=signed, plain=plain, percent=percent, interval=interval, brief=brief)
    style = (folder / "report.css").read_text(encoding="utf-8")
    return environment.get_template("matrix.html.jinja").render(
        matrix=matrix,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        heading=headline(matrix),
        score_rows=score_rows(matrix),
        unit_tables=unit_tables(matrix),
        remarks=remarks(matrix),
        quality=[(c, quality_sentence(matrix, c)) for c in matrix.candidates],
        verdict_words=verdict_words,
        sum_words=_sum_words,
        decided=DECIDED,
    )


def write_matrix(matrix: Matrix, folder: Path) -> None:
    """Write `matrix.json`, `matrix.md` and `matrix.html` into a folder.

    Raises OSError where it can not be written.
    """
    body = matrix.model_dump_json(indent=1) + "\n"
    for name, text in (("json", body), ("md", render_markdown(matrix)), ("html", render_html(matrix))):
        (folder / f"matrix.{name}").write_text(text, encoding="utf-8")
