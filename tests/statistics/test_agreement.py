"""Cohen's κ against its definition, and the coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffharness.statistics.agreement import Agreement, agreement, cohens_kappa

labels = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30)


def _by_hand(a: list[str], b: list[str]) -> float | None:
    n, names = len(a), set(a) | set(b)
    observed = sum(x == y for x, y in zip(a, b)) / n
    expected = sum((a.count(name) / n) * (b.count(name) / n) for name in names)
    return None if abs(1 - expected) < 1e-12 else (observed - expected) / (1 - expected)


def test_cohens_own_kind_of_table() -> None:
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohens_kappa(a, b) == pytest.approx((0.7 - 0.5) / (1 - 0.5), abs=1e-15)


@settings(deadline=None)
@given(labels)
def test_agrees_with_the_definition(pairs: list[tuple[str, str]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    assert cohens_kappa(a, b) == (None if _by_hand(a, b) is None else pytest.approx(_by_hand(a, b), abs=1e-12))


@settings(deadline=None)
@given(labels)
def test_neither_order_nor_names_nor_who_is_first_matters(pairs: list[tuple[str, str]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    renamed = str.maketrans("abc", "zxy")
    there = cohens_kappa(a, b)
    for other in (
        cohens_kappa(b, a),
        cohens_kappa(a[::-1], b[::-1]),
        cohens_kappa([x.translate(renamed) for x in a], [y.translate(renamed) for y in b]),
    ):
        assert other == (None if there is None else pytest.approx(there, abs=1e-12))


def test_full_agreement_is_one_and_independence_is_zero() -> None:
    assert cohens_kappa(list("abcab"), list("abcab")) == 1.0
    assert cohens_kappa(list("aabb") * 5, list("abab") * 5) == pytest.approx(0.0, abs=1e-15)


def test_it_is_undefined_where_both_say_one_and_the_same_thing_throughout() -> None:
    rng = np.random.default_rng(0)
    assert agreement(list("aaa"), list("aaa"), rng) == Agreement(None, None, None, 3)
    assert agreement([], [], rng) == Agreement(None, None, None, 0)
    assert cohens_kappa(list("aaa"), list("bbb")) == 0.0
    assert cohens_kappa(list("aaa"), list("aab")) == 0.0


def test_labels_of_different_things_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3 labels"):
        cohens_kappa(list("ab"), list("abc"))


def test_there_is_no_interval_where_one_thing_alone_makes_kappa_defined() -> None:
    found = agreement(["a"] * 40 + ["b"], ["a"] * 40 + ["b"], np.random.default_rng(1))
    assert found == Agreement(1.0, None, None, 41)
    found = agreement(["a"] * 40 + ["b"] * 4, ["a"] * 40 + ["b"] * 4, np.random.default_rng(1))
    assert found == Agreement(1.0, 1.0, 1.0, 44)


def test_the_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    names, share = np.array(["a", "b", "c"]), np.array([0.5, 0.3, 0.2])
    copies = 0.6
    true = copies  # b copies a with this chance and draws from the same marginal otherwise
    covered = 0
    for _ in range(200):
        a = rng.choice(names, 120, p=share)
        b = np.where(rng.random(120) < copies, a, rng.choice(names, 120, p=share))
        found = agreement(a.tolist(), b.tolist(), rng, n_resamples=400)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    assert 180 <= covered <= 198


def test_the_same_generator_gives_the_same_interval() -> None:
    a, b = list("aabbccabca"), list("aabbcaabcb")
    assert agreement(a, b, np.random.default_rng(3)) == agreement(a, b, np.random.default_rng(3))
