"""What is said of every row once all are known: corrections by family, what would settle, what is approximate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffharness.assembly.scores import decisions, row_n_to_settle
from diffharness.statistics.discordant import tango_interval
from diffharness.statistics.multiple import benjamini_hochberg, holm


def _row(p: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    return {
        "task": "t", "n": 100, "baseline": 0.5, "gap": 0.05, "low": -0.02, "high": 0.12, "level": 0.95, "p_value": p,
        "higher_is_better": True, "effect_kind": "absolute", "is_primary": True, "is_group": False, "mde": 0.1,
        "standard_error": 0.035, "approximate_reason": None, "cluster": None, "n_clusters": None, **changes,
    }  # fmt: skip


def test_each_family_is_corrected_by_itself() -> None:
    p_primary, p_other, p_groups = [0.01, 0.02, 0.03], [0.04, 0.2], [0.011, 0.5]
    rows = [_row(p_primary[0]), _row(p_other[0], is_primary=False), _row(p_primary[1]), _row(p_primary[2]),
            _row(p_groups[0], is_primary=False, is_group=True), _row(p_other[1], is_primary=False),
            _row(p_groups[1], is_primary=False, is_group=True)]  # fmt: skip
    found = decisions(rows, 0.02)
    assert [found[i]["p_holm"] for i in (0, 2, 3)] == pytest.approx(holm(p_primary))
    assert [found[i]["p_holm"] for i in (1, 5)] == pytest.approx(holm(p_other))
    assert [found[i]["p_holm"] for i in (4, 6)] == pytest.approx(holm(p_groups))
    tasks = benjamini_hochberg([p_primary[0], p_other[0], p_primary[1], p_primary[2], p_other[1]])
    assert [found[i]["q_value"] for i in (0, 1, 2, 3, 5)] == pytest.approx(tasks)


def test_a_row_without_a_test_has_no_corrected_p() -> None:
    found = decisions([_row(None), _row(0.02)], 0.02)
    assert (found[0]["p_holm"], found[0]["q_value"]) == (None, None)
    assert found[1]["p_holm"] == pytest.approx(0.02)


def test_only_what_is_inconclusive_is_to_be_settled() -> None:
    assert row_n_to_settle(_row(low=0.01), 0.02) is None, "improved"
    assert row_n_to_settle(_row(gap=0.0, low=-0.01, high=0.01), 0.02) is None, "no change"
    wanted = row_n_to_settle(_row(), 0.02)
    assert wanted == int(np.ceil(100 * (0.07 / 0.05) ** 2))
    wide = 1.5
    low, high = tango_interval(0, 0, 60)
    found = row_n_to_settle(_row(n=60, gap=0.0, low=low, high=high, standard_error=0.0), 0.02)
    assert found == 189
    assert row_n_to_settle(_row(gap=0.5, low=-wide, high=2.0, effect_kind="relative"), 0.02) == 1600


def test_an_approximate_row_says_why() -> None:
    plain, few = decisions([_row(), _row(approximate_reason="fewer than 200 documents")], 0.02)
    assert (plain["approximate"], plain["approximate_reason"]) == (False, None)
    assert (few["approximate"], few["approximate_reason"]) == (True, "fewer than 200 documents")
