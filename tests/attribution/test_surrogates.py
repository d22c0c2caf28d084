"""Each surrogate against an independent float64 computation from probabilities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffharness.attribution.surrogates import (
    Choice,
    LogLikelihood,
    Preference,
    TargetProbability,
    scale_to_metric,
)

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


@pytest.mark.parametrize(
    "surrogate", [Choice((0,), (1.0, 1.0)), TargetProbability(), LogLikelihood(0.5, 3.0), Preference(0.2, 0.9)]
)
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
