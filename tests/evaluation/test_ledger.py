import dataclasses

import pytest

from diffharness.errors import RunError
from diffharness.evaluation.ledger import Ledger, Reading, sequence_hash

READING = Reading("t", 3, 1, 0, 0, "loglikelihood", (1, 5, 9), 1, (9, 4), -2.5, False)


def made(**changes: object) -> Reading:
    return dataclasses.replace(READING, **changes)


def test_saved_readings_are_loaded_as_they_were(tmp_path):
    ledger = Ledger((READING, made(log_likelihood=None, kind="generate_until", truncated=True, targets=())))
    ledger.save(tmp_path / "x.parquet")
    assert Ledger.load(tmp_path / "x.parquet") == ledger


def test_sequence_is_identified_by_its_ids_alone():
    assert READING.sequence == made(task="other", start=0).sequence == sequence_hash([1, 5, 9])
    assert len({sequence_hash(ids) for ids in ([1], [1, 0], [0, 1], [256], [])}) == 5


def test_readings_of_a_document_come_in_order():
    some = [made(index=1), made(index=0, window=1), made(index=0), made(doc_id=0), made(task="other")]
    found = Ledger(tuple(some)).by_document("t")
    assert list(found) == [0, 3]
    assert [(r.index, r.window) for r in found[3]] == [(0, 0), (0, 1), (1, 0)]


def test_tokens_are_those_read_and_scored():
    assert Ledger((READING, made(task="other", ids=(77,)))).tokens("t") == {1, 5, 9, 4}


@pytest.mark.parametrize("content", [None, b"", b"PAR1 but not really"])
def test_what_is_no_ledger_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(RunError, match="record the evaluation again"):
        Ledger.load(tmp_path / "x.parquet")
