"""Claims in the report: worded as causes only where every condition holds, and saying which does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffharness.assembly.claims import clear_keys, contributed, not_selected, tried, worded
from diffharness.attribution.claims import Documents, Trial, Wanted, judge, unseen
from diffharness.report import claims as words


def claim(**changes: Any) -> dict[str, Any]:
    """A claim that holds in every way."""
    return {
        "task": "one", "category": "safety", "origin": "written", "effect": 0.5, "claimed_sign": 1, "n": 40,
        "interval": {"low": 0.3, "high": 0.7, "level": 0.95, "method": "bootstrap"},
        "random_effects": {"mean": 0.01, "sd": 0.03, "q05": -0.05, "q95": 0.06, "n_sets": 24, "exceed": 0, "factor": 1},
        "p_random": 0.04, "p_studentised": 1e-6, "mean_difference": 0.4, "reconstruct_only": 0.0, "swap": 0.6,
        "not_tried": None, **changes,
    }  # fmt: skip


def check(**changes: Any) -> dict[str, Any]:
    interval = {"low": 0.2, "high": 0.6, "level": 0.95, "method": "Tango"}
    return {
        "task": "one",
        "category": "safety",
        "origin": "written",
        "change": 0.4,
        "interval": interval,
        "score": 0.3,
        "n": 90,
        **changes,
    }


def said(found: dict[str, Any], checks: list[dict[str, Any]], *, gap: float = 0.6, n: int = 8, tracks: bool = True):
    accounts = {"one": {"surrogate": {"gap": 0.55, "tracks": tracks}}}
    rows = [{"task": "one", "gap": gap, "is_primary": True}, {"task": "one", "gap": 9.0, "is_primary": False}]
    (made,) = worded({"n_looked_at": n, "claims": [found]}, checks, accounts, rows)
    return made


def test_a_claim_that_holds_in_every_way_is_a_cause():
    made = said(claim(), [check()])
    assert (made.is_causal, made.words) == (True, "a cause")
    assert made.p_corrected == pytest.approx(8e-6)


@pytest.mark.parametrize(
    ("changes", "checks", "setting", "missing"),
    [
        ({"p_random": 0.08}, [check()], {}, ["sets"]),
        ({"p_studentised": 0.01}, [check()], {}, ["corrected"]),
        ({}, [check(change=-0.4, interval={"low": -0.6, "high": -0.2})], {}, ["check"]),
        ({}, [check(interval={"low": -0.1, "high": 0.6})], {}, ["check"]),
        ({}, [], {}, ["checked"]),
        ({}, [check(origin="read")], {}, ["checked"]),
        ({}, [check()], {"tracks": False}, ["tracks"]),
        ({"interval": {"low": -0.1, "high": 0.7}}, [check()], {}, ["unseen"]),
        ({"claimed_sign": -1, "p_random": 1.0, "p_studentised": 1.0}, [check()], {}, ["sign"]),
        ({"p_random": 0.5, "p_studentised": 0.6}, [check()], {"tracks": False}, ["sets", "tracks"]),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_called_a_cause(changes, checks, setting, missing):
    made = said(claim(**changes), checks, **setting)
    assert not made.is_causal
    assert made.words == words.falls_short_words([words.MISSING[name] for name in missing])
    assert "cause" not in made.words


def test_signs_are_compared_each_with_its_own_gap():
    """Perplexity falls where the log-likelihood rises."""
    falling = check(change=-0.4, interval={"low": -0.6, "high": -0.2})
    assert said(claim(), [falling], gap=-0.6).is_causal
    assert not said(claim(), [check()], gap=-0.6).is_causal


def test_bounds_of_a_check_may_stand_in_an_interval_or_alone():
    alone = {key: value for key, value in check(low=0.2, high=0.6).items() if key != "interval"}
    assert said(claim(), [alone]).is_causal
    assert not said(claim(), [{**alone, "low": -0.2}]).is_causal


def test_a_cause_against_the_gap_is_called_that():
    effect = {"effect": -0.5, "claimed_sign": -1, "interval": {"low": -0.7, "high": -0.3}}
    made = said(claim(**effect), [check(change=-0.4, interval={"low": -0.6, "high": -0.2})])
    assert (made.is_causal, made.words) == (True, "a cause that works against the gap")


def test_everything_looked_at_is_corrected_for():
    assert said(claim(p_studentised=0.001), [check()], n=20).p_corrected == pytest.approx(0.02)
    made = said(claim(p_studentised=0.001), [check()], n=100)
    assert made.p_corrected == pytest.approx(0.1)
    assert not made.is_causal


def test_what_could_not_be_tried_says_why():
    nothing = dict.fromkeys(("random_effects", "p_random", "p_studentised"))
    made = said(claim(**nothing, not_tried="only 3 latents fire"), [check()])
    assert (made.is_causal, made.words) == (False, "contributes; not tried: only 3 latents fire")
    assert made.effect == 0.5
    alone = said(not_selected("one", ("safety", "written")), [check()])
    assert (alone.is_causal, alone.effect, alone.words) == (False, None, "found only where it was looked for")


def test_a_tested_claim_is_told_from_the_documents_that_did_not_select_it():
    docs = Documents(np.ones(20), np.ones(20), np.arange(20) % 2)
    seen_N, signs_2 = docs.half_N == 0, np.array([1, 0])
    trial = Trial(
        wanted=Wanted("safety", "read", np.array([1, 2])), effect_N=np.where(seen_N, 9.0, 1.0),
        random_SN=np.where(seen_N, 9.0, np.linspace(-0.2, 0.2, 24)[:, None]), factors=(1.0, 2.0, 4.0), not_tried=None,
        mean_difference_N=np.where(seen_N, 9.0, 0.5), reconstruct_only_N=np.where(seen_N, 9.0, 0.25),
        swap_N=np.where(seen_N, 9.0, 2.0),
    )  # fmt: skip
    finding = judge(trial.effect_N, trial.random_SN, signs_2, docs, np.random.default_rng(0))
    assert finding is not None
    made = said(tried("one", trial, finding, docs, unseen(signs_2, docs)), [])
    assert (made.effect, made.n, made.mean_difference, made.reconstruct_only, made.swap) == (1.0, 10, 0.5, 0.25, 2.0)
    random = made.random_effects
    assert random is not None
    assert (random.n_sets, random.exceed, random.factor) == (24, 0, 2.0)
    assert (random.q05, random.q95) == pytest.approx((-0.18, 0.18))


def test_a_tasks_contributions_are_read_by_document():
    rows = [
        {"task": task, "doc_id": i, "weight": 2.0 - i, "kind": kind, "origin": origin, "category": category,
         "contribution": value * (i + 1)}
        for task in ("one", "two")
        for kind, origin, category, value in (
            ("latents", "written", "safety", 1.0), ("latents", "read", "safety", -0.5),
            ("latents", "written", "facts", 0.0), ("bias", "written", None, 0.25),
        )
        for i in (1, 0)
    ]  # fmt: skip
    found = contributed(pa.Table.from_pylist(rows), "two")
    assert found.doc_ids == (0, 1)
    assert found.keys == (("safety", "written"), ("safety", "read"))
    np.testing.assert_array_equal(found.values_NC, [[1.0, -0.5], [2.0, -1.0]])
    np.testing.assert_array_equal(found.gap_N, [0.75, 1.5])
    np.testing.assert_array_equal(found.sample_N, [2.0, 1.0])


def test_only_clear_contributions_of_some_size_are_claims():
    def part(category, value, low, high, kind="latents"):
        return {
            "kind": kind,
            "category": category,
            "origin": "written",
            "contribution": value,
            "low": low,
            "high": high,
        }

    parts = [part("a", 0.5, 0.4, 0.6), part("b", 0.5, -0.1, 1.0), part("c", 0.04, 0.03, 0.05),
             part(None, 0.5, 0.4, 0.6, "error")]  # fmt: skip
    assert clear_keys({"surrogate": {"gap": 1.0}, "components": parts}) == {("a", "written")}
