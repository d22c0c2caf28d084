"""Each surrogate against an independent float64 computation from probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffharness.attribution.forms import RepeatedPreference
from diffharness.attribution.surrogates import (
    Choice,
    LogLikelihood,
    Preference,
    Surrogate,
    TargetProbability,
    scale_to_metric,
)


@dataclass(frozen=True)
class Row:
    """A row of the design's table, with m and M of the readings' log-likelihoods written out anew."""

    surrogate: Surrogate
    n_readings: int
    m: Callable[[torch.Tensor], torch.Tensor]
    """Of log-likelihoods (readings first)."""
    metric: Callable[[np.ndarray], float]


def share(scores: np.ndarray, right: list[int]) -> float:
    """Softmax probability of the right ones."""
    return float(np.exp(scores)[right].sum() / np.exp(scores).sum())


TABLE = {
    "choice": Row(
        Choice((0,), (1.0, 1.0)), 2, lambda ll: ll[0] - ll[1], lambda ll: share(ll, [0])
    ),
    "choice by length": Row(
        Choice((1,), (2.0, 3.0)), 2, lambda ll: ll[1] / 3 - ll[0] / 2, lambda ll: share(ll / np.array([2, 3]), [1])
    ),
    "several right choices": Row(
        Choice((0, 2), (1.0, 1.0, 1.0)), 3,
        lambda ll: torch.logaddexp(ll[0], ll[2]) - ll[1], lambda ll: share(ll, [0, 2]),
    ),
    "mutual information": Row(
        Choice((0,), (1.0, 1.0), unconditional=True), 4,
        lambda ll: (ll[0] - ll[2]) - (ll[1] - ll[3]), lambda ll: share(ll[:2] - ll[2:], [0]),
    ),
    "target": Row(
        TargetProbability(), 1, lambda ll: ll[0] - torch.log(1 - torch.exp(ll[0])), lambda ll: math.exp(ll[0])
    ),
    "perplexity": Row(LogLikelihood(1 / 3, 3.0), 1, lambda ll: ll[0] / 3, lambda ll: ll[0]),
    "text": Row(LogLikelihood(1.0, -0.1), 2, lambda ll: ll[0] + ll[1], lambda ll: -0.1 * (ll[0] + ll[1])),
    "answers": Row(
        Preference(1.0, 0.25), 2, lambda ll: ll[1] - ll[0], lambda ll: 1.0 * share(ll, [0]) + 0.25 * share(ll, [1])
    ),
    "repeats": Row(
        RepeatedPreference(1.0, 0.0, 3), 4, lambda ll: ((ll[1] - ll[0]) + (ll[3] - ll[2]) + 0) / 3,
        lambda ll: 1 / (1 + math.exp((ll[1] - ll[0] + ll[3] - ll[2]) / 3)),
    ),
}  # fmt: skip

lls = st.lists(st.floats(-60, -1e-6), min_size=3, max_size=5)


def m(surrogate, values):
    return float(surrogate.path(torch.tensor(values, dtype=torch.float64)))


@given(lls)
@settings(deadline=None)
def test_choice_is_the_softmax_probability_of_the_gold(values):
    p = np.exp(values) / np.exp(values).sum()
    surrogate = Choice((1,), (1.0,) * len(values))
    assert surrogate.metric(m(surrogate, values)) == pytest.approx(p[1], rel=1e-9, abs=1e-300)


def test_choice_with_two_golds_and_length_normalisation():
    values, lengths = [-4.0, -6.0, -9.0], (2.0, 4.0, 3.0)
    scores = np.array(values) / lengths
    p = np.exp(scores) / np.exp(scores).sum()
    surrogate = Choice((0, 2), lengths)
    assert surrogate.metric(m(surrogate, values)) == pytest.approx(p[0] + p[2])


def test_choice_with_mutual_information_subtracts_the_unconditional():
    conditional, unconditional = [-4.0, -6.0], [-1.0, -5.0]
    scores = np.subtract(conditional, unconditional)
    p = np.exp(scores) / np.exp(scores).sum()
    surrogate = Choice((1,), (1.0, 1.0), unconditional=True)
    assert surrogate.metric(m(surrogate, conditional + unconditional)) == pytest.approx(p[1])


@given(st.floats(-700, -1e-9))
@settings(deadline=None)
def test_target_probability_is_the_probability_at_both_ends(value):
    surrogate = TargetProbability()
    found = m(surrogate, [value])
    assert math.isfinite(found)
    assert surrogate.metric(found) == pytest.approx(math.exp(value), rel=1e-6, abs=1e-300)


def test_rolling_contributions_average_to_the_tasks_bits_per_byte():
    nats, n_bytes = np.array([-30.0, -50.0, -8.0]), np.array([20.0, 31.0, 7.0])
    scale = -len(nats) / (math.log(2) * n_bytes.sum())
    found = np.mean([LogLikelihood(1.0, scale).metric(x) for x in nats])
    assert found == pytest.approx(-nats.sum() / (math.log(2) * n_bytes.sum()))


def test_preference_is_the_expected_score_of_choosing():
    surrogate = Preference(baseline_score=1.0, candidate_score=0.25)
    p = math.exp(-3.0) / (math.exp(-3.0) + math.exp(-2.0))
    assert surrogate.metric(m(surrogate, [-2.0, -3.0])) == pytest.approx(1.0 * (1 - p) + 0.25 * p)


@pytest.mark.parametrize("name", TABLE)
@given(values=st.lists(st.floats(-30, -0.01), min_size=4, max_size=4))
@settings(deadline=None, max_examples=40)
def test_path_and_metric_are_the_designs_table(name, values):
    row = TABLE[name]
    ll = values[: row.n_readings]
    found = m(row.surrogate, ll)
    assert found == pytest.approx(float(row.m(torch.tensor(ll, dtype=torch.float64))), rel=1e-9, abs=1e-9)
    assert row.surrogate.metric(found) == pytest.approx(row.metric(np.array(ll)), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_gradient_of_the_path_is_its_finite_difference(name):
    row = TABLE[name]
    at = torch.tensor([-2.0, -1.3, -0.7, -3.1][: row.n_readings], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(row.surrogate.path(at), at)
    for i in range(row.n_readings):
        step = torch.zeros_like(at)
        step[i] = 1e-6
        with torch.no_grad():
            numeric = float(row.m(at + step) - row.m(at - step)) / 2e-6
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("surrogate", [row.surrogate for row in TABLE.values()], ids=list(TABLE))
def test_slope_is_the_derivative_of_the_metric(surrogate):
    for at in (-6.0, -0.3, 0.0, 2.5):
        numeric = (surrogate.metric(at + 1e-6) - surrogate.metric(at - 1e-6)) / 2e-6
        assert surrogate.slope(at) == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def test_scaled_contributions_sum_to_the_metrics_gap_and_keep_proportions():
    surrogate = Choice((0,), (1.0, 1.0))
    parts = np.array([2.0, -0.5, 0.7])
    scale = scale_to_metric(surrogate, -1.0, -1.0 + parts.sum())
    assert scale * parts.sum() == pytest.approx(surrogate.metric(parts.sum() - 1.0) - surrogate.metric(-1.0))


def test_scale_is_the_slope_where_nothing_moved():
    surrogate = TargetProbability()
    assert scale_to_metric(surrogate, 0.4, 0.4) == pytest.approx(surrogate.slope(0.4))


@pytest.mark.parametrize("surrogate", [row.surrogate for row in TABLE.values()], ids=list(TABLE))
def test_scale_tends_to_the_slope_as_the_ends_meet(surrogate):
    for at in (-3.0, 0.2, 5.0):
        for apart in (1e-3, 1e-5, 1.1e-6, 0.9e-6, 0.0):
            scale = scale_to_metric(surrogate, at - apart / 2, at + apart / 2)
            assert scale == pytest.approx(surrogate.slope(at), rel=1e-6 + apart), (at, apart)


@pytest.mark.parametrize("surrogate", [row.surrogate for row in TABLE.values()], ids=list(TABLE))
def test_saturated_documents_have_a_finite_scale_that_sums_to_the_gap(surrogate):
    for low, high in ((-800.0, 800.0), (-40.0, 40.0), (39.0, 41.0), (-41.0, -39.0), (40.0, 40.0), (-40.0, -40.0)):
        scale = scale_to_metric(surrogate, low, high)
        gap = surrogate.metric(high) - surrogate.metric(low)
        assert math.isfinite(scale)
        assert scale * (high - low) == pytest.approx(gap, rel=1e-12, abs=1e-15)
    if not isinstance(surrogate, LogLikelihood):
        assert scale_to_metric(surrogate, 40.0, 40.0) == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize("nats", [-40.0, 40.0])
def test_choices_and_answers_that_are_40_nats_apart_keep_their_log_odds_and_gradient(nats):
    for surrogate, sign in ((Choice((0,), (1.0, 1.0)), 1), (Preference(0.0, 1.0), -1)):
        ll = torch.tensor([-50.0 + max(nats, 0), -50.0 - min(nats, 0)], dtype=torch.float64, requires_grad=True)
        found = surrogate.path(ll)
        assert found.item() == pytest.approx(sign * nats)
        (gradient,) = torch.autograd.grad(found, ll)
        assert gradient.tolist() == [sign, -sign]


def test_a_target_that_is_all_but_certain_or_all_but_impossible_keeps_a_gradient():
    for value, log_odds in ((-40.0, -40.0), (-1e-9, -math.log(1e-9))):
        ll = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        found = TargetProbability().path(ll)
        assert found.item() == pytest.approx(log_odds, rel=1e-9)
        (gradient,) = torch.autograd.grad(found, ll)
        assert float(gradient) == pytest.approx(-1 / math.expm1(value), rel=1e-6)
