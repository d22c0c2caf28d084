"""What if: the rows of ablated models in every view."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from diffharness.report import schema
from diffharness.report.ablated import by_change, terminal_ablated
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import Report
from diffharness.report.terminal import print_report


def row(task: str, change: float) -> schema.AblatedRow:
    return schema.AblatedRow(
        task=task, metric="acc", baseline=0.25, candidate=0.75, ablated=0.75 + change, change=change,
        interval=schema.Interval(low=change - 0.0625, high=change + 0.0625), n=40,
    )  # fmt: skip


MODELS = (
    schema.AblatedModel(
        name="candidate without <b>safety</b>", mode="put_back", categories=("<b>safety</b>",), n_latents=23,
        rows=(row("small_task", 0.0625), row("large_task", -0.4375)),
    ),
    schema.AblatedModel(
        name="candidate without night", mode="put_back", categories=("night",), n_latents=0, rows=(),
        reason="no latent of this run is of such a category",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def report(first) -> Report:
    return Report.load(first).model_copy(update={"ablated": MODELS})


def test_rows_that_change_most_come_first():
    assert [one.task for one in by_change(MODELS[0])] == ["large_task", "small_task"]


@pytest.mark.parametrize("view", ["terminal", "markdown", "html"])
def test_every_view_shows_scores_change_and_interval(report, view):
    if view == "terminal":
        stream = io.StringIO()
        print_report(report, Console(file=stream, width=120))
        shown = stream.getvalue()
    else:
        shown = {"markdown": render_markdown, "html": render_html}[view](report)
    for text in ("0.312", "−0.438", "[−0.500, −0.375]", "23 latents", "no latent of this run is of such a category"):
        assert text in shown
    if view != "terminal":
        assert "<b>safety" not in shown


def test_report_without_ablated_models_says_nothing_of_them(report):
    bare = report.model_copy(update={"ablated": ()})
    assert "What if" not in render_markdown(bare)
    assert "what-if" not in render_html(bare)


def test_reports_with_models_are_read_again(report, tmp_path):
    (tmp_path / "report.json").write_text(report.model_dump_json())
    assert Report.load(tmp_path).ablated == MODELS


def test_numbers_are_whole_on_a_narrow_terminal(report):
    out = io.StringIO()
    long = MODELS[0].model_copy(update={"rows": (row("a_task_of_a_very_long_name_" * 3, -0.4375),)})
    found = terminal_ablated(report.model_copy(update={"ablated": (long,)}))
    assert found is not None
    Console(file=out, width=80).print(found)
    for number in ("0.250", "0.750", "0.312", "−0.438", "[−0.500, −0.375]"):
        assert number in out.getvalue()
