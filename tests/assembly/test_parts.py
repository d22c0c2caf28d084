"""What is called moved, what is checked, and how tokens read: on rows made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffharness.assembly.checks import by_seeds, clear_contributions, controls, no_check_reason
from diffharness.assembly.latents import token_texts
from diffharness.assembly.numbers import number
from diffharness.assembly.scores import moved_tasks, row_verdict
from tests.attribution.test_account import planted
from tests.tiny import tokenizer


def row(task: str, gap: float, low: float, high: float, **changes: object) -> dict[str, Any]:
    return {
        "task": task, "gap": gap, "low": low, "high": high, "baseline": 0.5, "higher_is_better": True,
        "effect_kind": "absolute", "is_primary": True, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "low", "high", "changes", "expected"),
    [
        (0.1, 0.05, 0.15, {}, "improved"),
        (0.1, 0.05, 0.15, {"higher_is_better": False}, "regressed"),
        (-0.1, -0.15, -0.05, {}, "regressed"),
        (0.01, 0.005, 0.015, {}, "no change"),
        (0.1, -0.01, 0.2, {}, "inconclusive"),
        (0.03, 0.025, 0.035, {"effect_kind": "relative", "baseline": 2.0}, "no change"),
        (0.05, 0.045, 0.055, {"effect_kind": "relative", "baseline": 2.0}, "improved"),
    ],
)
def test_verdict_of_a_row(gap, low, high, changes, expected):
    assert row_verdict(row("a", gap, low, high, **changes), 0.02) == expected


def test_only_primary_rows_make_a_task_moved():
    rows = [row("a", 0.1, 0.05, 0.15), row("b", 0.1, 0.05, 0.15, is_primary=False), row("c", 0.0, -0.1, 0.1)]
    assert moved_tasks(rows, 0.02) == {"a"}
    assert moved_tasks(rows, 0.2) == set()


def part(category: str | None, contribution: float, spread: float = 0.01, kind: str = "latents") -> dict[str, Any]:
    low, high = contribution - spread, contribution + spread
    return {
        "kind": kind,
        "origin": "written",
        "category": category,
        "contribution": contribution,
        "low": low,
        "high": high,
    }


PARTS = [part("x", 0.05), part("y", 0.05, 0.1), part("z", 0.009, 0.001), part(None, 0.05, kind="bias")]


def test_checked_are_clear_latent_contributions_to_moved_tasks():
    rows = [row("a", 0.1, 0.05, 0.15), row("b", 0.0, -0.1, 0.1)]
    tasks = {name: {"surrogate": {"gap": 0.1}, "components": PARTS} for name in ("a", "b")}
    assert clear_contributions(rows, tasks, 0.02) == {"written": {"x": ["a"]}, "read": {}}


def test_what_is_not_checked_says_why():
    reasons = [no_check_reason(p, 0.1, moved=True) for p in PARTS[1:]]
    assert reasons == [
        "its contribution is not clear", "it accounts for less than 10% of the gap", "only latents can be put back",
    ]  # fmt: skip
    assert no_check_reason(PARTS[0], 0.1, moved=False) == "no gap to explain"


def test_controls_compare_the_real_leader_with_both_destructions():
    class Blind:
        task = "a"
        gap = 1.0

        def latents_L(self, origin: str) -> np.ndarray:
            return np.array({"written": [0.0, 1.0, 1.0], "read": [0.0, 0.0, 2.0]}[origin])

    tasks = {"a": {"surrogate": {"gap": 1.0}, "latents": {"written": [0.4, 0.2, 0.1], "read": [0.2, 0.0, 0.1]}}}
    found = controls(
        tasks, categories=["x", "y", "z"], moved=["a"], blind_accounts=[Blind()], blind_categories=["x", "x", "z"],
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert [(c.name, c.category, c.share) for c in found] == [
        ("shuffled labels", "x", pytest.approx(0.6)),
        ("random encoder", "x", pytest.approx(0.6)),
    ]
    assert found[0].control_share == pytest.approx(1 / 3, abs=0.03)
    assert (found[1].control_share, found[1].is_largest) == (pytest.approx(0.25), 0.0)
    without = controls(
        tasks, categories=["x", "y", "z"], moved=["a"], blind_accounts=[], blind_categories=[],
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert without == found[:1]


def test_other_seeds_are_rows_of_components_with_zeros_where_a_name_is_absent():
    """One crosscoder names its latents x and y, the other x and z; what it makes of the rest is no latents'."""
    first, second = planted(), planted(sample=dict.fromkeys(range(20), 3.0))
    names = ["x", "x", "y", "y", "unclear", "unclear"], ["x", "z", "z", "z", "unclear", "unclear"]
    found = by_seeds([([first], names[0]), ([second], names[1])])
    assert list(found) == ["t"]
    rows = {(row["kind"], row["origin"], row["category"]): row["seeds"] for row in found["t"]}
    assert all(len(seeds) == 2 for seeds in rows.values())
    for origin in ("written", "read"):
        sums = [account.latents_L(origin) for account in (first, second)]
        assert rows["latents", origin, "x"] == pytest.approx([sums[0][:2].sum(), sums[1][0]])
        assert rows["latents", origin, "y"] == pytest.approx([sums[0][2:4].sum(), 0.0])
        assert rows["latents", origin, "z"] == pytest.approx([0.0, sums[1][1:4].sum()])
    totals = np.sum(list(rows.values()), axis=0)
    assert totals == pytest.approx([first.gap, second.gap], abs=1e-9)
    assert {key for key in rows if key[0] != "latents"} == {
        ("bias", "written", None), ("error", "written", None), ("error", "read", None), ("prior", None, None),
    }  # fmt: skip
    assert by_seeds([]) == {}


def test_tokens_read_as_they_do_in_the_text():
    words = tokenizer()
    assert "".join(token_texts(words("the dog runs")["input_ids"], words)) == words.decode(
        words("the dog runs")["input_ids"], clean_up_tokenization_spaces=False
    )


def test_numbers_that_are_none_become_none():
    assert [number(v) for v in (1.5, None, float("nan"), float("inf"))] == [1.5, None, None, None]
