"""Flips of a whole run on tiny models: truncation as lm-eval's own generation makes it, beside the run's account."""

from __future__ import annotations

import json

import pytest

from diffharness.evaluation.scores import Evaluation
from diffharness.report.schema import FlipKinds, Report


@pytest.fixture(scope="module")
def report(tiny_run) -> Report:
    return Report.load(tiny_run)


@pytest.fixture(scope="module")
def by_task(report) -> dict[str, FlipKinds]:
    return {row.task: row for row in report.flips}


def test_every_task_has_its_flips(report, by_task):
    for task in report.tasks:
        if task.is_primary:
            assert by_task[task.task].n == task.n
    choice = next(t for t in report.tasks if t.task == "tiny_choice" and t.is_primary)
    assert by_task["tiny_choice"].n_flips > 0
    assert by_task["tiny_choice"].position is not None
    assert choice.gap == pytest.approx(
        (by_task["tiny_choice"].n_gained - by_task["tiny_choice"].n_lost) / by_task["tiny_choice"].n
    )
    assert by_task["tiny_word"].kinds == ()
    assert by_task["tiny_text"].reason == "there is no free answer to sort"


def test_answers_cut_off_by_the_limit_are_truncated(tiny_run, by_task):
    """The baseline writes to the limit of six tokens; the candidate learned to end."""
    sides = [
        Evaluation.load(tiny_run / "evaluation" / side).of("tiny_answer", "none") for side in ("baseline", "candidate")
    ]
    found = by_task["tiny_answer"]
    gained = [i for i in sides[0] if [side[i].scalar("exact_match") for side in sides] == [0.0, 1.0]]
    cut = {i for i in gained if sides[0][i].stopped is False and sides[1][i].stopped}
    assert cut
    signs = {e.doc_id: e.evidence for k in found.kinds for e in k.examples}
    assert any("truncated: ended by the limit of tokens" in said for i in cut & set(signs) for said in signs[i])
    assert found.n_gained == len(gained)
    assert sum(k.n_gained + k.n_lost for k in found.kinds) == found.n_flips


def test_gaps_of_the_kinds_add_up_to_the_tasks(report, by_task):
    task = next(t for t in report.tasks if t.task == "tiny_answer" and t.is_primary)
    gaps = [kind.gap for kind in by_task["tiny_answer"].kinds]
    assert sum(gap for gap in gaps if gap is not None) == pytest.approx(task.gap)


def test_contributions_of_all_flips_are_the_accounts(tiny_run, report, by_task):
    """All documents of the tiny task that moved are in the account, so kinds and the account agree."""
    task = next(t for t in report.tasks if t.task == "tiny_answer" and t.is_primary)
    kinds = by_task["tiny_answer"].kinds
    assert sum(k.n_accounted for k in kinds) == by_task["tiny_answer"].n_flips
    total = sum(k.n_accounted * sum(k.contributions.values()) for k in kinds) / task.n
    assert task.surrogate is not None
    assert total == pytest.approx(task.surrogate.gap, abs=1e-4), "where answers score alike the surrogate has no gap"


def test_the_artifact_is_plain_json_and_in_the_page(tiny_run, by_task):
    body = json.loads((tiny_run / "flips.json").read_text())
    assert [FlipKinds.model_validate(row) for row in body] == list(by_task.values())
    assert "documents changed their score" in (tiny_run / "report.html").read_text()
