"""BCa intervals against scipy's, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from diffharness.statistics.bca import Width, bca_intervals, skewness


def _mean_jackknife(values: np.ndarray) -> np.ndarray:
    out = (values.sum(axis=0) - values) / (len(values) - 1)
    return out.mean(axis=0) - out


@pytest.mark.parametrize("seed", range(4))
def test_with_scipys_draws_it_is_scipys_interval(seed: int) -> None:
    values = np.random.default_rng(seed).gamma(0.7, size=60) ** 1.3
    scipys = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=3000, rng=np.random.default_rng(seed))
    found = bca_intervals(values.mean(), scipys.bootstrap_distribution, _mean_jackknife(values))
    expected = scipys.confidence_interval
    assert (float(found.low), float(found.high)) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert bool(found.defined)


def test_a_ratio_has_scipys_interval() -> None:
    rng = np.random.default_rng(9)
    size = rng.gamma(3.0, size=50)
    loss = size * rng.gamma(4.0, size=50)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.sum(axis=axis) / b.sum(axis=axis)

    scipys = stats.bootstrap(
        (loss, size), ratio, paired=True, vectorized=True, method="BCa", n_resamples=3000, rng=np.random.default_rng(1)
    )
    out = (loss.sum() - loss) / (size.sum() - size)
    found = bca_intervals(loss.sum() / size.sum(), scipys.bootstrap_distribution, out.mean() - out)
    expected = scipys.confidence_interval
    assert (float(found.low), float(found.high)) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_many_statistics_at_once_are_each_its_own() -> None:
    rng = np.random.default_rng(0)
    values_NK = rng.gamma(1.0, size=(40, 3))
    draws_RK = values_NK[rng.integers(0, 40, size=(999, 40))].mean(axis=1)
    together = bca_intervals(values_NK.mean(axis=0), draws_RK, _mean_jackknife(values_NK))
    for k in range(3):
        alone = bca_intervals(values_NK[:, k].mean(), draws_RK[:, k], _mean_jackknife(values_NK[:, k]))
        assert (float(alone.low), float(alone.high)) == pytest.approx((together.low[k], together.high[k]), rel=1e-12)


def test_a_long_tail_moves_the_interval_towards_it() -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(0.0, 1.0, size=80)
    draws = values[rng.integers(0, 80, size=(4000, 80))].mean(axis=1)
    found = bca_intervals(values.mean(), draws, _mean_jackknife(values))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low > low
    assert found.high > high


def test_students_width_for_few_normal_values() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(size=12)
    values = np.concatenate([values, -values])[:12]
    draws = values[rng.integers(0, 12, size=(40_000, 12))].mean(axis=1)
    found = bca_intervals(values.mean(), draws, 0 * values + _mean_jackknife(values), width=Width((12 / 11) ** 0.5, 11))
    students = 2 * stats.t.ppf(0.975, 11) * values.std(ddof=1) / 12**0.5
    assert float(found.high - found.low) == pytest.approx(students, rel=0.06)


@pytest.mark.parametrize("draws", [np.full(100, 2.0), np.linspace(1.0, 2.0, 100)])
def test_percentiles_where_all_draws_lie_on_one_side(draws: np.ndarray) -> None:
    found = bca_intervals(2.5, draws, np.array([0.0, 0.1, -0.1]))
    assert not bool(found.defined)
    assert (float(found.low), float(found.high)) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_skewness_is_scipys_and_nothing_for_constants() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=50)
    assert float(skewness(values)) == pytest.approx(stats.skew(values))
    assert float(skewness(np.full(5, 0.1))) == 0.0
