"""Sums of planted document accounts, their intervals, and whether the surrogate tracks the metric."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from diffharness.attribution.account import (
    ComponentKey,
    TaskAccount,
    collect,
    contributions,
    is_content_free,
    sum_components,
    tracking,
)
from diffharness.attribution.batches import DocumentForm
from diffharness.attribution.forms import TaskForms
from diffharness.attribution.path import Bracket, DocumentAccount
from diffharness.attribution.prompt import PromptEffect
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.statistics.bootstrap import bootstrap_ratio

N, L = 60, 6
CATEGORIES = ["x", "x", "y", "y", "unclear", "unclear"]
NAMES = ["x", "y", "z", "unclear"]
SCALE = -0.25


def bracket(latents: np.ndarray, bias: float, error: float) -> Bracket:
    return Bracket(sparse.csr_array(latents[None]), bias, error, 0.0, 8)


def document(i: int, rng: np.random.Generator) -> DocumentAccount:
    """An account whose both orders are complete, and differ."""
    brackets: dict[str, list[Bracket]] = {"written": [], "read": []}
    m_SX = np.zeros((2, 6))
    m_SX[0, 0] = start = rng.normal()
    for _ in (0, 1):
        written = bracket(rng.normal([0.5, 0.5, -0.2, 0.1, 0, 0], 0.1), rng.normal(), rng.normal())
        brackets["written"].append(written)
    totals = [w.latents_sum + w.bias + w.error for w in brackets["written"]]
    end = start + totals[0] + totals[1] + rng.normal()
    # candidate's stack first: spliced = M_c(x^b); baseline's first: M_b(x^c)
    m_SX[1, 1], m_SX[1, 0], m_SX[0, 1] = end, end - totals[0], start + totals[1]
    for order in (0, 1):
        latents, error = rng.normal([0.2, 0.2, 0, 0, 0, 0], 0.1), rng.normal()
        upper = m_SX[1, order] - m_SX[0, order]
        brackets["read"].append(bracket(latents, 0.0, error))
        m_SX[1, 2 + order] = upper - latents.sum() - error  # the prior
        m_SX[1, 4 + order] = 2 * m_SX[1, 2 + order]
    written, read = (tuple(brackets[origin]) for origin in ("written", "read"))
    return DocumentAccount(i, m_SX, written, read, SCALE)


def planted(
    weights: np.ndarray | None = None,
    constant: dict[int, float] | None = None,
    sample: dict[int, float] | None = None,
    prompt: dict[int, PromptEffect] | None = None,
) -> TaskAccount:
    rng = np.random.default_rng(3)
    accounts = [document(i, rng) for i in range(N)]
    surrogate = LogLikelihood(1.0, SCALE)
    documents = dict.fromkeys([*range(N), *(constant or {})], 1.0)
    if weights is not None:
        documents |= dict(enumerate(weights.tolist()))
    forms = TaskForms(
        "s", "u", False, tuple(DocumentForm(i, (), surrogate) for i in range(N)), constant or {}, documents
    )
    kept = accounts if sample is None else [a for a in accounts if a.doc_id in sample]
    return collect("t", forms, kept[::-1], L, sample, prompt)


def test_components_sum_to_the_gap():
    account = planted()
    parts = sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))
    assert sum(p.contribution for p in parts) == pytest.approx(account.gap, abs=1e-12)
    assert sum(p.contribution_raw for p in parts) * SCALE == pytest.approx(account.gap, abs=1e-12)
    by_key = {p.key: p for p in parts}
    assert [k.kind for k in by_key] == ["latents"] * 8 + ["bias", "error", "error", "prior"]
    x = by_key[ComponentKey("latents", "written", "x")]
    both = [sum(a.written[o].latents[0, [0, 1]].sum() for a in account.accounts) for o in (0, 1)]
    assert x.contribution == pytest.approx(SCALE * sum(both) / 2 / N)
    assert x.interaction == pytest.approx(SCALE * (both[0] - both[1]) / 2 / N)
    assert (x.n_latents, by_key[ComponentKey("prior", None, None)].n_latents) == (2, None)
    empty = by_key[ComponentKey("latents", "written", "z")]
    assert (empty.contribution, empty.low, empty.high, empty.n_latents) == (0, 0, 0, 0)


def test_the_candidates_own_prompt_is_one_more_part_and_moves_no_other():
    m_N = np.random.default_rng(8).normal(2.0, 0.5, N + 1)
    effects = {i: PromptEffect(SCALE * m, m) for i, m in enumerate(m_N.tolist())}
    account, without = planted(constant={N: 1.0}, prompt=effects), planted(constant={N: 1.0})
    parts, others = (sum_components(a, CATEGORIES, NAMES, np.random.default_rng(0)) for a in (account, without))
    assert [replace(p, p_value=0.0) for p in parts[:-1]] == [replace(p, p_value=0.0) for p in others]
    assert [p.p_value for p in parts[:-1]] == pytest.approx([p.p_value for p in others], abs=0.05), "drawn anew"
    prompt = parts[-1]
    assert prompt.key == ComponentKey("prompt", None, None)
    assert prompt.contribution == pytest.approx(SCALE * m_N.mean())
    assert prompt.contribution_raw == pytest.approx(m_N.mean())
    assert (prompt.interaction, prompt.n_latents) == (0, None)
    assert prompt.low < prompt.contribution < prompt.high < 0
    assert prompt.p_value < 0.01
    assert account.gap == pytest.approx(without.gap + prompt.contribution)
    assert sum(p.contribution for p in parts) == pytest.approx(account.gap, abs=1e-12)


def test_interaction_is_shared_out_and_cancels_over_all_components():
    account = planted()
    parts = sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))
    assert sum(p.interaction for p in parts) == pytest.approx(0, abs=1e-12)
    written = sum(p.interaction for p in parts if p.key.origin == "written")
    m = np.mean([a.m_SX for a in account.accounts], axis=0)
    assert written == pytest.approx(SCALE * ((m[1, 1] - m[1, 0]) - (m[0, 1] - m[0, 0])) / 2)


def test_clear_and_absent_contributions_are_told_apart():
    found = sum_components(planted(), CATEGORIES, NAMES, np.random.default_rng(0))
    parts = {p.key.category: p for p in found if p.key.origin == "written" and p.key.kind == "latents"}
    assert parts["x"].high < 0, "written raises m, and M falls with it"
    assert parts["x"].p_value < 0.01
    assert parts["unclear"].low < 0 < parts["unclear"].high
    assert parts["unclear"].p_value > 0.05


def test_each_documents_components_sum_to_its_own_gap():
    account = planted()
    parts = contributions(account, CATEGORIES, NAMES)
    assert parts.values_NC.shape == (N, len(parts.keys))
    np.testing.assert_allclose(parts.values_NC.sum(1), account.candidate_N - account.baseline_N, atol=1e-12)
    np.testing.assert_allclose(parts.values_NC, SCALE * parts.raw_NC, atol=1e-12)


def test_latents_of_both_origins_sum_to_their_categories():
    account = planted()
    parts = {p.key: p.contribution for p in sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))}
    for origin in ("written", "read"):
        latents_L = account.latents_L(origin)
        assert latents_L[:2].sum() == pytest.approx(parts[ComponentKey("latents", origin, "x")])


def test_documents_that_can_not_differ_count_with_zero():
    account = planted(constant={N: 1.0, N + 1: 0.0})
    assert account.doc_ids == tuple(range(N + 2))
    assert account.gap == pytest.approx(planted().gap * N / (N + 2))
    assert not account.latents["written"][0][N:].sum()
    assert account.baseline_N[N:].tolist() == account.candidate_N[N:].tolist() == [1.0, 0.0]


def test_drawn_documents_stand_for_those_that_were_not():
    sample = {i: 5.0 if i < 10 else 1.0 for i in [*range(10), *range(50, 60)]}
    account, whole = planted(sample=sample), planted()
    values_N = whole.candidate_N - whole.baseline_N
    expected = (5 * values_N[:10].sum() + values_N[50:].sum()) / 60
    assert account.gap == pytest.approx(expected)
    parts = sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))
    assert sum(p.contribution for p in parts) == pytest.approx(account.gap, abs=1e-12)
    x = next(p for p in parts if p.key == ComponentKey("latents", "written", "x"))
    full = next(
        p for p in sum_components(whole, CATEGORIES, NAMES, np.random.default_rng(0)) if p.key == x.key
    )  # fmt: skip
    assert x.high - x.low > full.high - full.low, "fewer documents, a wider interval"


def test_interval_of_documents_that_weigh_differently_is_that_of_a_ratio():
    weights = np.random.default_rng(5).gamma(2, 30, N)
    account = planted(weights)
    parts = {p.key: p for p in sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))}
    x = parts[ComponentKey("latents", "written", "x")]
    latents = sum(account.latents["written"][o] for o in (0, 1)).toarray() / 2
    x_N = SCALE * latents[:, :2].sum(1)
    assert x.contribution == pytest.approx(x_N.mean())
    draws = bootstrap_ratio(x_N, account.weight_N / account.weight_N.mean(), np.random.default_rng(8))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert x.low == pytest.approx(low, abs=0.1 * (high - low))
    assert x.high == pytest.approx(high, abs=0.1 * (high - low))


def test_prior_is_content_free_only_if_own_states_agree():
    account = planted()
    parts = sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))
    prior = next(p.contribution for p in parts if p.key.kind == "prior")
    assert account.second_prior == pytest.approx(2 * prior)
    read = sum(p.contribution for p in parts if p.key.origin == "read")
    assert account.upper == pytest.approx(prior + read)
    assert is_content_free(prior, account.upper) == (abs(read) <= 0.25 * abs(prior))
    assert is_content_free(1.0, 1.2)
    assert is_content_free(-1.0, -0.8)
    assert not is_content_free(1.0, -1.0)
    assert not is_content_free(0.0, 0.0)


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


def test_documents_of_a_cluster_are_drawn_and_flipped_together():
    account = planted()
    alone, twins = (
        {p.key: p for p in sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0), clusters)}
        for clusters in ([str(i) for i in range(N)], [str(i // 10) for i in range(N)])
    )
    plain = {p.key: p for p in sum_components(account, CATEGORIES, NAMES, np.random.default_rng(0))}
    key = ComponentKey("latents", "written", "x")
    assert (alone[key].low, alone[key].high) == (plain[key].low, plain[key].high)
    assert twins[key].contribution == plain[key].contribution
    assert twins[key].p_value == pytest.approx(2 / 2**6), "six clusters of one sign"
