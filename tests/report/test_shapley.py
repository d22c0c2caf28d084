"""Shapley values in every view: a row a part, reasons where there are none, hostile names shown and not obeyed."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import Interval, Report, Shapley, ShapleyAgreement, ShapleyPlayer
from diffharness.report.shapley import agreement_sentence, shapley_of, shapley_sentence, sign_word
from diffharness.report.terminal import print_report
from tests.report.example import HOSTILE, bare, example_report


def player(name: str, value: float, *, agrees: bool | None = True, categories=None) -> ShapleyPlayer:
    return ShapleyPlayer(
        name=name,
        categories=(name,) if categories is None else categories,
        value=value,
        interval=Interval(low=value - 0.1, high=value + 0.1),
        standard_error=None,
        written=value / 2,
        written_interval=Interval(low=value / 2 - 0.05, high=value / 2 + 0.05),
        agrees=agrees,
    )


def with_shapley(name: str = "safety") -> Report:
    players = (
        player(name, 0.234, agrees=True),
        player("other categories", -0.021, agrees=False, categories=("facts", "arithmetic")),
        player("bias and error", 0.012, agrees=None, categories=()),
    )
    rows = (
        Shapley(
            task="organism_safety", metric="acc", players=players, n_subsets=8, n_documents=48, v_none=0.61,
            v_all=0.835, recorded=0.835, same_unit=True,
        ),
        Shapley(task="organism_instructions", metric="exact_match", reason="its answers are generated"),
    )  # fmt: skip
    agreed = ShapleyAgreement(n_pairs=3, n_clear=2, sign_agreement=0.5, n_correlated=3, correlation=0.97)
    return bare(example_report()).model_copy(update={"shapley": rows, "shapley_agreement": agreed})


def terminal(report: Report) -> str:
    out = StringIO()
    print_report(report, Console(file=out, width=100, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_table_has_a_row_a_part_with_value_and_written(render):
    page = render(with_shapley())
    for shown in ("+0.234", "+0.117", "−0.021", "does not agree", "not clear", "other categories", "0.610", "0.835"):
        assert shown in page, shown
    assert "its answers are generated" in page
    assert "correlation 0.97 over 3" in page


def test_the_terminal_names_the_largest_parts():
    page = " ".join(terminal(with_shapley()).split())
    assert "(Shapley): safety +0.234, other categories −0.021, bias and error +0.012" in page
    assert "50 % of 2 clear parts" in page.replace("\u00a0", " ")


def test_reports_without_values_say_nothing_of_them():
    report = bare(example_report())
    for page in (render_html(report), render_markdown(report), terminal(report)):
        assert "Shapley" not in page
    assert agreement_sentence(report) is None


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_can_not_act(name):
    report = with_shapley(name)
    assert "<script>alert" not in render_html(report)
    assert "<img" not in render_html(report)
    assert "<script>" not in render_markdown(report)
    assert "\x1b" not in terminal(report)


def test_sentences_say_what_was_scored():
    report = with_shapley()
    row = report.shapley[0]
    assert shapley_sentence(row) == (
        "The candidate's upper layers score 0.610 with none of the parts and 0.835 with all (8 sets, all, on 48 "
        "documents)."
    )
    changed = row.model_copy(update={"n_changed": 1, "exact": False, "interval_reason": "f is no sum"})
    assert shapley_sentence(changed) == (
        "The candidate's upper layers score 0.610 with none of the parts and 0.835 with all (8 sets, of drawn orders, "
        "on 48 documents; 1 of them score otherwise than recorded, 0.835 in all). No intervals: f is no sum."
    )
    assert [sign_word(p) for p in row.players] == ["agrees", "does not agree", "not clear"]


def test_only_the_row_of_the_primary_metric_has_values():
    report = with_shapley()
    task = report.tasks[0]
    assert shapley_of(report, task) is not None
    assert shapley_of(report, task.model_copy(update={"is_primary": False})) is None


def test_older_reports_open():
    body = with_shapley().model_dump(mode="json")
    del body["shapley"], body["shapley_agreement"]
    assert Report.model_validate(body).shapley == ()
