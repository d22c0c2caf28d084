"""Claims of a whole run: every clear contribution has one, and without random sets there is none."""

from __future__ import annotations

import json

import pytest

from diffharness.assembly.claims import clear_keys
from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.report.schema import Report


def test_every_clear_contribution_to_a_real_gap_has_a_claim(first):
    report = Report.load(first)
    moved = {t.task for t in report.tasks if t.is_primary and t.verdict in ("improved", "regressed")}
    account = json.loads((first / "account.json").read_text())["tasks"]
    clear = {(name, *key) for name in moved & set(account) for key in clear_keys(account[name])}
    claimed = {(claim.task, claim.category, claim.origin) for claim in report.claims}
    assert clear
    assert clear <= claimed
    assert {task for task, _, _ in claimed} <= moved


def test_a_claim_is_tried_on_documents_of_its_task_or_says_why_not(first):
    report = Report.load(first)
    n_accounted = {task.task: task.n_accounted for task in report.tasks if task.is_primary}
    checked = {(t.task, c.category, c.origin) for t in report.tasks for c in t.components if c.ablation is not None}
    for claim in report.claims:
        assert (claim.n == 0) == (claim.effect is None)
        assert claim.n <= n_accounted[claim.task]
        assert claim.words
        if claim.random_effects is not None:
            assert claim.random_effects.n_sets == 24
            assert claim.p_random is not None
            assert claim.p_random >= 1 / 25
        if claim.is_causal:
            assert (claim.task, claim.category, claim.origin) in checked


def test_without_random_sets_there_is_no_claim_and_no_stage(again, ran):
    assert again(random_sets=0).claims == ()
    assert "claims" not in ran


def test_so_few_sets_that_nothing_could_beat_chance_are_refused(small):
    with pytest.raises(UsageError, match="at least 19"):
        RunConfig.make({**small, "random_sets": 5})
