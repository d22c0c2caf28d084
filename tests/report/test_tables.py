"""Tables are the report's numbers, row by row; a spreadsheet runs nothing that they hold."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from diffharness.report.schema import Report
from diffharness.report.tables import safe_cell, tables, to_csv, to_parquet
from tests.report.example import example_report

_FORMULAS = (
    "=1+1",
    "+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\u00a0=1",
    "＝1",
    '=HYPERLINK("https://evil.example")',
)


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def read_parquet(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize("name", ["tasks", "contributions", "latents"])
def test_both_formats_hold_the_same_rows_and_numbers(report: Report, name: str) -> None:
    table = tables(report)[name]
    rows = read_parquet(to_parquet(table)).to_pylist()
    assert rows == [dict(row) for row in table.rows]
    texts = read_csv(to_csv(table))
    assert [*texts[0]] == [*table.columns]
    for row, text in zip(rows, texts, strict=True):
        for column, kind in table.columns.items():
            value, shown = row[column], text[column]
            if value is None:
                assert shown == ""
            elif kind is bool:
                assert shown == str(value).lower()
            elif kind is str:
                assert shown.removeprefix("'") == value
            else:
                assert kind(shown) == value


def test_there_is_a_row_a_component_and_together_they_are_the_gap(report: Report) -> None:
    rows = tables(report)["contributions"].rows
    assert len(rows) == sum(len(task.components) for task in report.tasks)
    for task in report.tasks:
        if task.surrogate is None or not task.components:
            continue
        of_task = [
            row for row in rows if (row["task"], row["metric"], row["filter"]) == (task.task, task.metric, task.filter)
        ]
        assert sum(float(row["contribution"] or 0) for row in of_task) == pytest.approx(task.surrogate.gap, abs=1e-6)
        assert {row["unit"] for row in of_task} == {task.surrogate.unit}


def test_a_component_has_its_check_and_what_it_may_be_called(report: Report) -> None:
    (row,) = (
        row
        for row in tables(report)["contributions"].rows
        if (row["task"], row["component"]) == ("organism_safety", "safety")
    )
    task = next(task for task in report.tasks if task.task == "organism_safety")
    part = next(c for c in task.components if (c.category, c.origin) == ("safety", "written"))
    assert part.ablation is not None
    assert (row["check_change"], row["check_n"], row["check"]) == (part.ablation.change, part.ablation.n, "agrees")
    assert (row["is_causal"], row["worded_as"]) == (True, "a cause")


def test_a_table_without_rows_keeps_its_columns_and_types(report: Report) -> None:
    none = tables(report.model_copy(update={"latents": (), "tasks": ()}))
    for name, full in tables(report).items():
        assert to_csv(none[name]).decode().strip() == ",".join(full.columns)
        assert read_parquet(to_parquet(none[name])).schema.equals(read_parquet(to_parquet(full)).schema)


@pytest.mark.parametrize("text", _FORMULAS)
def test_no_cell_begins_like_a_formula(report: Report, text: str) -> None:
    assert safe_cell(text)[0] in "'\\"
    task = report.tasks[0].model_copy(update={"task": text, "categories": (text,)})
    content = to_csv(tables(report.model_copy(update={"tasks": (task,)}))["contributions"])
    assert {row["task"] for row in read_csv(content)} == {safe_cell(text)}


def test_numbers_below_zero_stay_numbers(report: Report) -> None:
    read = pacsv.read_csv(io.BytesIO(to_csv(tables(report)["tasks"])))
    assert pa.types.is_floating(read.schema.field("gap").type)
    assert min(read.column("gap").to_pylist()) < 0
    assert b"'-" not in to_csv(tables(report)["contributions"])


def test_hostile_texts_stay_one_cell_and_move_no_cursor(hostile: Report) -> None:
    for name, table in tables(hostile).items():
        rows = read_csv(to_csv(table))
        assert len(rows) == len(table.rows), name
        for row in rows:
            for cell in row.values():
                assert not set(cell) & set("\x1b\x07\u202e\r")
                assert not cell.startswith(("=", "+", "@"))


def test_half_code_points_do_not_stop_a_file() -> None:
    report = example_report(n_tasks=1)
    task = report.tasks[0].model_copy(update={"task": "half \ud83d of \udc80 one"})
    table = tables(report.model_copy(update={"tasks": (task,)}))["tasks"]
    assert read_parquet(to_parquet(table)).column("task").to_pylist() == ["half \ufffd of \ufffd one"]
    assert "half \\ud83d of \\udc80 one" in to_csv(table).decode()
