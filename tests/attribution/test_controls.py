import numpy as np
import pytest

from diffharness.attribution.controls import Carried, leader, share_of, shuffled_labels

NAMES = ["x", "y", "z"]
CATEGORIES = ["x"] * 4 + ["y"] * 8 + ["z"] * 12


def planted(sign: float = 1.0) -> Carried:
    """All is written by the four latents of x; latents that write nothing follow."""
    rng = np.random.default_rng(0)
    latents = np.concatenate([rng.uniform(0.8, 1.2, 4), rng.uniform(-0.01, 0.01, 20), np.zeros(10)])
    return Carried(sign * 4, sign * latents)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_leader_writes_most_in_the_gaps_direction(sign):
    found = leader(planted(sign), CATEGORIES + ["y"] * 10, NAMES)
    assert found.category == "x"
    assert found.share == pytest.approx(1, abs=0.05)


def test_shares_sum_to_one_and_are_none_where_nothing_is_written():
    carried, categories = planted(), CATEGORIES + ["y"] * 10
    assert sum(share_of(carried, categories, n) or 0 for n in NAMES) == pytest.approx(1)
    assert share_of(Carried(1.0, np.zeros(34)), categories, "x") is None


def test_shuffled_labels_leave_a_category_its_number_of_latents_only():
    share, leads = shuffled_labels(planted(), CATEGORIES + ["y"] * 10, NAMES, "x", np.random.default_rng(1))
    assert share == pytest.approx(4 / 24, abs=0.03), "latents that write nothing are not dealt"
    assert leads < 0.35


def test_shuffling_deals_the_same_labels():
    one = Carried(1.0, np.array([1.0, 1.0, 1.0]))
    share, leads = shuffled_labels(one, ["x", "x", "x"], NAMES, "x", np.random.default_rng(0))
    assert (share, leads) == (1.0, 1.0)
