"""The gate's rule: its order, its families of errors, and the evidence it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffharness.errors import UsageError
from diffharness.regression.comparison import ScoreComparison, Terms
from diffharness.regression.decision import Bounds, decide_scores, decisions, rule_verdict
from diffharness.regression.evidence import Pairs, Unseen
from diffharness.regression.power import detectable_loss, n_to_settle
from diffharness.statistics.multiple import holm
from diffharness.statistics.paired import paired_difference, paired_ratio


@dataclass(frozen=True)
class Normal:
    """Evidence with a known error, by scipy's normal distribution."""

    gap: float
    standard_error: float
    freedom: float = math.inf
    method: str = "normal"
    approximate: str | None = None

    def bounds(self, level: float) -> tuple[float, float]:
        reach = stats.norm.ppf((1 + level) / 2) * self.standard_error
        return float(self.gap - reach), float(self.gap + reach)

    def errors_at(self, loss: float) -> tuple[float, float]:
        del loss
        return self.standard_error, self.standard_error

    def p_below(self, value: float) -> float:
        return float(stats.norm.cdf((self.gap - value) / self.standard_error))

    def p_above(self, value: float) -> float:
        return float(stats.norm.sf((self.gap - value) / self.standard_error))


def flips(n: int, up: int, down: int, **fields: object) -> ScoreComparison:
    base, cand = np.zeros(n), np.zeros(n)
    cand[:up] = 1
    base[up : up + down] = 1
    made = ScoreComparison("rule", "task", "acc,none", True, Terms(0.02), base, cand)
    return replace(made, **fields)


INF = math.inf


@pytest.mark.parametrize(
    ("gap", "bounds", "verdict"),
    [
        (0.0, Bounds(-0.01, INF, INF, -INF), "pass"),
        (0.0, Bounds(-0.02, INF, INF, -INF), "pass"),  # L at −m exactly
        (0.05, Bounds(0.03, INF, INF, 0.01), "improved"),
        (0.05, Bounds(0.03, INF, INF, -0.01), "pass"),  # not improved once corrected
        (-0.01, Bounds(-0.015, -0.005, INF, -INF), "pass"),  # a loss inside the margin
        (-0.09, Bounds(-0.12, -0.04, -0.03, -INF), "regression"),
        (-0.09, Bounds(-0.12, -0.04, -0.02, -INF), "likely regression"),  # U at −m exactly
        (-0.03, Bounds(-0.05, -0.01, INF, -INF), "likely regression"),
        (-0.02, Bounds(-0.05, -0.01, INF, -INF), "inconclusive"),  # d at −m exactly
        (-0.015, Bounds(-0.03, -0.001, INF, -INF), "inconclusive"),
        (-0.03, Bounds(-0.07, 0.0, INF, -INF), "inconclusive"),  # U at 0 exactly
    ],
)
def test_the_rule_has_this_order(gap: float, bounds: Bounds, verdict: str) -> None:
    assert rule_verdict(gap, 0.02, bounds) == verdict


def test_an_effect_below_the_noise_floor_is_no_improvement() -> None:
    bounds = Bounds(0.003, INF, INF, 0.001)
    assert rule_verdict(0.005, 0.02, bounds, min_effect=0.01) == "pass"
    assert rule_verdict(0.01, 0.02, bounds, min_effect=0.01) == "improved"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(0.001, 0.1)), min_size=1, max_size=8), st.floats(0, 0.1),
    st.sampled_from([0.01, 0.05, 0.1]),
)  # fmt: skip
def test_verdicts_are_those_of_holm_by_hand(rules: list[tuple[float, float]], margin: float, alpha: float) -> None:
    gaps, errors = np.array(rules).T
    p_loss, p_beyond = (holm(stats.norm.cdf((gaps + m) / errors)) for m in (0.0, margin))
    p_gain = holm(stats.norm.sf(gaps / errors))
    p_pass = stats.norm.sf((gaps + margin) / errors)
    if np.abs(np.concatenate([p_loss, p_beyond, p_gain, p_pass]) - alpha).min() < 1e-9:
        return
    found = decisions([Terms(margin, alpha)] * len(rules), [Normal(*rule) for rule in rules])
    for i, one in enumerate(found):
        if p_pass[i] <= alpha:
            expected = "improved" if p_gain[i] <= alpha else "pass"
        elif p_beyond[i] <= alpha:
            expected = "regression"
        else:
            expected = "likely regression" if p_loss[i] <= alpha and gaps[i] < -margin else "inconclusive"
        assert one.verdict == expected
        assert one.p_beyond_corrected == pytest.approx(max(p_beyond[i], 0), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(0.001, 0.1)), min_size=1, max_size=8), st.floats(0, 0.1))
def test_the_interval_shown_agrees_with_the_verdict(rules: list[tuple[float, float]], margin: float) -> None:
    for one in decisions([Terms(margin)] * len(rules), [Normal(*rule) for rule in rules]):
        if one.verdict in ("pass", "improved"):
            assert one.low >= -margin - 1e-12
        if one.verdict == "improved":
            assert one.low > 0
        if one.verdict == "regression":
            assert one.high < -margin
        if one.verdict == "likely regression":
            assert one.low < -margin <= one.high < 0
        if one.verdict == "inconclusive":
            assert one.low < -margin


