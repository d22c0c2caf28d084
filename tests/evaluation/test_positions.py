"""Answers that move to one place are found, and those that move by chance are not."""

from __future__ import annotations

import numpy as np

from diffharness.evaluation.ledger import Reading
from diffharness.evaluation.positions import at_the_position, chosen, position_shift
from diffharness.evaluation.scores import DocumentScore


def test_answers_that_move_to_one_place_are_found():
    rng = np.random.default_rng(0)
    right_N = rng.integers(0, 4, 200)
    base_N = np.where(rng.random(200) < 0.7, right_N, rng.integers(0, 4, 200))
    cand_N = np.where(rng.random(200) < 0.4, 2, base_N)
    found = position_shift(base_N, cand_N, right_N, rng)
    assert found is not None
    assert (found.position, found.n) == (2, 200)
    assert found.p_value < 0.001
    assert found.candidate == np.mean(cand_N == 2)
    assert found.right == np.mean(right_N == 2)


def test_moves_without_a_direction_find_their_nominal_rate():
    rng = np.random.default_rng(1)
    n_found = 0
    for _ in range(60):
        base_N, cand_N = rng.integers(0, 3, (2, 80))
        found = position_shift(base_N, cand_N, base_N, rng)
        n_found += found is not None and found.p_value < 0.05
    assert n_found <= 8


def test_the_p_value_is_that_of_all_swaps():
    base_N, cand_N = np.zeros(5, dtype=int), np.ones(5, dtype=int)
    base_N, cand_N = (np.concatenate([side, np.repeat([0, 1], 5)]) for side in (base_N, cand_N))
    right_N = np.concatenate([np.zeros(5, dtype=int), np.repeat([0, 1], 5)])
    found = position_shift(base_N, cand_N, right_N, np.random.default_rng(2))
    assert found is not None
    assert abs(found.p_value - 2 / 2**5) < 0.012, "all five the one way or the other, of 32 ways to swap"


def test_lost_skill_alone_is_no_shift():
    rng = np.random.default_rng(3)
    right_N = np.where(rng.random(400) < 0.7, 0, rng.integers(1, 4, 400))
    n_found = 0
    for _ in range(40):
        cand_N = np.where(rng.random(400) < 0.5, right_N, (right_N + rng.integers(1, 4, 400)) % 4)
        found = position_shift(right_N, cand_N, right_N, rng)
        n_found += found is not None and found.p_value < 0.05
    assert n_found <= 6


def test_right_answers_in_one_place_say_nothing_of_places():
    right_N = np.zeros(100, dtype=int)
    cand_N = np.where(np.arange(100) < 60, 1, right_N)
    assert position_shift(right_N, cand_N, right_N, np.random.default_rng(4)) is None


def test_nothing_moved_is_no_shift():
    places_N = np.array([0, 1, 2])
    assert position_shift(places_N, places_N, places_N, np.random.default_rng(0)) is None


def test_losses_at_the_overused_place_are_its_own():
    base_N, cand_N, right_N = np.array([[0, 1, 2, 3, 1, 0], [2, 2, 2, 2, 0, 3], [0, 1, 2, 3, 0, 3]])
    still_N = np.repeat([0, 1, 2, 3], 5)
    base_N, cand_N, right_N = (np.concatenate([side, still_N]) for side in (base_N, cand_N, right_N))
    shift = position_shift(base_N, cand_N, right_N, np.random.default_rng(0))
    assert shift is not None
    lost = {0: True, 1: True, 3: True, 4: False}
    base, cand = dict(enumerate(base_N.tolist())), dict(enumerate(cand_N.tolist()))
    assert (shift.position, shift.left) == (2, 1)
    assert at_the_position(shift, lost, base, cand) == {0, 1, 3, 4}, "the baseline used place 1 too often"


def test_the_choice_is_lm_evals():
    document = DocumentScore("t", 0, "none", "d", "p", "", "", "", {}, (0,), ("a", "a long choice"))
    readings = [
        Reading("t", 0, i, 0, 0, "loglikelihood", (1,), 0, (2,), value, False) for i, value in enumerate((-2.0, -3.0))
    ]
    assert chosen(document, readings, "acc") == 0
    assert chosen(document, readings, "acc_norm") == 1
    assert chosen(document, readings[:1], "acc") is None
