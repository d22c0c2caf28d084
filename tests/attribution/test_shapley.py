"""Shapley values against all orderings, drawn orders against exact values, intervals against the plain bootstrap."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearsonr

from diffharness.attribution.shapley import (
    BIAS_AND_ERROR,
    OTHERS,
    correlation,
    exact_plan,
    plan_for,
    players_of,
    sampled_plan,
    shapley_values,
)
from diffharness.statistics.bootstrap import paired_bootstrap


def all_orderings(score, n_players):
    """Mean of what each player adds to those before it, over every order; `score` maps a frozenset to a number."""
    total = np.zeros(n_players)
    orders = list(permutations(range(n_players)))
    for order in orders:
        for position, player in enumerate(order):
            before = frozenset(order[:position])
            total[player] += score(before | {player}) - score(before)
    return total / len(orders)


def random_game(n_players, seed=0):
    table = np.random.default_rng(seed).normal(size=2**n_players)
    return lambda members: table[sum(2**p for p in members)]


def scores(plan, game):
    return np.array([game(frozenset(np.flatnonzero(row).tolist())) for row in plan.member_SP])


@pytest.mark.parametrize("n_players", [1, 2, 5, 6])
def test_exact_values_are_the_mean_over_all_orderings(n_players):
    game, plan = random_game(n_players), exact_plan(n_players)
    np.testing.assert_allclose(plan.values(scores(plan, game)), all_orderings(game, n_players), atol=1e-12)


@pytest.mark.parametrize("make", [exact_plan, lambda n: sampled_plan(n, 3, np.random.default_rng(1))])
def test_values_sum_to_what_all_players_change(make):
    plan = make(6)
    score_S = scores(plan, random_game(6))
    assert not plan.member_SP[0].any()
    assert plan.member_SP[-1].all()
    assert plan.values(score_S).sum() == pytest.approx(score_S[-1] - score_S[0], abs=1e-12)


def test_drawn_orders_come_to_the_exact_values_within_their_standard_error():
    game, exact = random_game(7), exact_plan(7)
    truth = exact.values(scores(exact, game))
    errors = []
    for n_pairs in (20, 2000):
        plan = sampled_plan(7, n_pairs, np.random.default_rng(3))
        found = shapley_values(plan, scores(plan, game), None, 1, np.random.default_rng(0))
        assert found.standard_error_P is not None
        assert np.all(np.abs(found.value_P - truth) < 4 * found.standard_error_P)
        errors.append(np.abs(found.value_P - truth).max())
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.03


def test_an_order_and_its_reverse_are_exact_where_players_only_meet_in_pairs():
    rng = np.random.default_rng(5)
    alone_P, together_PP = rng.normal(size=10), rng.normal(size=(10, 10))

    def game(members):
        chosen = sorted(members)
        return alone_P[chosen].sum() + np.triu(together_PP, 1)[np.ix_(chosen, chosen)].sum()

    pairs_PP = np.triu(together_PP, 1)
    truth = alone_P + (pairs_PP + pairs_PP.T).sum(axis=0) / 2
    plan = sampled_plan(10, 2, rng)
    np.testing.assert_allclose(plan.values(scores(plan, game)), truth, atol=1e-12)


def test_up_to_eight_players_are_exact_and_more_are_drawn():
    rng = np.random.default_rng(0)
    assert plan_for(8, rng).exact
    assert plan_for(8, rng).n_sets == 256
    drawn = plan_for(9, rng, n_pairs=4)
    assert not drawn.exact
    assert drawn.n_sets <= 2 + 4 * 2 * 8


@pytest.fixture(scope="module")
def documents():
    """Scores of 40 documents in all sets of three players: a value a player and document, and no interaction."""
    own_NP = np.random.default_rng(2).normal([0.5, -0.2, 0.0], 1.0, size=(40, 3))
    plan = exact_plan(3)
    return own_NP, plan, own_NP @ plan.member_SP.T.astype(float)


def weighted(score_NS):
    return lambda w_RN: w_RN @ score_NS / w_RN.sum(axis=1, keepdims=True)


def test_intervals_are_the_bootstrap_of_each_documents_values(documents):
    own_NP, plan, score_NS = documents
    found = shapley_values(plan, score_NS.mean(axis=0), weighted(score_NS), 40, np.random.default_rng(7))
    plain = paired_bootstrap(own_NP, np.random.default_rng(7))
    assert found.intervals is not None
    np.testing.assert_allclose(found.value_P, own_NP.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.intervals.low, plain.low, atol=1e-9)
    np.testing.assert_allclose(found.intervals.high, plain.high, atol=1e-9)


def test_intervals_of_drawn_orders_are_wider_by_what_drawing_leaves_open(documents):
    _, exact, _ = documents
    game = random_game(3, seed=4)
    plan = sampled_plan(3, 6, np.random.default_rng(1))
    noise_N1 = 0.01 * np.random.default_rng(0).normal(size=(40, 1))
    found = [
        shapley_values(p, scores(p, game), weighted(scores(p, game) + noise_N1), 40, np.random.default_rng(0))
        for p in (exact, plan)
    ]
    widths = [f.intervals.high - f.intervals.low for f in found if f.intervals is not None]
    assert found[1].standard_error_P is not None
    assert np.all(widths[0] < 1e-9)
    assert np.all(widths[1] >= 2 * found[1].standard_error_P)


def test_small_categories_are_one_player_and_bias_and_error_come_last():
    players = players_of({"a": 1.0, "b": -0.5, "c": 0.03, "d": -0.02, "e": 0.0})
    assert [(p.name, p.categories) for p in players] == [
        ("a", ("a",)),
        ("b", ("b",)),
        (OTHERS, ("c", "d", "e")),
        (BIAS_AND_ERROR, ()),
    ]


def test_there_are_never_more_players_than_asked_for():
    players = players_of({f"c{i}": 1.0 + i for i in range(12)})
    assert len(players) == 8
    assert [p.name for p in players[:2]] == ["c11", "c10"]
    assert len(players[6].categories) == 6
    assert len(players_of({f"c{i}": 1.0 for i in range(12)}, most=20)) == 13


def test_a_category_that_would_be_the_only_other_one_keeps_its_name():
    assert [p.name for p in players_of({"a": 1.0, "b": 0.01})] == ["a", "b", BIAS_AND_ERROR]
    assert [p.name for p in players_of({"a": 0.0, "b": 0.0})] == [OTHERS, BIAS_AND_ERROR]


def test_correlation_is_pearsons():
    first_N, second_N = np.random.default_rng(0).normal(size=(2, 20))
    pairs = list(zip(first_N.tolist(), (0.5 * first_N + second_N).tolist(), strict=True))
    assert correlation(pairs) == pytest.approx(pearsonr(*zip(*pairs, strict=True)).statistic)
    assert correlation([(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]) is None
    assert correlation([(1.0, 2.0), (2.0, 3.0)]) is None
