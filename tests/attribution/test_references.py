"""Which texts a document is read against."""

from __future__ import annotations

import pytest
import torch

from diffharness.attribution.batches import Batch, DocumentForm, Span
from diffharness.attribution.references import References
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.errors import RunError

SKIPPED = 3
TEXTS = [(1, *range(10 * k, 10 * k + 6)) for k in range(2, 30)]


def document(doc_id: int, *sequences: tuple[int, ...]) -> DocumentForm:
    return DocumentForm(doc_id, tuple(Span(s, len(s) - 1, (5,)) for s in sequences), LogLikelihood(1.0, 1.0))


def rows_of(references: References, *documents: DocumentForm) -> list[list[list[int]]]:
    """What stands in each row, by draw, padding cut off."""
    batch = Batch(documents, torch.device("cpu"))
    found = list(references.rows(batch))
    assert all(rows.document_B.tolist() == batch.document_B.tolist() for rows in found)
    assert all(rows.ids_BT.shape == batch.ids_BT.shape for rows in found)
    assert not any(rows.ids_BT[~batch.read_BT].any() for rows in found)
    return [[ids[:n].tolist() for ids, n in zip(rows.ids_BT, rows.lengths, strict=True)] for rows in found]


TWO = document(0, (1, 7, 8, 9), (1, 7, 8, 9, 11, 12))
ONE = document(1, (1, 30, 31, 32, 33))


def test_all_sequences_of_a_document_get_the_beginning_of_one_text():
    for short, long, other in rows_of(References(TEXTS, n=3), TWO, ONE):
        assert short == long[:4]
        assert tuple(long) in {text[:6] for text in TEXTS}
        assert tuple(other) in {text[:5] for text in TEXTS}


def test_a_document_gets_the_same_texts_in_any_batch_and_other_documents_others():
    references = References(TEXTS, n=4)
    together = rows_of(references, ONE, TWO)
    assert [rows[0] for rows in together] == [rows[0] for rows in rows_of(references, ONE)]
    assert len({tuple(rows[0]) for rows in together}) == 4, "each time another text"
    many = [document(i, (1, 7, 100 + i)) for i in range(40)]
    assert len({tuple(ids) for ids in rows_of(References(TEXTS), *many)[0]}) > 10


def test_short_texts_go_on_with_others_without_their_first_tokens():
    (rows,) = rows_of(References([(1, 5), (1, 6, 7)]), document(0, tuple(range(9))))
    assert rows[0] in ([1, 5, 6, 7, 5, 6, 7, 5, 6], [1, 6, 7, 5, 6, 7, 5, 6, 7])


def test_ids_without_a_code_are_left_out_but_first():
    (rows,) = rows_of(References([(SKIPPED, 5, SKIPPED, 6, 7)], {SKIPPED}), document(0, (1, 2, 4, 5)))
    assert rows[0] == [SKIPPED, 5, 6, 7]


def test_a_document_is_not_read_against_itself():
    own = TEXTS[:2]
    for rows in rows_of(References(TEXTS[:3], n=5), document(0, *own)):
        assert tuple(rows[0]) == TEXTS[2]


@pytest.mark.parametrize("texts", [[], [()], [(1,)], [(1, SKIPPED)]])
def test_no_text_to_read_against_is_said(texts):
    with pytest.raises(RunError, match=r"no text of two tokens or more.*--corpus"):
        References(texts, {SKIPPED})


def test_a_document_whose_texts_are_all_there_is_is_said():
    with pytest.raises(RunError, match=r"only document.*--corpus"):
        rows_of(References(TEXTS[:2]), document(0, *TEXTS[:2]))
