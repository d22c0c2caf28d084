"""Two proportions: the paper's figures, score intervals by their definition, coverage by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from diffharness.statistics.proportions import (
    change_interval,
    fisher_exact_p,
    normalised_change,
    ratio_interval,
    total_to_tell,
)


@pytest.mark.parametrize(
    ("counts", "change", "p_value"),
    [((2, 89, 1, 112), 151.7, 0.59), ((19, 89, 18, 112), 32.8, 0.36), ((1, 89, 4, 112), -68.5, 0.39)],
)
def test_the_papers_figures(counts: tuple[int, int, int, int], change: float, p_value: float) -> None:
    found, reason = normalised_change(*counts)
    assert reason is None
    assert found == pytest.approx(change, abs=0.05)
    assert fisher_exact_p(*counts) == pytest.approx(p_value, abs=0.005)
    interval = change_interval(*counts)
    assert interval is not None
    assert interval[0] < 0 < interval[1]
    assert interval[0] < change < interval[1]


@pytest.mark.parametrize("counts", [(3, 10, 0, 12), (3, 10, 0, 0), (0, 0, 3, 10)])
def test_no_share_to_compare_with_is_no_number(counts: tuple[int, int, int, int]) -> None:
    found, reason = normalised_change(*counts)
    assert found is None
    assert reason
    assert change_interval(*counts) is None


def test_a_category_gone_is_a_loss_of_all_of_it() -> None:
    assert normalised_change(0, 89, 4, 112) == (-100.0, None)
    interval = change_interval(0, 89, 4, 112)
    assert interval is not None
    assert interval[0] == -100.0
    assert 0 < interval[1] < 100


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 30), st.integers(0, 20), st.integers(1, 30))
def test_ratio_intervals_hold_the_ratio_and_turn_round_with_the_sides(a: int, more_a: int, b: int, more_b: int) -> None:
    assume(a + b > 0)
    total_a, total_b = a + more_a, b + more_b
    there, back = ratio_interval(a, total_a, b, total_b), ratio_interval(b, total_b, a, total_a)
    assert there is not None
    assert back is not None
    if b > 0:
        assert there[0] - 1e-9 <= (a / total_a) / (b / total_b) <= there[1] + 1e-9
    for end, mirrored in ((there[0], back[1]), (there[1], back[0])):
        assert end == pytest.approx(1 / mirrored if mirrored else np.inf, rel=1e-6)


def test_ratio_intervals_agree_with_the_log_interval_where_counts_are_large() -> None:
    a, total_a, b, total_b = 420, 2000, 350, 2100
    deviation = np.sqrt(1 / a - 1 / total_a + 1 / b - 1 / total_b)
    katz = np.log((a / total_a) / (b / total_b)) + np.array([-1, 1]) * 1.959964 * deviation
    assert ratio_interval(a, total_a, b, total_b) == pytest.approx(tuple(np.exp(katz)), rel=2e-3)


@pytest.mark.parametrize(("p_a", "p_b"), [(0.1, 0.1), (0.3, 0.1), (0.05, 0.2)])
def test_ratio_intervals_cover_at_small_counts(p_a: float, p_b: float) -> None:
    n_a, n_b = 25, 30
    covered = 0.0
    for a in range(n_a + 1):
        for b in range(n_b + 1):
            chance = stats.binom.pmf(a, n_a, p_a) * stats.binom.pmf(b, n_b, p_b)
            interval = ratio_interval(a, n_a, b, n_b) if chance > 1e-7 else None
            covered += chance if interval is None or interval[0] <= p_a / p_b <= interval[1] else 0.0
    assert covered >= 0.93


def test_everything_of_both_sides_is_an_interval_round_one() -> None:
    interval = ratio_interval(5, 5, 5, 5)
    assert interval is not None
    assert interval[0] < 1 < interval[1]


def test_how_many_latents_would_tell_gives_the_power_asked_for() -> None:
    n = total_to_tell(10, 100, 20, 100)
    assert n is not None
    rng = np.random.default_rng(0)
    a, b = rng.binomial(n, 0.1, 2000), rng.binomial(n, 0.2, 2000)
    deviation = np.sqrt((a + b) / n * (1 - (a + b) / (2 * n)) / n)
    assert np.mean(np.abs(a - b) / n / deviation > 1.96) == pytest.approx(0.8, abs=0.04)
    assert total_to_tell(3, 30, 4, 40) is None
    assert total_to_tell(0, 0, 1, 5) is None


def test_counts_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        fisher_exact_p(3, 2, 1, 5)
