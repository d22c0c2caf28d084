"""The matrix in every view: nothing is lost, names from outside can not act, narrow terminals get blocks."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from diffharness.assembly.matrix import matrix
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.matrix import print_matrix, render_html, render_markdown, write_matrix
from diffharness.report.numbers import signed
from diffharness.report.schema.matrix import Matrix
from diffharness.report.side_by_side import unit_tables
from tests.report.example import example_report, hostile_report

QUALITY = {"n_latents": 64, "l0": 8.0, "explained_variance": {"baseline": 0.9, "candidate-c0": 0.8}}


def several(n: int = 5, hostile: bool = False) -> Matrix:
    reports = {f"c{i}": hostile_report() if hostile else example_report(seed=i) for i in range(n)}
    return matrix(reports, Path("nowhere"), quality=QUALITY, names_from="the names", command="diffharness matrix")


def printed(found: Matrix, width: int) -> str:
    out = io.StringIO()
    print_matrix(found, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_terminal_shows_every_cell_and_part_whole(width):
    found = several()
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    for cell in found.cells:
        assert text.count(f"{signed(cell.gap)} [{signed(cell.interval.low)}, {signed(cell.interval.high)}]")
    for part in found.parts:
        assert signed(part.contribution) in text
    for candidate in found.candidates:
        assert re.search(rf"\b{candidate.name}\b", text)


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_pages_show_every_cell_part_and_link(render):
    found = several()
    text = render(found)
    for cell in found.cells:
        assert signed(cell.gap) in text
    for part in found.parts:
        assert signed(part.contribution) in text
    for candidate in found.candidates:
        assert candidate.report in text
    assert "The names." in text


def test_strings_from_outside_do_not_act():
    found = several(2, hostile=True)
    page, text = render_html(found), render_markdown(found)
    assert not re.search(r"<(script|img|iframe|a href=.?javascript)", page, re.IGNORECASE)
    assert "\x1b" not in page + text + printed(found, 100)
    assert "<script" not in text.lower()
    assert len(text.encode()) <= LIMIT_BYTES
    assert "default-src 'none'" in page


def test_many_candidates_and_tasks_stay_within_a_page_of_markdown():
    assert len(render_markdown(several(60)).encode()) <= LIMIT_BYTES


def test_largest_categories_come_first_and_the_rest_behind_them():
    found = several()
    (table,) = [t for t in unit_tables(found) if t.unit == "probability"]
    names = [name for name, _ in table.rows]
    n_latents = len({part.category for part in found.parts if part.unit == table.unit and part.kind == "latents"})
    order = ["bias", "error", "prior", "prompt"]
    assert names[n_latents:] == sorted(names[n_latents:], key=order.index)
    assert len(names) > n_latents > 1
    sizes = [max(abs(p.contribution) for p in cells if p) for _, cells in table.rows[:n_latents]]
    assert sizes == sorted(sizes, reverse=True)


def test_what_is_written_is_read_again(tmp_path):
    found = several(2)
    write_matrix(found, tmp_path)
    assert Matrix.load(tmp_path) == found == Matrix.load(tmp_path / "matrix.json")
    assert {p.name for p in tmp_path.iterdir()} == {"matrix.json", "matrix.md", "matrix.html"}
