"""Sums of planted document accounts, their intervals, and whether the surrogate tracks the metric."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.attribution.account import ComponentKey, TaskAccount, collect, contributions, sum_components, tracking
from diffharness.attribution.forms import TaskForms
from diffharness.attribution.path import DocumentAccount, DocumentForm
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.statistics.bootstrap import bootstrap_ratio

N, L = 60, 6
CATEGORIES = ["x", "x", "y", "y", "unclear", "unclear"]
NAMES = ["x", "y", "z", "unclear"]
SCALE = -0.25


def planted(weights: np.ndarray | None = None, constant: dict[int, float] | None = None) -> TaskAccount:
    rng = np.random.default_rng(3)
    accounts = []
    for i in range(N):
        written = rng.normal([0.5, 0.5, -0.2, 0.1, 0, 0], 0.1)
        bias, error, upper, start = rng.normal(size=4)
        end = start + upper + written.sum() + bias + error
        accounts.append(DocumentAccount(i, start, start + upper, end, written, bias, error, SCALE, 8))
    surrogate = LogLikelihood(1.0, SCALE)
    documents = dict.fromkeys([*range(N), *(constant or {})], 1.0)
    if weights is not None:
        documents |= dict(enumerate(weights.tolist()))
    forms = TaskForms(
        "s", "u", False, tuple(DocumentForm(i, (), surrogate) for i in range(N)), constant or {}, documents
    )
    return collect("t", forms, accounts[::-1], L)


def test_components_sum_to_the_gap():
    account = planted()
    parts = sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))
    assert sum(p.contribution for p in parts) == pytest.approx(account.gap, abs=1e-12)
    assert sum(p.contribution_raw for p in parts) * SCALE == pytest.approx(account.gap, abs=1e-12)
    by_key = {p.key: p for p in parts}
    assert [k.kind for k in by_key] == ["latents"] * 4 + ["bias", "error", "upper"]
    x = by_key[ComponentKey("latents", "written", "x")]
    assert x.contribution == pytest.approx(float(account.written_NL[:, :2].sum()) / N)
    assert (x.n_latents, by_key[ComponentKey("upper", None, None)].n_latents) == (2, None)
    empty = by_key[ComponentKey("latents", "written", "z")]
    assert (empty.contribution, empty.low, empty.high, empty.n_latents) == (0, 0, 0, 0)


def test_clear_and_absent_contributions_are_told_apart():
    parts = {p.key.category: p for p in sum_components(planted(), CATEGORIES, NAMES, np.random.default_rng(0))}
    assert parts["x"].high < 0, "written raises m, and M falls with it"
    assert parts["x"].p_value < 0.01
    assert parts["unclear"].low < 0 < parts["unclear"].high
    assert parts["unclear"].p_value > 0.05


def test_each_documents_components_sum_to_its_own_gap():
    account = planted()
    keys, values_NC, raw_NC = contributions(account, CATEGORIES, NAMES)
    assert values_NC.shape == (N, len(keys))
    np.testing.assert_allclose(values_NC.sum(1), account.candidate_N - account.baseline_N, atol=1e-12)
    np.testing.assert_allclose(values_NC, SCALE * raw_NC, atol=1e-12)


def test_documents_that_can_not_differ_count_with_zero():
    account = planted(constant={N: 1.0, N + 1: 0.0})
    assert account.doc_ids == tuple(range(N + 2))
    assert account.gap == pytest.approx(planted().gap * N / (N + 2))
    assert not account.written_NL[N:].any()
    assert account.baseline_N[N:].tolist() == account.candidate_N[N:].tolist() == [1.0, 0.0]


def test_interval_of_documents_that_weigh_differently_is_that_of_a_ratio():
    weights = np.random.default_rng(5).gamma(2, 30, N)
    account = planted(weights)
    parts = {p.key.category: p for p in sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))}
    x_N = account.written_NL[:, :2].sum(1)
    assert parts["x"].contribution == pytest.approx(x_N.mean())
    draws = bootstrap_ratio(x_N, account.weight_N / account.weight_N.mean(), np.random.default_rng(8))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert parts["x"].low == pytest.approx(low, abs=0.1 * (high - low))
    assert parts["x"].high == pytest.approx(high, abs=0.1 * (high - low))


def test_surrogate_tracks_a_metric_that_moves_with_it_in_its_own_direction():
    account = planted()
    moved = account.candidate_N - account.baseline_N
    correlation, tracks, _ = tracking(account, moved, account.gap, higher_is_better=False)
    assert (correlation, tracks) == (pytest.approx(1.0), True)
    correlation, tracks, _ = tracking(account, -moved, -account.gap, higher_is_better=True)
    assert (correlation, tracks) == (pytest.approx(1.0), True)


@pytest.mark.parametrize(
    ("metric", "gap", "reason"),
    [
        (lambda moved: 0 * moved, 0.0, "no document's metric changed"),
        (lambda moved: moved, +1.0, "opposite sign"),
        (lambda moved: np.random.default_rng(1).normal(size=len(moved)), -1.0, "ranks with the metric at"),
    ],
)
def test_surrogate_that_does_not_track_says_why(metric, gap, reason):
    account = planted()
    assert account.gap < 0
    _, tracks, why = tracking(account, metric(account.candidate_N - account.baseline_N), gap, higher_is_better=False)
    assert not tracks
    assert reason in why
