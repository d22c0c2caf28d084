"""How documents become rows, and rows' logits scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffharness.attribution.batches import Batch, DocumentForm, Span, batches
from diffharness.attribution.surrogates import Choice, LogLikelihood, Preference

CPU = torch.device("cpu")
PROMPT = (1, 5, 9)


def span(*answer: int) -> Span:
    return Span((PROMPT + answer)[:-1], len(PROMPT) - 1, answer)


DOCUMENTS = (
    DocumentForm(7, (span(8, 10), span(6, 11, 3)), Preference(1.0, 0.0)),
    DocumentForm(3, (span(8), span(6), span(4, 4)), Choice((2,), (1.0, 1.0, 1.0))),
    DocumentForm(5, (span(8, 10),), LogLikelihood(0.5, 2.0)),
)


def random_logits(batch: Batch, seed: int = 0) -> torch.Tensor:
    return torch.randn(*batch.ids_BT.shape, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def likelihoods(batch: Batch, logits_BTV: torch.Tensor) -> list[list[float]]:
    """A document's readings in order: every row is found by its ids, every token by its place in them."""
    rows = {}
    for g, ids_T, length in zip(batch.document_B.tolist(), batch.ids_BT.tolist(), batch.lengths, strict=True):
        rows[g, tuple(ids_T[:length])] = len(rows)
    p_BTV = np.exp(logits_BTV.numpy())
    p_BTV /= p_BTV.sum(axis=-1, keepdims=True)
    return [
        [
            float(sum(np.log(p_BTV[rows[g, s.ids], s.start + i, token]) for i, token in enumerate(s.targets)))
            for s in document.spans
        ]
        for g, document in enumerate(batch.documents)
    ]


def test_a_documents_distinct_sequences_are_a_row_each():
    batch = Batch(DOCUMENTS, CPU)
    assert batch.document_B.tolist() == [0, 0, 1, 1, 2], "both first choices of the second are asked after the prompt"
    assert batch.lengths == [4, 5, 3, 4, 4]
    assert batch.ids_BT.shape == (5, 5)
    assert batch.read_BT.sum(dim=1).tolist() == batch.lengths
    assert batch.n_readings == 6


def test_a_sequence_of_two_documents_is_a_row_of_each():
    batch = Batch([DOCUMENTS[0], DOCUMENTS[2]], CPU)
    assert batch.ids_BT[0].tolist() == batch.ids_BT[2].tolist()
    assert batch.document_B.tolist() == [0, 0, 1]


def test_readings_are_the_sums_of_their_targets_log_probabilities():
    batch = Batch(DOCUMENTS, CPU)
    logits_BTV = random_logits(batch)
    wanted = likelihoods(batch, logits_BTV)
    np.testing.assert_allclose(batch.log_likelihoods(logits_BTV), list(itertools.chain(*wanted)), atol=1e-5)
    m = [wanted[0][1] - wanted[0][0], wanted[1][2] - np.logaddexp(*wanted[1][:2]), 0.5 * wanted[2][0]]
    np.testing.assert_allclose(batch.path(logits_BTV), m, atol=1e-5)


@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 2], [2, 0], [1, 2], [0, 1, 2]])
def test_a_selection_keeps_rows_width_and_scores(chosen):
    whole = Batch(DOCUMENTS, CPU)
    part, rows = whole.select(chosen)
    assert [d.doc_id for d in part.documents] == [DOCUMENTS[g].doc_id for g in sorted(chosen)]
    assert torch.equal(part.ids_BT, whole.ids_BT[rows])
    assert part.lengths == [whole.lengths[row] for row in rows.tolist()]
    assert torch.equal(torch.tensor(sorted(chosen))[part.document_B], whole.document_B[rows])
    logits_BTV = random_logits(whole)
    assert torch.equal(part.path(logits_BTV[rows]), whole.path(logits_BTV)[sorted(chosen)])


def test_a_wider_batch_is_padded():
    batch = Batch(DOCUMENTS, CPU, width=9)
    assert batch.ids_BT.shape == (5, 9)
    assert batch.lengths == Batch(DOCUMENTS, CPU).lengths
    assert batch.read_BT.sum() == sum(batch.lengths)


def test_scores_do_not_depend_on_logits_of_padding():
    batch = Batch(DOCUMENTS, CPU)
    logits_BTV = random_logits(batch)
    changed = torch.where(batch.read_BT[..., None], logits_BTV, logits_BTV + 7 * random_logits(batch, 1))
    assert torch.equal(batch.path(changed), batch.path(logits_BTV))


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=20), st.integers(1, 60))
@settings(deadline=None, max_examples=60)
def test_every_document_is_in_one_batch_and_batches_keep_to_the_budget(lengths, budget):
    documents = [
        DocumentForm(i, tuple(Span((r, *range(n)), 0, (1,)) for r, n in enumerate(rows)), LogLikelihood(1.0, 1.0))
        for i, rows in enumerate(lengths)
    ]
    found = batches(documents, budget)
    assert sorted(itertools.chain(*found)) == list(range(len(documents)))
    for some in found:
        batch = Batch([documents[i] for i in some], CPU)
        assert batch.ids_BT.numel() <= budget or len(some) == 1


def test_batches_of_long_documents_come_first():
    documents = [
        DocumentForm(i, (Span(tuple(range(n)), 0, (1,)),), LogLikelihood(1.0, 1.0)) for i, n in enumerate((2, 8, 4))
    ]
    assert batches(documents, 8) == [[1], [2, 0]]
    assert batches([], 8) == []
