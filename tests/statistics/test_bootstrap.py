"""Resampling against closed forms, brute force and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from diffharness.statistics import bootstrap
from diffharness.statistics.bootstrap import (
    bootstrap_means,
    bootstrap_ratio,
    bootstrap_statistic,
    paired_bootstrap,
    percentile_interval,
    sign_flip_interval,
    sign_flip_p,
)


def test_draws_of_a_mean_have_its_mean_and_standard_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, size=(80, 2))
    draws = bootstrap_means(values, rng, n_resamples=20_000)
    assert draws.shape == (20_000, 2)
    np.testing.assert_allclose(draws.mean(axis=0), values.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(draws.std(axis=0), values.std(axis=0) / np.sqrt(80), rtol=0.03)


def test_parts_that_sum_to_a_whole_do_so_in_every_draw() -> None:
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(50, 4))
    draws = bootstrap_means(np.column_stack([parts, parts.sum(axis=1)]), rng)
    np.testing.assert_allclose(draws[:, :4].sum(axis=1), draws[:, 4], atol=1e-12)


def test_chunks_change_memory_and_not_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 100)
    values = np.random.default_rng(2).normal(size=(30, 1))
    draws = bootstrap_means(values, np.random.default_rng(3), n_resamples=1000)
    assert draws.shape == (1000, 1)
    np.testing.assert_allclose(draws.std(), values.std() / np.sqrt(30), rtol=0.1)
    assert 0 < sign_flip_p(values[:, 0], np.random.default_rng(4), n_flips=999) <= 1


def test_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(5)
    effects = rng.normal(size=25)
    values = np.repeat(effects, 8)[:, None]
    names = np.repeat([f"passage {i}" for i in range(25)], 8)
    clustered = bootstrap_means(values, rng, 8000, clusters=names)
    np.testing.assert_allclose(clustered.std(), effects.std() / 5, rtol=0.05)
    assert bootstrap_means(values, rng, 8000).std() < clustered.std() / 2


def test_a_statistic_of_weights_sees_whole_clusters_and_every_document() -> None:
    names = np.array([0, 0, 1, 2, 2, 2])
    seen: list[np.ndarray] = []

    def statistic(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights.sum(axis=1)

    draws = bootstrap_statistic(statistic, 6, np.random.default_rng(6), 200, clusters=names)
    weights = np.concatenate(seen)
    assert draws.shape == (200,)
    assert np.all(weights[:, 0] == weights[:, 1])
    assert np.all(weights[:, [0, 2, 3]].sum(axis=1) == 3)


def test_a_ratio_is_recomputed_on_each_resample() -> None:
    rng = np.random.default_rng(7)
    n_bytes = rng.integers(10, 200, size=60).astype(float)
    draws = bootstrap_ratio(2.5 * n_bytes, n_bytes, rng)
    np.testing.assert_allclose(draws, 2.5)


def test_the_expanded_percentile_interval_has_students_width() -> None:
    values = np.random.default_rng(8).normal(size=12)
    interval = paired_bootstrap(values, np.random.default_rng(9), n_resamples=40_000)
    students = 2 * stats.t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert (interval.high - interval.low) == pytest.approx(students, rel=0.04)
    assert interval.low.shape == ()


def test_an_interval_a_column_with_shared_resamples() -> None:
    values = np.random.default_rng(10).normal([0.0, 5.0], 1.0, size=(40, 2))
    interval = paired_bootstrap(values, np.random.default_rng(11))
    assert interval.excludes_zero().tolist() == [False, True]
    alone = paired_bootstrap(values[:, 1], np.random.default_rng(11))
    assert float(alone.low) == pytest.approx(float(interval.low[1]))


def test_plain_percentiles_of_draws() -> None:
    interval = percentile_interval(np.arange(1001.0), level=0.9)
    assert (float(interval.low), float(interval.high)) == pytest.approx((50.0, 950.0))


def test_sign_flips_of_few_documents_are_enumerated() -> None:
    values = np.array([0.3, -0.1, 0.0, 0.25, 0.4, 0.05])
    sums = [abs(np.dot(signs, values)) for signs in itertools.product([-1, 1], repeat=6)]
    expected = np.mean([total >= abs(values.sum()) - 1e-12 for total in sums])
    assert sign_flip_p(values, np.random.default_rng(0)) == pytest.approx(expected)


def test_sign_flips_give_no_p_of_zero_and_one_for_nothing() -> None:
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(40), np.zeros(40), np.tile([1.0, -1.0], 20)])
    assert sign_flip_p(columns, rng, n_flips=999).tolist() == [1 / 1000, 1.0, 1.0]


def test_sign_flips_of_clusters_flip_them_together() -> None:
    values = np.repeat([1.0, 1.2, 0.9, 1.1], 10)
    assert sign_flip_p(values, np.random.default_rng(0), clusters=np.repeat(range(4), 10)) == 2 / 16


def test_sign_flips_agree_with_the_t_test_on_normal_values() -> None:
    values = np.random.default_rng(3).normal(0.25, 1.0, size=70)
    expected = float(np.asarray(stats.ttest_1samp(values, 0.0))[1])
    assert float(sign_flip_p(values, np.random.default_rng(0), 20_000)) == pytest.approx(expected, abs=0.01)


def test_the_sign_flip_interval_holds_what_the_test_does_not_refuse() -> None:
    values = np.random.default_rng(4).gamma(3.0, size=30)
    for end in sign_flip_interval(values, np.random.default_rng(5), n_subsets=40_000):
        p_there = float(sign_flip_p(values - end, np.random.default_rng(6), n_flips=40_000))
        assert p_there == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("n_differing", [3, 5, 6])
def test_the_sign_flip_interval_needs_six_documents_to_exclude_zero(n_differing: int) -> None:
    values = np.zeros(60)
    values[:n_differing] = 1.0
    low, _ = sign_flip_interval(values, np.random.default_rng(0))
    assert (low > 0) == (n_differing >= 6)
    few = sign_flip_interval(np.ones(n_differing), np.random.default_rng(0))
    assert np.isfinite(few).all() == (n_differing >= 6)


def test_intervals_cover_a_mean_of_skewed_values() -> None:
    hits = 0
    for repeat in range(400):
        rng = np.random.default_rng(repeat)
        interval = paired_bootstrap(rng.gamma(4.0, size=100), rng, n_resamples=500)
        hits += bool(interval.low <= 4.0 <= interval.high)
    assert hits / 400 >= 0.92


def test_the_same_generator_gives_the_same_numbers() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    first, second = (bootstrap_means(values, np.random.default_rng(1), 50) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_documents_and_unnamed_clusters_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least one document"):
        bootstrap_means(np.zeros((0, 1)), rng)
    with pytest.raises(ValueError, match="4 documents need 4 cluster names"):
        bootstrap_means(np.zeros((4, 1)), rng, clusters=[1, 2])