def test_more_rules_make_alarms_harder_and_passing_no_harder() -> None:
    lost, fine = Normal(-0.05, 0.02), Normal(0.0, 0.01)
    alone = decisions([Terms(0.02)] * 2, [lost, fine])
    crowd = decisions([Terms(0.02)] * 22, [lost, fine] + [Normal(0.0, 0.01)] * 20)
    assert [one.verdict for one in alone] == ["likely regression", "pass"]
    assert [one.verdict for one in crowd[:2]] == ["inconclusive", "pass"]


def test_rules_without_correction_stand_outside_the_family() -> None:
    terms = [Terms(0.02, correction="none"), *[Terms(0.02)] * 20]
    found = decisions(terms, [Normal(-0.05, 0.02), *[Normal(0.0, 0.01)] * 20])
    assert found[0].verdict == "likely regression"
    assert (found[0].n_rules, found[1].n_rules) == (1, 20)


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 300), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(-0.2, 0.2), st.floats(0.001, 0.4))
def test_p_values_of_pairs_are_where_their_bounds_come_to_lie(
    n: int, up: float, down: float, value: float, alpha: float
) -> None:
    one = Pairs(int(up * n), int(down * n), n)
    low, high = one.bounds(1 - 2 * alpha)
    if abs(high - value) > 1e-6 and abs(one.p_below(value) - alpha) > 1e-6:
        assert (high < value) == (one.p_below(value) < alpha)
    if abs(low - value) > 1e-6 and abs(one.p_above(value) - alpha) > 1e-6:
        assert (low > value) == (one.p_above(value) < alpha)


def test_intervals_are_those_of_reports() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(400)
    cand = base + rng.normal(-0.01, 0.1, size=400)
    report = paired_difference(base, cand, rng, level=0.9)
    gate = ScoreComparison("r", "t", "m,none", True, Terms(0.02), base, cand).evidence(0.05).bounds(0.9)
    assert gate == pytest.approx((report.low, report.high), abs=0.15 * (report.standard_error or 0))
    binary = flips(300, 10, 25)
    expected = paired_difference(binary.baseline, binary.candidate, rng, level=0.99)
    assert binary.evidence(0.005).bounds(0.99) == (expected.low, expected.high)
    size = rng.gamma(3, 30, size=300)
    sides = [np.stack([size * rng.gamma(9, rate, size=300), size], axis=1) for rate in (0.11, 0.115)]
    ratio = ScoreComparison("r", "t", "bpb,none", False, Terms(0.02), *sides, aggregate="ratio")
    found = paired_ratio(*sides, rng, level=0.9)
    gate = ratio.evidence(0.05).bounds(0.9)
    assert gate == pytest.approx((-found.high, -found.low), abs=0.15 * (found.standard_error or 0))
    assert ratio.scores() == pytest.approx([float(side[:, 0].sum() / side[:, 1].sum()) for side in sides])


@pytest.mark.parametrize("n_clusters", [2, 5, 15])
def test_few_clusters_reach_at_least_as_far_as_students_interval(n_clusters: int) -> None:
    rng = np.random.default_rng(n_clusters)
    clusters = np.repeat(np.arange(n_clusters), 20)
    own = rng.normal(size=n_clusters)
    found = ScoreComparison("r", "t", "m,none", True, Terms(0.02), np.zeros(20 * n_clusters), own[clusters],
                            clusters=clusters).evidence(0.05)  # fmt: skip
    low, high = stats.t.interval(0.9, n_clusters - 1, own.mean(), own.std(ddof=1) / n_clusters**0.5)
    assert found.bounds(0.9)[0] <= low + 1e-9
    assert found.bounds(0.9)[1] >= high - 1e-9
    assert found.approximate is not None
    assert "clusters" in found.approximate


def test_one_cluster_decides_nothing_and_says_so() -> None:
    (result,) = decide_scores([flips(100, 0, 60, clusters=np.zeros(100))])
    assert result.verdict == "inconclusive"
    assert result.interval is None
    assert "approximate" in result.sentence
    assert result.n_to_settle is None


def test_lower_is_better_turns_the_difference_and_not_the_scores() -> None:
    loss = flips(400, 5, 80)
    cost = replace(loss, higher_is_better=False, baseline=1 - loss.baseline, candidate=1 - loss.candidate)
    (one,), (other,) = decide_scores([loss]), decide_scores([cost])
    assert (one.verdict, other.verdict) == ("regression", "regression")
    assert one.difference == other.difference == pytest.approx(-75 / 400)
    assert (other.baseline, other.candidate) == pytest.approx((1 - 80 / 400, 1 - 5 / 400))


def test_a_groups_score_counts_its_tasks_as_it_says() -> None:
    groups = np.repeat(np.array(["a", "b"]), [300, 100])
    one = flips(400, 0, 300, groups=groups, weights={"a": 0.5, "b": 0.5})
    assert one.scores() == pytest.approx((0.5, 0.0))
    by_size = replace(one, weights=None)
    assert by_size.scores() == pytest.approx((0.75, 0.0))
    assert decide_scores([one])[0].verdict == "regression"


