"""Flips in every view: their table beside the account, and answers that can not act."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from diffharness.report.flips import flips_of, flips_sentence, markdown_flips, terminal_line
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.schema import FlipExample, FlipKind, FlipKinds, PositionShift, Report
from diffharness.report.terminal import print_report

HOSTILE = "a | <script>alert(1)</script> \x1b[31m ![x](http://evil.example) @someone `tick` | bar \u202e"


def flips(task: str, answer: str = "I must decline.") -> FlipKinds:
    example = FlipExample(
        doc_id=7, is_loss=True, baseline_answer="42", candidate_answer=answer, gold=answer,
        evidence=(f"refused: {answer}",),
    )  # fmt: skip
    kinds = (
        FlipKind(kind="refused", n_lost=5, n_gained=1, gap=-0.02, n_accounted=4,
                 contributions={"safety": -0.3, answer: 0.2, "bias": 0.01, "error": 0.001}, examples=(example,)),
        FlipKind(kind="answer differs", n_lost=3, n_gained=2, gap=None, n_accounted=0, contributions={},
                 examples=(example,)),
    )  # fmt: skip
    return FlipKinds(
        task=task, metric="exact_match,none", n=200, n_flips=11, n_lost=8, n_gained=3, kinds=kinds, gap_reason="no mean"
    )


def with_flips(report: Report, answer: str = "I must decline.") -> Report:
    return report.model_copy(update={"flips": tuple(flips(t.task, answer) for t in report.tasks if t.is_primary)})


def test_older_reports_have_none(report):
    body = report.model_dump(mode="json")
    del body["flips"]
    older = Report.model_validate(body)
    assert older.flips == ()
    assert all(flips_of(older, task) is None and markdown_flips(older, task) is None for task in older.tasks)


def test_the_sentence_counts_what_is_not_skill(report):
    said = flips_sentence(flips("t"))
    assert said == (
        "11 of 200 documents changed their score: 8 lost, 3 gained; of these, 5 and 1 show a sign of something other "
        "than skill (6 refused), which may be why."
    )


def test_every_view_shows_the_kinds(report):
    report = with_flips(report)
    page, text = render_html(report), render_markdown(report)
    assert '<th scope="row">refused</th>' in page
    assert "none of them is in the account" in page
    assert "| refused | 5 | 1 | −0.020 | safety −0.300, " in text
    out = io.StringIO()
    print_report(report, Console(file=out, width=120))
    assert "signs other than skill: 6 refused, of 8 documents lost and 3 gained" in " ".join(out.getvalue().split())


def test_a_task_where_only_skill_is_seen_has_no_line_in_the_terminal(report):
    found = flips("t")
    only = found.model_copy(update={"kinds": found.kinds[1:]})
    task = report.tasks[0].model_copy(update={"task": "t"})
    assert terminal_line(report.model_copy(update={"flips": (only,)}), task) is None
    assert "no answer shows a sign of anything but skill" in flips_sentence(only)


@pytest.mark.parametrize(("moved", "words"), [(True, "Answers moved to choice 3: 25"), (False, "did not clearly move")])
def test_the_place_of_answers_is_said(report, moved, words):
    shift = PositionShift(
        position=2, n=200, baseline=0.25, candidate=0.6, right=0.26, p_value=0.001, q_value=0.002, moved=moved
    )
    found = flips(report.tasks[0].task).model_copy(update={"position": shift, "kinds": ()})
    report = report.model_copy(update={"flips": (found,)})
    assert words in (markdown_flips(report, report.tasks[0]) or "")
    assert words in render_html(report)


def test_hostile_answers_are_shown_and_can_not_act(report):
    report = with_flips(report, HOSTILE)
    page, text = render_html(report), render_markdown(report)
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page + text
    assert "\u202e" not in page + text
    for line in text.splitlines():
        if line.startswith("| refused"):
            assert "<script" not in line
            assert "\\|" in line
            assert line.replace("\\|", "").count("|") == 6
    out = io.StringIO()
    print_report(report, Console(file=out, width=120))
    assert "\x1b[31m" not in out.getvalue()
