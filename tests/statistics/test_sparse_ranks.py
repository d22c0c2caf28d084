"""Ranks of sparse scores are those of the dense ones, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from diffharness.statistics.ranks import mann_whitney_table
from diffharness.statistics.sparse_ranks import mann_whitney_sparse

MEMBERS = np.stack([np.arange(20) % 3 == 0, np.arange(20) < 7, np.arange(20) == 19], axis=1)


@settings(deadline=None)
@given(hnp.arrays(np.float64, (20, 5), elements=st.sampled_from([0.0, 0.0, 0.0, -1.5, 1.0, 2.0, 2.5, 7.0])))
def test_agrees_with_the_dense_table_under_ties_zeros_and_negatives(scores_NL: np.ndarray) -> None:
    for ours, theirs in zip(
        mann_whitney_sparse(sparse.csc_array(scores_NL), MEMBERS), mann_whitney_table(scores_NL, MEMBERS)
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_written_zeros_and_single_precision_change_nothing() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((20, 300)) < 0.2) * rng.random((20, 300))
    held = sparse.csc_array(dense.astype(np.float32))
    held.data[::3] = 0
    for ours, theirs in zip(mann_whitney_sparse(held, MEMBERS), mann_whitney_table(held.toarray(), MEMBERS)):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_at_all_is_tied_throughout() -> None:
    auroc, p = mann_whitney_sparse(sparse.csc_array((20, 4)), MEMBERS)
    assert np.all(auroc == 0.5)
    assert np.all(p == 1.0)


def test_groups_without_members_or_others_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="members and others"):
        mann_whitney_sparse(sparse.csc_array((3, 1)), np.zeros((3, 1), dtype=bool))
    with pytest.raises(ValueError, match="members and others"):
        mann_whitney_sparse(sparse.csc_array((3, 1)), np.ones((3, 1), dtype=bool))
    with pytest.raises(ValueError, match="NaN"):
        mann_whitney_sparse(sparse.csc_array(np.array([[np.nan], [0.0]])), np.array([[True], [False]]))