def test_no_difference_says_how_many_documents_exclude_the_margin() -> None:
    (few,) = decide_scores([flips(108, 0, 0, terms=Terms(0.01))])
    assert (few.verdict, few.difference) == ("inconclusive", 0.0)
    assert few.n_to_settle is not None
    assert decide_scores([flips(few.n_to_settle, 0, 0, terms=Terms(0.01))])[0].verdict == "pass"
    assert decide_scores([flips(few.n_to_settle - 1, 0, 0, terms=Terms(0.01))])[0].verdict == "inconclusive"


def test_scores_that_are_no_numbers_are_an_error_and_the_others_are_decided() -> None:
    bad = flips(100, 5, 5, candidate=np.full(100, np.nan))
    broken, fine = decide_scores([bad, flips(2000, 5, 5)])
    assert broken.verdict == "error"
    assert "100 of 100" in broken.sentence
    assert fine.verdict == "pass"


def test_a_margin_below_the_noise_floor_is_refused_with_the_figure() -> None:
    with pytest.raises(UsageError, match=r"0\.01 lies below the noise floor of 0\.013"):
        decide_scores([flips(100, 5, 5, terms=Terms(0.01, min_effect=0.013))])


def test_all_margins_below_their_noise_floors_are_named_at_once_and_what_would_do() -> None:
    """A floor is rounded up where it is given as a margin: the same check with it is decided."""
    floors = {"one": 0.0123456, "two": 0.05, "three": 0.004}
    rules = [
        replace(flips(100, 5, 5, terms=Terms(0.01, min_effect=floor)), rule=f"{task} acc,none", task=task)
        for task, floor in floors.items()
    ]
    with pytest.raises(UsageError) as caught:
        decide_scores(rules)
    said = str(caught.value)
    assert all(f"rule '{task} acc,none'" in said for task in ("one", "two"))
    assert "three" not in said
    assert '`tasks: {one: {margin: 0.0124}, two: {margin: 0.05}, "*": {}}`' in said
    enough = {"one": 0.0124, "two": 0.05, "three": 0.01}
    assert len(decide_scores([replace(r, terms=replace(r.terms, margin=enough[r.task])) for r in rules])) == 3


def test_draws_depend_on_the_rule_alone() -> None:
    rng = np.random.default_rng(0)
    one = ScoreComparison("a", "t", "m,none", True, Terms(0.02), rng.random(150), rng.random(150))
    assert one.evidence(0.05).bounds(0.9) == one.evidence(0.05).bounds(0.9)
    assert one.evidence(0.05).bounds(0.9) != replace(one, rule="b").evidence(0.05).bounds(0.9)


@pytest.mark.parametrize(("error", "margin"), [(0.002, 0.02), (0.01, 0.02), (0.05, 0.02), (0.01, 0.0)])
def test_a_detectable_loss_is_found_eight_times_of_ten(error: float, margin: float) -> None:
    extra = detectable_loss(Normal(0.0, error), margin, 0.0025)
    assert extra is not None
    gaps = stats.norm.ppf((np.arange(2000) + 0.5) / 2000, -(margin + extra), error)
    alone = [decisions([Terms(margin, 0.0025)], [Normal(gap, error)])[0].verdict for gap in gaps]
    assert np.mean([verdict in ("regression", "likely regression") for verdict in alone]) == pytest.approx(
        0.8, abs=2e-3
    )


@pytest.mark.parametrize("gap", [-0.05, -0.035, -0.01, 0.0, 0.01])
def test_as_many_documents_as_are_said_settle_it(gap: float) -> None:
    n, error, margin = 200, 0.05, 0.02
    needed = n_to_settle(Normal(gap, error), n, margin, 0.05, 0.0025)
    assert needed is not None
    for more, settled in ((needed, True), (needed - 2, False)):
        scaled = Normal(gap, error * (n / more) ** 0.5)
        low, high = scaled.bounds(0.9)[0], scaled.bounds(0.995)[1]
        assert (low >= -margin or (high < 0 and gap < -margin)) == settled


def test_nothing_settles_a_gap_at_the_margin() -> None:
    assert n_to_settle(Normal(-0.02, 0.05), 200, 0.02, 0.05, 0.05) is None
    assert detectable_loss(Unseen(100, None), 0.02, 0.05) is None


def test_a_hundred_right_and_wrong_runs_alarm_no_more_than_they_may() -> None:
    rng = np.random.default_rng(1)
    n_runs, alarms = 300, 0
    for _ in range(n_runs):
        pairs = [Pairs(int(u), int(d), 200) for u, d, _ in rng.multinomial(200, [0.05, 0.05, 0.9], size=20)]
        alarms += any(one.verdict.endswith("regression") for one in decisions([Terms(0.0)] * 20, pairs))
    assert alarms / n_runs <= 0.05 + 3 * (0.05 * 0.95 / n_runs) ** 0.5
