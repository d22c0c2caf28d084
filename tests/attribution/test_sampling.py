"""Stratified draws: whole strata kept in proportion, and weights that make means unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.attribution.sampling import stratified

STRATA = {i: "worse" if i < 6 else "better" if i < 40 else "same" for i in range(200)}


def test_all_documents_are_taken_where_there_are_no_more_than_wanted():
    assert stratified(STRATA, 200, np.random.default_rng(0)) == dict.fromkeys(range(200), 1.0)


@pytest.mark.parametrize("n", [3, 7, 50, 199])
def test_weights_stand_for_all_documents_of_each_stratum(n):
    drawn = stratified(STRATA, n, np.random.default_rng(1))
    assert n <= len(drawn) <= n + 1, "one of each stratum at least"
    for stratum in ("worse", "better", "same"):
        size = sum(s == stratum for s in STRATA.values())
        assert sum(w for i, w in drawn.items() if STRATA[i] == stratum) == pytest.approx(size)


def test_a_rare_stratum_is_never_left_out():
    drawn = stratified({i: i == 0 for i in range(1000)}, 10, np.random.default_rng(2))
    assert 0 in drawn


def test_weighted_means_are_unbiased():
    value = np.random.default_rng(3).normal(size=200) + np.array([5.0 * (STRATA[i] == "worse") for i in range(200)])
    means = []
    for seed in range(400):
        drawn = stratified(STRATA, 30, np.random.default_rng(seed))
        means.append(sum(w * value[i] for i, w in drawn.items()) / 200)
    assert np.mean(means) == pytest.approx(value.mean(), abs=4 * np.std(means) / 20)
    assert np.std(means) < 1.2 * value[40:].std() / np.sqrt(30)
