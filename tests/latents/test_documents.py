"""Sums over documents against a loop over dense codes."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.latents.documents import DocumentSums
from tests.latents.planted_codes import codes_of

N_LATENTS = 12


def streams(seed: int) -> tuple[list[tuple[list[np.ndarray], list[list[int]]]], int]:
    """Batches of texts (dense activations) with their documents: some texts in none, some documents with many."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(6):
        n_texts = int(rng.integers(1, 7))
        texts = [
            rng.lognormal(size=(length, N_LATENTS)) * (rng.random((length, N_LATENTS)) < 0.1)
            for length in rng.integers(0, 9, n_texts)
        ]
        documents = [rng.choice(8, size=rng.integers(0, 4), replace=False).tolist() for _ in range(n_texts)]
        batches.append((texts, documents))
    return batches, 10


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_a_loop_over_documents_and_texts(seed: int) -> None:
    batches, n_documents = streams(seed)
    mass_DL, n_active_DL = np.zeros((n_documents, N_LATENTS)), np.zeros((n_documents, N_LATENTS), dtype=int)
    n_tokens_D = np.zeros(n_documents, dtype=int)
    sums = DocumentSums(N_LATENTS)
    for texts, documents in batches:
        sums.update(codes_of(texts, N_LATENTS), documents)
        for text, found in zip(texts, documents):
            for document in found:
                mass_DL[document] += text.sum(axis=0)
                n_active_DL[document] += (text > 0).sum(axis=0)
                n_tokens_D[document] += len(text)
    found = sums.finish(n_documents)
    np.testing.assert_allclose(found.mass_DL.toarray(), mass_DL, rtol=1e-6)
    np.testing.assert_array_equal(found.n_active_DL.toarray(), n_active_DL)
    np.testing.assert_array_equal(found.n_tokens_D, n_tokens_D)
    np.testing.assert_allclose(
        found.mean_DL.toarray(), mass_DL / np.maximum(n_tokens_D, 1)[:, None], rtol=1e-6, atol=1e-12
    )
    assert found.mass_DL.has_canonical_format
    assert found.mass_DL.nnz == (mass_DL > 0).sum()

    task_D = np.array(["b", "a", "a", "b", "c", "c", "a", "b", "none", "none"])
    density = found.density_by_group(task_D.tolist())
    assert list(density) == ["b", "a", "c", "none"]
    for name in "abc":
        expected_L = n_active_DL[task_D == name].sum(axis=0) / n_tokens_D[task_D == name].sum()
        np.testing.assert_allclose(density[name], expected_L)
    assert np.isnan(density["none"]).all()


def test_a_document_named_twice_for_a_text_reads_it_once() -> None:
    text = np.eye(3, N_LATENTS)
    sums = DocumentSums(N_LATENTS)
    sums.update(codes_of([text], N_LATENTS), [[1, 1]])
    found = sums.finish(2)
    assert found.n_tokens_D.tolist() == [0, 3]
    assert found.n_active_DL.sum() == 3


def test_the_order_and_the_batches_of_texts_do_not_matter() -> None:
    batches, n_documents = streams(9)
    pairs = [pair for texts, documents in batches for pair in zip(texts, documents)]
    together, backwards = DocumentSums(N_LATENTS), DocumentSums(N_LATENTS)
    together.update(codes_of([text for text, _ in pairs], N_LATENTS), [documents for _, documents in pairs])
    for text, documents in pairs[::-1]:
        backwards.update(codes_of([text], N_LATENTS), [documents])
    one, other = together.finish(n_documents), backwards.finish(n_documents)
    np.testing.assert_allclose(one.mass_DL.toarray(), other.mass_DL.toarray(), rtol=1e-12)
    np.testing.assert_array_equal(one.n_active_DL.toarray(), other.n_active_DL.toarray())


def test_nothing_seen_is_empty_documents() -> None:
    found = DocumentSums(N_LATENTS).finish(3)
    assert found.mass_DL.shape == (3, N_LATENTS)
    assert found.n_tokens_D.tolist() == [0, 0, 0]
    assert found.mean_DL.nnz == 0
    assert np.isnan(found.density_by_group(["a", "a", "b"])["a"]).all()


def test_what_does_not_fit_is_refused() -> None:
    sums, codes = DocumentSums(N_LATENTS), codes_of([np.eye(2, N_LATENTS)], N_LATENTS)
    with pytest.raises(ValueError, match="2 lists of documents for 1 texts"):
        sums.update(codes, [[0], [1]])
    with pytest.raises(ValueError, match="numbered from 0"):
        sums.update(codes, [[-1]])
    with pytest.raises(ValueError, match="latents"):
        DocumentSums(3).update(codes, [[0]])
    sums.update(codes, [[4]])
    with pytest.raises(ValueError, match="document 4 of 4"):
        sums.finish(4)
    with pytest.raises(ValueError, match="1 groups for 5 documents"):
        sums.finish(5).density_by_group(["a"])
