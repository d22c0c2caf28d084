"""What could have been seen, in words and in every view."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from diffharness.report.charts import figures
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import Report
from diffharness.report.settling import approximate_sentence, interval_reason, settling_sentence, shown
from diffharness.report.terminal import print_report


@pytest.fixture
def marked(report: Report) -> Report:
    """The example with one undecided row that has a number, one approximate row and one group."""
    tasks = list(report.tasks)
    open_ = next(i for i, t in enumerate(tasks) if t.verdict == "inconclusive")
    other = next(i for i, t in enumerate(tasks) if t.verdict == "regressed")
    tasks[open_] = tasks[open_].model_copy(update={"n_to_settle": 4321, "mde": 0.125})
    few = {"approximate": True, "approximate_reason": "fewer than 30 clusters", "cluster": "passage", "n_clusters": 12}
    tasks[other] = tasks[other].model_copy(update=few)
    group = {"task": "all_of_them", "is_group": True, "is_primary": False, "components": (), "surrogate": None,
             "account_reason": "a group has no account of its own; see its tasks"}  # fmt: skip
    tasks.append(tasks[other].model_copy(update={**group, "approximate": False}))
    return report.model_copy(update={"tasks": tuple(tasks)})


def test_sentences_name_the_rows_and_are_absent_where_there_is_nothing(report: Report, marked: Report) -> None:
    assert (settling_sentence(report), approximate_sentence(report)) == (None, None)
    assert "at about 4,321 documents (now 100)" in (settling_sentence(marked) or "")
    assert (approximate_sentence(marked) or "").endswith("(fewer than 30 clusters)")
    assert any(task.is_group for task in shown(marked))


def test_a_rows_reason_says_how_its_interval_was_made(marked: Report) -> None:
    reasons = [interval_reason(task) for task in marked.tasks]
    assert any("a gap of 0.125 would be found in four of five" in reason for reason in reasons)
    assert any("documents with the same passage are drawn together" in reason for reason in reasons)


def test_every_view_shows_them(marked: Report) -> None:
    console = Console(record=True, width=140, file=io.StringIO())
    print_report(marked, console)
    html, page, terminal = render_html(marked, figures(marked)), render_markdown(marked), console.export_text()
    for view in (html, page, terminal):
        assert "all_of_them" in view.replace("\\_", "_").replace("\u200b", "").replace("<wbr>", "")
        assert "4,321" in view
        assert "approximate" in view.lower()
    assert "(group)" in page
