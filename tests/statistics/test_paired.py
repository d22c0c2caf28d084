"""Paired tests against scipy, exact enumeration and planted gaps; the verdict rule."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from diffharness.statistics.discordant import mcnemar_mid_p, tango_interval
from diffharness.statistics.paired import paired_difference, paired_ratio, verdict

counts = st.integers(0, 40)


@settings(deadline=None)
@given(counts, counts)
def test_mid_p_is_the_exact_p_less_half_of_what_was_observed(n_up: int, n_down: int) -> None:
    n = n_up + n_down
    observed = stats.binom.pmf(n_up, n, 0.5)
    expected = 1.0 if n_up == n_down else stats.binomtest(n_up, n).pvalue - observed
    assert mcnemar_mid_p(n_up, n_down) == pytest.approx(expected, abs=1e-12)
    assert mcnemar_mid_p(n_up, n_down) == mcnemar_mid_p(n_down, n_up)


def _tango_score(n_up: int, n_down: int, n: int, delta: float) -> float:
    """The score statistic with the nuisance parameter found numerically rather than by Tango's quadratic."""

    def loss(p_down: float) -> float:
        p = np.array([p_down + delta, p_down, 1 - 2 * p_down - delta])
        return -float(np.dot([n_up, n_down, n - n_up - n_down], np.log(np.maximum(p, 1e-300))))

    bounds = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
    best = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13})
    return (n_up - n_down - n * delta) / np.sqrt(n * (2 * float(best.x) + delta - delta**2))


@pytest.mark.parametrize(("n_up", "n_down", "n"), [(9, 3, 60), (4, 0, 60), (14, 5, 150), (1, 1, 80), (30, 2, 40)])
def test_tangos_interval_ends_where_the_score_test_does(n_up: int, n_down: int, n: int) -> None:
    low, high = tango_interval(n_up, n_down, n)
    assert _tango_score(n_up, n_down, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert _tango_score(n_up, n_down, n, high) == pytest.approx(-1.959964, abs=2e-3)
    assert tango_interval(n_down, n_up, n) == pytest.approx((-high, -low))


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
def test_tangos_interval_holds_the_estimate_and_stays_in_range(n_up: int, n_down: int, others: int) -> None:
    n = n_up + n_down + others - 1
    if n == 0:
        return
    low, high = tango_interval(n_up, n_down, n)
    assert -1 <= low <= (n_up - n_down) / n <= high <= 1


@cache
def _binary(n_up: int, n_down: int, n: int) -> tuple[float, float]:
    baseline, candidate = np.zeros(n), np.zeros(n)
    candidate[:n_up] = 1
    baseline[n_up : n_up + n_down] = 1
    result = paired_difference(baseline, candidate, np.random.default_rng(0))
    return result.low, result.high


@pytest.mark.parametrize("n", [60, 120])
@pytest.mark.parametrize("p_up", [0.02, 0.06, 0.12])
@pytest.mark.parametrize("p_down", [0.02, 0.06, 0.12])
def test_binary_intervals_cover_and_equal_models_are_called_apart_in_one_of_twenty(
    n: int, p_up: float, p_down: float
) -> None:
    covered = apart = total = 0.0
    for n_up in range(min(n, 40)):
        for n_down in range(min(n - n_up, 40)):
            chance = stats.binom.pmf(n_up, n, p_up) * stats.binom.pmf(n_down, n - n_up, p_down / (1 - p_up))
            if chance < 1e-6:
                continue
            low, high = _binary(n_up, n_down, n)
            total += chance
            covered += chance * (low - 1e-9 <= p_up - p_down <= high + 1e-9)
            apart += chance * (low > 0 or high < 0)
    assert covered / total >= 0.93
    if p_up == p_down:
        assert apart / total <= 0.05


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_binary_interval_excludes_zero_only_where_the_test_rejects(pairs: list[tuple[bool, bool]]) -> None:
    baseline, candidate = np.array(pairs, dtype=float).T
    result = paired_difference(baseline, candidate, np.random.default_rng(0))
    assert result.gap == pytest.approx(candidate.mean() - baseline.mean())
    assert result.low <= result.gap <= result.high
    assert result.p_value < 0.05 or result.low <= 0 <= result.high


def test_the_type_of_score_chooses_the_method() -> None:
    rng = np.random.default_rng(0)
    binary = paired_difference([0, 1, 1, 0], [1, 1, 1, 0], rng)
    graded = paired_difference([0, 0.5, 1, 0], [1, 1, 1, 0], rng)
    grouped = paired_difference([0, 1, 1, 0], [1, 1, 1, 0], rng, clusters=["a", "a", "b", "b"])
    assert "Tango" in binary.method
    assert "sign flips" in graded.method
    assert "sign flips" in grouped.method
    assert (binary.n, binary.n_better, binary.n_worse) == (4, 1, 0)


def test_a_planted_gap_of_graded_scores_is_found_with_its_size() -> None:
    rng = np.random.default_rng(1)
    baseline = rng.random(120)
    result = paired_difference(baseline, baseline + rng.normal(0.1, 0.2, size=120), rng)
    assert result.low < 0.1 < result.high
    assert result.low > 0
    assert result.p_value < 0.001
    assert result.n_better + result.n_worse == 120


def test_graded_scores_of_equal_models_are_called_apart_in_one_of_twenty() -> None:
    apart = 0
    for repeat in range(300):
        rng = np.random.default_rng(repeat)
        differs = rng.random(40) < 0.2
        difference = differs * rng.choice([-1.0, 1.0], size=40) * rng.random(40)
        result = paired_difference(np.zeros(40), difference, rng)
        apart += result.low > 0 or result.high < 0
    assert apart / 300 <= 0.06


def test_no_differing_document_leaves_open_what_few_documents_can_not_show() -> None:
    for n, expected in ((40, "inconclusive"), (185, "inconclusive"), (190, "no change")):
        scores = np.arange(n) % 2
        result = paired_difference(scores, scores, np.random.default_rng(0))
        z2 = stats.norm.ppf(0.975) ** 2
        assert (result.gap, result.p_value) == (0.0, 1.0)
        assert (result.low, result.high) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))
        assert verdict(result.gap, result.low, result.high, 0.02) == expected


