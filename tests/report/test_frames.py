"""The report as pandas tables: every row and number is there with its type, and nothing acts in a notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import diffharness
from diffharness.errors import UsageError
from diffharness.report import schema
from diffharness.report.files import to_json
from diffharness.report.frames import MOST_ROWS
from tests.report.example import example_report, hostile_report
from tests.report.test_older import report_1_3

TABLES = ("tasks", "contributions", "latents", "latent_contributions", "categories", "flips")


@pytest.fixture
def loaded(report: schema.Report, tmp_path: Path) -> diffharness.Report:
    (tmp_path / "report.json").write_text(to_json(report), encoding="utf-8")
    return diffharness.Report.load(tmp_path)


def test_loading_gives_the_whole_report_from_a_folder_or_a_file(loaded: diffharness.Report, report, tmp_path: Path):
    assert loaded.data == report
    again = diffharness.Report.load(str(tmp_path / "report.json"))
    assert again.data == report
    assert again.folder == loaded.folder == tmp_path


def test_a_row_a_task_with_the_numbers_of_the_model(loaded: diffharness.Report, report: schema.Report):
    found = loaded.tasks()
    assert len(found) == len(report.tasks)
    for (_, row), task in zip(found.iterrows(), report.tasks, strict=True):
        assert (row.task, row.metric, row.verdict, row.n) == (task.task, task.metric, task.verdict, task.n)
        assert (row.gap, row.low, row.high) == (task.gap, task.interval.low, task.interval.high)
    unaccounted = found[found.unit.isna()]
    assert list(unaccounted.task) == [t.task for t in report.tasks if t.surrogate is None]
    assert unaccounted.surrogate_gap.isna().all()


def test_contributions_of_a_task_add_up_to_its_surrogate_gap(loaded: diffharness.Report):
    sums = loaded.contributions().groupby("task", observed=True).contribution.sum()
    gaps = loaded.tasks().set_index("task").surrogate_gap.dropna()
    assert len(sums) == len(gaps) > 5
    np.testing.assert_allclose(sums[gaps.index.astype(str)], gaps, atol=1e-9)


def test_contributions_of_a_latent_are_written_plus_read(loaded: diffharness.Report, report: schema.Report):
    found = loaded.latent_contributions()
    assert len(found) == sum(len(latent.contributions) for latent in report.latents) > 0
    known = found[found.read.notna()]
    np.testing.assert_allclose(known.written + known.read, known.contribution)
    first = report.latents[0]
    own = found[found.latent == first.index].set_index("task").contribution.to_dict()
    assert own == pytest.approx(first.contributions)


def test_rows_of_latents_categories_and_flips(loaded: diffharness.Report, report: schema.Report):
    assert list(loaded.latents().latent) == [latent.index for latent in report.latents]
    shift = loaded.categories()
    assert list(shift.category) == [row.name for row in report.categories]
    assert shift.low.tolist() == pytest.approx(
        [np.nan if row.interval is None else row.interval.low for row in report.categories], nan_ok=True
    )
    flips = loaded.flips()
    assert len(flips) == sum(max(1, len(task.kinds)) for task in report.flips)
    for task in report.flips:
        own = flips[flips.task == task.task]
        assert own.n_flips.eq(task.n_flips).all()
        if not task.kinds:
            assert own.kind.isna().all()
            assert own.n_lost.item() == task.n_lost


@pytest.mark.parametrize("name", TABLES)
def test_columns_have_types_that_do_not_depend_on_the_rows(loaded: diffharness.Report, name: str):
    found = getattr(loaded, name)()
    assert len(found)
    nothing = loaded.data.model_copy(update={"tasks": (), "latents": (), "categories": (), "flips": ()})
    empty = getattr(diffharness.Report(nothing), name)()
    assert len(empty) == 0
    assert list(empty.columns) == list(found.columns)
    for column, dtype in found.dtypes.items():
        assert isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or dtype.kind in "bif", (column, dtype)
        kinds = {str(dtype), str(empty.dtypes[column])}
        assert len(kinds) == 1 or kinds in ({"int64", "float64"}, {"bool", "boolean"}), (column, kinds)
        assert not any(value is None or value is pd.NaT for value in found[column])


def test_contributions_by_document_come_from_the_run(loaded: diffharness.Report, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"contributions\.parquet is not there"):
        loaded.document_contributions()
    with pytest.raises(FileNotFoundError, match="load the report from"):
        diffharness.Report(loaded.data).document_contributions()
    rows = {"task": ["a"], "doc_id": [3], "weight": [1.5], "kind": ["bias"], "origin": ["written"], "category": [None],
            "contribution": [0.25], "contribution_raw": [1.0], "interaction": [0.0]}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "contributions.parquet")
    found = loaded.document_contributions()
    assert found.contribution.item() == 0.25
    assert found.category.isna().all()
    assert isinstance(found.dtypes["task"], pd.CategoricalDtype)


def test_a_report_of_an_older_version_gives_every_table(tmp_path: Path):
    (tmp_path / "report.json").write_text(json.dumps(report_1_3()), encoding="utf-8")
    old = diffharness.Report.load(tmp_path)
    assert {name: len(getattr(old, name)()) for name in TABLES} == {
        "tasks": 1, "contributions": 5, "latents": 0, "latent_contributions": 0, "categories": 0, "flips": 0,
    }  # fmt: skip
    assert "an_old_task" in old.to_html()


def test_what_is_no_report_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"holds no report\.json"):
        diffharness.Report.load(tmp_path)
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="is not JSON"):
        diffharness.Report.load(tmp_path)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(f"@{name}" for name, _ in attrs)}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> set[str]:
    parser = _Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def test_a_notebook_shows_the_verdict_the_scores_and_what_carries_them(loaded: diffharness.Report):
    page = loaded.to_html()
    assert tags(page) == {"div", "p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "@class"}
    for task in loaded.data.tasks:
        assert task.task in page
    for told in ("6 of 10 tasks changed", "▲ improved", "▼ regressed", "+0.460", "multilingual"):
        assert told in page
    for shown in (loaded, loaded.data):
        assert getattr(shown, "_repr_html_")() == page  # noqa: B009 - what notebooks call
    assert "\n" not in repr(loaded)
    assert repr(loaded).startswith("<diffharness.Report: ")


def test_strings_from_outside_do_not_act_in_a_notebook():
    hostile = diffharness.Report(hostile_report())
    page = hostile.to_html()
    assert tags(page) <= {"div", "p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "@class"}
    assert "&lt;script&gt;" in page
    assert not re.search("[\x1b\u202e]", page + repr(hostile))
    assert len(page) < 60_000


def test_a_notebook_shows_a_page_of_many_tasks_and_counts_the_rest():
    page = diffharness.Report(example_report(n_tasks=MOST_ROWS + 12)).to_html()
    assert "and 12 more tasks" in page
    assert page.count("</tr>") < MOST_ROWS + 10


def test_importing_the_package_waits_for_nothing():
    line = "import sys, diffharness; heavy = {'pandas', 'pydantic', 'numpy', 'torch'} & set(sys.modules); print(heavy)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    line = "import sys; from diffharness import Report; print({'pandas', 'torch', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
