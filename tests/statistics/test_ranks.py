"""Rank statistics against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from diffharness.statistics import ranks
from diffharness.statistics.ranks import mann_whitney, mann_whitney_table, spearman

tied_scores = hnp.arrays(np.float64, (20, 3), elements=st.integers(0, 4).map(float))


@settings(deadline=None)
@given(tied_scores, st.integers(1, 19))
def test_agrees_with_scipy_under_ties(scores_NL: np.ndarray, n_members: int) -> None:
    is_member = np.arange(20) < n_members
    auroc, p = mann_whitney(scores_NL, is_member)
    for column in range(3):
        members, others = scores_NL[is_member, column], scores_NL[~is_member, column]
        wins = (members[:, None] > others).mean() + (members[:, None] == others).mean() / 2
        assert auroc[column] == pytest.approx(wins, abs=1e-12)
        if np.ptp(scores_NL[:, column]) == 0:
            assert (auroc[column], p[column]) == (0.5, 1.0)
            continue
        expected = stats.mannwhitneyu(members, others, alternative="greater", method="asymptotic", use_continuity=True)
        assert p[column] == pytest.approx(min(float(expected.pvalue), 1.0), rel=1e-9)


@settings(deadline=None)
@given(tied_scores)
def test_only_the_order_of_scores_matters(scores_NL: np.ndarray) -> None:
    is_member = np.arange(20) % 3 == 0
    for ours, theirs in zip(mann_whitney(scores_NL, is_member), mann_whitney(np.exp(scores_NL) * 7, is_member)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_group_and_its_complement_are_mirror_images() -> None:
    scores_NL = np.random.default_rng(0).integers(0, 5, size=(30, 6)).astype(float)
    member_NK = np.zeros((30, 2), dtype=bool)
    member_NK[:11, 0] = member_NK[11:, 1] = True
    auroc_LK, _ = mann_whitney_table(scores_NL, member_NK)
    np.testing.assert_allclose(auroc_LK.sum(axis=1), 1.0)


def test_chunks_of_latents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores_NL, is_member = rng.random((40, 50)), rng.random(40) < 0.4
    whole = mann_whitney(scores_NL, is_member)
    monkeypatch.setattr(ranks, "_CHUNK_CELLS", 40 * 7)
    for ours, theirs in zip(whole, mann_whitney(scores_NL, is_member)):
        np.testing.assert_array_equal(ours, theirs)


def test_p_values_of_noise_are_uniform() -> None:
    rng = np.random.default_rng(2)
    _, p = mann_whitney(rng.random((120, 4000)), np.arange(120) < 15)
    assert stats.kstest(p, "uniform").statistic < 0.03


def test_groups_without_members_or_others_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="members and others"):
        mann_whitney(np.zeros((3, 1)), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="members and others"):
        mann_whitney(np.zeros((3, 1)), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="NaN"):
        mann_whitney(np.full((3, 1), np.nan), np.array([True, False, False]))


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 12), elements=st.integers(-3, 3).map(float)))
def test_spearman_agrees_with_scipy(pair: np.ndarray) -> None:
    found = spearman(pair[0], pair[1])
    if np.ptp(pair[0]) == 0 or np.ptp(pair[1]) == 0:
        assert found is None
    else:
        assert found == pytest.approx(float(np.asarray(stats.spearmanr(pair[0], pair[1]))[0]), abs=1e-12)


def test_spearman_of_one_document_is_none_and_of_unequal_lengths_an_error() -> None:
    assert spearman(np.array([1.0]), np.array([2.0])) is None
    with pytest.raises(ValueError, match="one length"):
        spearman(np.zeros(2), np.zeros(3))
