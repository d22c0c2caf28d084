"""Gaps recomputed whole: strata, clusters, exchanges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from diffharness.statistics.paired import mean_sums, paired_difference, ratio_sums
from diffharness.statistics.resampled import Recomputed, Sums, mean_of_sums, resampled_gap, unit_codes


def _means(base: np.ndarray, cand: np.ndarray, clusters: np.ndarray | None = None):
    return mean_sums(base, cand, unit_codes(clusters, len(base)))


def test_a_mean_has_scipys_bca_interval_but_for_students_width() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=400)
    found = resampled_gap([(1.0, _means(np.zeros(400), values))], np.random.default_rng(1), n_resamples=20_000)
    scipys = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(2))
    width = scipys.confidence_interval.high - scipys.confidence_interval.low
    assert float(found.low) == pytest.approx(scipys.confidence_interval.low, abs=0.03 * width)
    assert float(found.high) == pytest.approx(scipys.confidence_interval.high, abs=0.03 * width)
    assert float(found.skewness) == pytest.approx(stats.skew(values))
    assert float(found.standard_error) == pytest.approx(values.std(ddof=1) / 20)
    assert float(found.freedom) == pytest.approx(399)


def test_strata_have_the_variance_of_their_weighted_means_and_each_its_own_draws() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.normal(mean, sd, size=n) for mean, sd, n in ((0.0, 1.0, 300), (5.0, 0.1, 40), (3.0, 2.0, 60))]
    shares = [0.5, 0.2, 0.3]
    strata = [(s, _means(np.zeros(len(x)), x)) for s, x in zip(shares, parts, strict=True)]
    found = resampled_gap(strata, rng)
    error = sum(s**2 * x.var(ddof=1) / len(x) for s, x in zip(shares, parts, strict=True)) ** 0.5
    assert float(found.gap) == pytest.approx(sum(s * x.mean() for s, x in zip(shares, parts, strict=True)))
    assert float(found.standard_error) == pytest.approx(error)
    assert float(found.high - found.low) == pytest.approx(2 * 1.99 * error, rel=0.06)


def test_exchanges_within_strata_are_enumerated_where_few_units_differ() -> None:
    one, two = np.array([0.4, 0.0, -0.1, 0.3, 0.2]), np.array([0.5, 0.6, 0.0])
    sums = [
        abs(np.dot(a, one) * 0.7 / 5 + np.dot(b, two) * 0.3 / 3)
        for a in itertools.product([-1, 1], repeat=5)
        for b in itertools.product([-1, 1], repeat=3)
    ]
    observed = abs(one.sum() * 0.7 / 5 + two.sum() * 0.3 / 3)
    strata = [(0.7, _means(np.zeros(5), one)), (0.3, _means(np.zeros(3), two))]
    found = resampled_gap(strata, np.random.default_rng(0))
    assert float(found.p_value) == pytest.approx(np.mean([s >= observed - 1e-12 for s in sums]))


def test_a_function_of_documents_gives_what_sums_give() -> None:
    rng = np.random.default_rng(5)
    base, cand = rng.gamma(2.0, size=(2, 36, 2))
    cand[:4] = base[:4]
    clusters = np.repeat(np.arange(18), 2)

    def gap_of(chosen) -> float:
        first = np.array([(cand if swapped else base)[i] for i, swapped in chosen])
        second = np.array([(base if swapped else cand)[i] for i, swapped in chosen])
        return second[:, 0].sum() / second[:, 1].sum() - first[:, 0].sum() / first[:, 1].sum()

    same = (base == cand).all(axis=1)
    slow = Recomputed(gap_of, unit_codes(clusters, 36), same)
    fast = ratio_sums(base, cand, unit_codes(clusters, 36))
    found = [
        resampled_gap([(1.0, part)], np.random.default_rng(0), n_resamples=300, n_exchanges=300)
        for part in (fast, slow)
    ]
    for name in ("gap", "low", "high", "p_value", "standard_error", "skewness"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=1e-9), name


def test_blocks_of_units_keep_the_acceleration() -> None:
    values = np.random.default_rng(6).gamma(0.5, size=4000)
    gaps = lambda chosen: float(np.mean([values[i] for i, _ in chosen]))  # noqa: E731
    slow = Recomputed(gaps, np.arange(4000), np.zeros(4000, dtype=bool), n_blocks=400)
    fast = _means(np.zeros(4000), values)
    a = [(x**3).sum() / (x**2).sum() ** 1.5 for x in (p.left_out().mean() - p.left_out() for p in (slow, fast))]
    assert a[0] == pytest.approx(a[1], rel=0.5)


def test_many_data_sets_at_once_are_each_its_own() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(0.1, 1.0, size=(50, 4))
    stacked = np.stack([values, np.ones_like(values)], axis=-1)
    together = resampled_gap([(1.0, Sums(stacked * [0, 1], stacked, mean_of_sums))], np.random.default_rng(0))
    for k in range(4):
        one = resampled_gap([(1.0, _means(np.zeros(50), values[:, k]))], np.random.default_rng(0))
        assert float(one.p_value) == pytest.approx(float(together.p_value[k]))
        assert float(one.low) == pytest.approx(float(together.low[k]))


def test_swapping_the_sides_of_a_clustered_gap_turns_it_round() -> None:
    rng = np.random.default_rng(8)
    base, cand, names = rng.random(80), rng.random(80), np.arange(80) // 4
    there = paired_difference(base, cand, np.random.default_rng(0), clusters=names)
    back = paired_difference(cand, base, np.random.default_rng(0), clusters=names)
    assert (there.gap, there.p_value) == (-back.gap, back.p_value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.02)