def test_bounded_scores_without_a_difference_have_the_interval_of_their_span() -> None:
    scores = np.linspace(0, 2, 50)
    bounded = paired_difference(scores, scores, np.random.default_rng(0), span=2.0)
    z2 = stats.norm.ppf(0.975) ** 2
    assert bounded.high == pytest.approx(2 * z2 / (50 + z2))
    unbounded = paired_difference(scores, scores, np.random.default_rng(0))
    assert (unbounded.low, unbounded.high) == (0.0, 0.0)
    assert "without bounds" in (unbounded.approximate_reason or "")


def test_a_handful_of_documents_settles_nothing() -> None:
    for n in range(1, 6):
        result = paired_difference(np.zeros(n), 0.5 + np.arange(n), np.random.default_rng(0))
        assert np.isfinite([result.low, result.high]).all()
        assert result.low <= 0 <= result.high


def test_lower_is_better_swaps_better_and_worse_and_keeps_the_gap() -> None:
    up = paired_difference([1.5, 2.0], [1.0, 1.5], np.random.default_rng(0))
    down = paired_difference([1.5, 2.0], [1.0, 1.5], np.random.default_rng(0), higher_is_better=False)
    assert up.gap == down.gap == -0.5
    assert (up.n_better, down.n_better) == (0, 2)


def test_swapping_the_sides_turns_the_result_round() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.random(50), rng.random(50)
    there = paired_difference(first, second, np.random.default_rng(3))
    back = paired_difference(second, first, np.random.default_rng(3))
    assert there.gap == -back.gap
    assert there.p_value == back.p_value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_a_ratio_of_sums_is_the_corpus_metric_and_not_the_mean_of_ratios() -> None:
    rng = np.random.default_rng(4)
    n_bytes = rng.integers(20, 400, size=80).astype(float)
    nats = n_bytes * rng.normal(1.0, 0.1, size=80)
    better = nats * 0.9
    result = paired_ratio(np.column_stack([nats, n_bytes]), np.column_stack([better, n_bytes]), rng)
    assert result.gap == pytest.approx(better.sum() / n_bytes.sum() - nats.sum() / n_bytes.sum())
    assert result.low < result.gap < result.high < 0
    assert result.p_value < 0.001
    assert (result.n_better, result.n_worse) == (80, 0)


def test_a_ratio_with_equal_denominators_agrees_with_the_mean_difference() -> None:
    rng = np.random.default_rng(5)
    base, cand = rng.normal(size=60), rng.normal(0.2, 1.0, size=60)
    ones = np.ones(60)
    ratio = paired_ratio(np.column_stack([base, ones]), np.column_stack([cand, ones]), np.random.default_rng(6))
    mean = paired_difference(base, cand, np.random.default_rng(6))
    assert ratio.gap == pytest.approx(mean.gap)
    assert ratio.p_value == pytest.approx(mean.p_value, abs=0.02)
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high), abs=0.05)


def test_a_ratio_may_be_transformed_and_equal_sides_differ_by_nothing() -> None:
    rng = np.random.default_rng(7)
    base = np.column_stack([rng.random(30) * 50, np.full(30, 25.0)])
    cand = base * [1.2, 1.0]
    result = paired_ratio(base, cand, rng, transform=np.exp)
    assert result.gap == pytest.approx(np.exp(cand[:, 0].mean() / 25) - np.exp(base[:, 0].mean() / 25))
    same = paired_ratio(base, base.copy(), rng)
    assert (same.gap, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("gap", "low", "high", "higher_is_better", "expected"),
    [
        (0.10, 0.05, 0.15, True, "improved"),
        (-0.10, -0.15, -0.05, True, "regressed"),
        (0.10, 0.05, 0.15, False, "regressed"),
        (-0.10, -0.15, -0.05, False, "improved"),
        (0.72 - 0.70, 0.01, 0.03, True, "improved"),
        (0.005, -0.01, 0.02, True, "no change"),
        (0.010, 0.005, 0.015, True, "no change"),
        (0.015, 0.005, 0.025, True, "inconclusive"),
        (0.10, -0.02, 0.22, True, "inconclusive"),
        (0.00, -0.06, 0.06, True, "inconclusive"),
    ],
)
def test_verdicts(gap: float, low: float, high: float, higher_is_better: bool, expected: str) -> None:
    assert verdict(gap, low, high, 0.02, higher_is_better) == expected


@pytest.mark.parametrize(
    ("baseline", "candidate", "message"),
    [([], [], "no documents"), ([1.0], [1.0, 2.0], "one shape"), ([1.0], [float("nan")], "NaN")],
)
def test_scores_that_can_not_be_paired_are_refused(baseline: list[float], candidate: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(baseline, candidate, np.random.default_rng(0))
