"""The stage on a small run: a row a task with a gap, values that add up, and reasons where there are none."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import diffharness
from diffharness.attribution.shapley import BIAS_AND_ERROR
from diffharness.report.schema import Report


@pytest.fixture(scope="module")
def folder(tiny_options, tmp_path_factory):
    """A run on tasks of all output types, with answers generated anew for every set of categories."""
    output = tmp_path_factory.mktemp("shapley") / "run"
    options = {**tiny_options, "controls": False, "random_sets": 0, "shapley": "all", "output": output}
    diffharness.run(diffharness.RunConfig.make(options))
    return output


@pytest.fixture(scope="module")
def report(folder):
    return Report.load(folder)


def test_every_task_with_a_gap_has_a_row(report):
    moved = {task.task for task in report.tasks if task.is_primary and task.verdict in ("improved", "regressed")}
    assert {row.task for row in report.shapley} == moved
    assert "tiny_answer" in moved
    assert all(row.players and row.reason is None for row in report.shapley)


def test_values_sum_to_what_all_players_change(report):
    for row in report.shapley:
        assert row.v_none is not None
        assert row.v_all is not None
        assert sum(p.value for p in row.players) == pytest.approx(row.v_all - row.v_none, abs=1e-9)
        assert abs(row.residual) < 1e-9
        assert row.n_subsets == 2 ** len(row.players)


def test_all_players_are_the_candidate_as_lm_eval_scored_it(report):
    scores = {task.task: task.candidate for task in report.tasks if task.is_primary}
    for row in report.shapley:
        assert row.n_changed == 0
        assert row.v_all == pytest.approx(scores[row.task], rel=1e-4)
        assert row.recorded == pytest.approx(scores[row.task], rel=1e-9)


def test_written_is_that_of_the_candidates_order(report, folder):
    rows = pq.read_table(folder / "contributions.parquet").to_pylist()
    for row in report.shapley:
        if row.metric == "bits_per_byte":
            continue  # there documents weigh differently
        own = [r for r in rows if r["task"] == row.task and r["origin"] == "written"]
        n = len({r["doc_id"] for r in own})
        for player in row.players:
            is_own = [
                r["category"] in player.categories or (not player.categories and r["category"] is None) for r in own
            ]
            wanted = sum(r["contribution"] + r["interaction"] for r, mine in zip(own, is_own, strict=True) if mine) / n
            assert player.written == pytest.approx(wanted, abs=1e-9)
        assert row.players[-1].name == BIAS_AND_ERROR


def test_agreement_counts_the_clear_pairs(report):
    found = report.shapley_agreement
    players = [p for row in report.shapley for p in row.players]
    assert found is not None
    assert found.n_pairs == len(players)
    assert found.n_clear == sum(p.agrees is not None for p in players)
    assert found.sign_agreement == pytest.approx(np.mean([p.agrees for p in players if p.agrees is not None]))


def test_without_being_asked_for_generated_answers_have_a_reason(folder, tiny_options, tmp_path, ran):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    options = {**tiny_options, "controls": False, "random_sets": 0, "output": tmp_path / "run"}
    again = diffharness.run(diffharness.RunConfig.make(options))
    row = next(row for row in again.shapley if row.task == "tiny_answer")
    assert row.reason is not None
    assert "--shapley all" in row.reason
    assert not row.players
    assert ran == ["shapley", "report"]


def test_none_asks_for_no_stage(folder, tiny_options, tmp_path, ran):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    options = {**tiny_options, "controls": False, "random_sets": 0, "shapley": "none", "output": tmp_path / "run"}
    again = diffharness.run(diffharness.RunConfig.make(options))
    assert again.shapley == ()
    assert again.shapley_agreement is None
    assert ran == ["report"]
