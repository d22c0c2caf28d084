"""`make demo`, as a newcomer runs it, and what its report has to show."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffharness import organism
from diffharness.organism.plant import Plant
from diffharness.report.schema import Report
from tests import planted

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def make_demo() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "demo"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}
    )


@pytest.fixture(scope="module")
def first() -> subprocess.CompletedProcess[str]:
    return make_demo()


@pytest.fixture(scope="module")
def report(first) -> Report:
    assert first.returncode == 0, first.stderr[-2000:]
    return Report.load(ROOT / "reports" / "demo")


@pytest.fixture(scope="module")
def strengths(report):
    return Plant.load(Path(organism.build().plant)).strengths


def test_second_demo_only_prints(report):
    again = make_demo()
    assert again.returncode == 0
    assert "evaluate" not in again.stderr
    assert "Did" in again.stdout or "tasks changed" in again.stdout


def test_contributions_sum_to_the_surrogates_gap(report):
    assert [t.task for t in planted.accounted(report)]
    assert planted.incomplete_tasks(report) == []


def test_planted_category_writes_the_most_and_at_least_half(report, strengths):
    written = planted.blames(report, strengths, 1, ("written",))
    assert {b.moved for b in written} == planted.moved_capabilities(strengths)
    assert [b for b in written if not b.holds] == []


def test_planted_category_carries_the_most_with_what_is_read_too_and_mostly_half(report, strengths):
    """Half in all but one: latents that nobody could name carry much of what is read in the multilingual task."""
    blames = planted.blames(report, strengths, 1)
    assert {b.moved for b in blames} == planted.moved_capabilities(strengths)
    assert [b for b in blames if b.leader != b.moved] == []
    assert sum(b.holds for b in blames) >= len(blames) - 1


def test_exact_check_agrees_in_sign(report, strengths):
    assert [b for b in planted.blames(report, strengths, 1) if b.check_sign <= 0] == []


def test_shuffled_labels_fail_the_same_test(report, strengths):
    assert planted.shuffled_blames(report, strengths, np.random.default_rng(0)) < 0.1


def test_controls_are_in_the_report(report, strengths):
    names = {(c.name, c.task) for c in report.validation.controls}
    for blame in planted.blames(report, strengths, 1):
        assert {("shuffled labels", blame.task), ("random encoder", blame.task)} <= names


def test_capabilities_that_did_not_move_are_not_called_changed(report, strengths):
    moved = planted.moved_capabilities(strengths)
    still = [t for t in report.tasks if not moved & set(t.categories)]
    assert len(still) >= 3
    assert [t.task for t in still if planted.is_real(t)] == []


def test_all_four_output_types_are_accounted_for(report):
    assert {t.output_type for t in planted.accounted(report)} == {
        "multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until",
    }  # fmt: skip


def test_replay_agrees_with_lm_eval_everywhere(report):
    assert len(report.validation.replay) >= 16
    assert [c for c in report.validation.replay if not c.holds] == []


def test_category_shift_says_what_it_knows(report, strengths):
    assert {c.name for c in report.categories} >= set(strengths)
    for row in report.categories:
        assert 0 <= row.n_baseline <= row.total_baseline
        assert (row.change is None) == (row.change_reason is not None)
        assert row.q_value is None or row.q_value < 0.05 or "too few to tell" in row.conclusion
