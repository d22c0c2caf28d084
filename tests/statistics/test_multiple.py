"""Corrections against scipy and by their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffharness.statistics.multiple import benjamini_hochberg, holm

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@settings(deadline=None)
@given(p_lists)
def test_benjamini_hochberg_agrees_with_scipy(p_values: list[float]) -> None:
    np.testing.assert_allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values), rtol=1e-12)


@settings(deadline=None)
@given(p_lists)
def test_holm_agrees_with_its_definition(p_values: list[float]) -> None:
    order = np.argsort(p_values, kind="stable")
    n = len(p_values)
    running, expected = 0.0, np.empty(n)
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (n - rank) * p_values[place]))
        expected[place] = running
    np.testing.assert_allclose(holm(p_values), expected)


@settings(deadline=None)
@given(p_lists)
def test_corrections_never_shrink_a_p_value_and_keep_the_order(p_values: list[float]) -> None:
    p = np.array(p_values)
    q, adjusted = benjamini_hochberg(p), holm(p)
    assert np.all(q >= p - 1e-15)
    assert np.all(adjusted >= q - 1e-15)
    assert np.all(np.diff(q[np.argsort(p)]) >= 0)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)


def test_missing_values_stay_missing_and_do_not_count() -> None:
    for correct in (benjamini_hochberg, holm):
        with_gaps = correct([0.01, None, 0.04, float("nan")])
        assert np.isnan(with_gaps[[1, 3]]).all()
        np.testing.assert_array_equal(with_gaps[[0, 2]], correct([0.01, 0.04]))


def test_a_table_is_one_family() -> None:
    p = np.random.default_rng(0).random((4, 3))
    np.testing.assert_array_equal(benjamini_hochberg(p).ravel(), benjamini_hochberg(p.ravel()))


def test_a_value_that_is_no_p_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 1\.2"):
        benjamini_hochberg([0.1, 1.2])
