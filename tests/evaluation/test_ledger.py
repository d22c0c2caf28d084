import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from diffharness.errors import RunError
from diffharness.evaluation.ledger import Ledger, LedgerWriter, Reading, sequence_hash

READING = Reading("t", 3, 1, 0, 0, "loglikelihood", (1, 5, 9), 1, (9, 4), -2.5, False)


def made(**changes: object) -> Reading:
    return dataclasses.replace(READING, **changes)


VARIED = Ledger(
    [
        READING,
        made(log_likelihood=None, kind="generate_until", truncated=True, targets=()),
        made(task="é", greedy=True, plain_log_likelihood=-3.25, retokenised=True),
        made(ids=(), targets=(), start=0, log_likelihood=float("-inf"), greedy=False),
    ]
)


def test_saved_readings_are_loaded_as_they_were(tmp_path):
    for ledger in (VARIED, Ledger()):
        ledger.save(tmp_path / "x.parquet")
        loaded = Ledger.load(tmp_path / "x.parquet")
        assert loaded == ledger
        assert loaded.readings == ledger.readings
    assert VARIED.readings[0] == READING


def test_sequence_is_identified_by_its_ids_alone(tmp_path):
    assert READING.sequence == made(task="other", start=0).sequence == sequence_hash([1, 5, 9])
    assert len({sequence_hash(ids) for ids in ([1], [1, 0], [0, 1], [256], [])}) == 5
    VARIED.save(tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet")["sequence"].to_pylist() == [r.sequence for r in VARIED]


def test_readings_of_a_document_come_in_order():
    some = [made(index=1), made(index=0, window=1), made(index=0), made(doc_id=0), made(task="other")]
    found = Ledger(some).by_document("t")
    assert list(found) == [0, 3]
    assert [(r.index, r.window) for r in found[3]] == [(0, 0), (0, 1), (1, 0)]


def test_tokens_are_those_read_and_scored():
    assert Ledger((READING, made(task="other", ids=(77,)))).tokens("t") == {1, 5, 9, 4}
    assert Ledger().tokens("t") == set()


def test_many_readings_are_kept_in_order_and_take_little_more_than_their_tokens():
    rng = np.random.default_rng(0)
    writer = LedgerWriter()
    n, length = 9000, 50
    ids = rng.integers(0, 50_000, (n, length))
    for i, row in enumerate(ids):
        writer.add(made(doc_id=i, ids=tuple(row.tolist()), targets=(i,)))
    ledger = writer.ledger()
    assert [r.doc_id for r in ledger] == list(range(n))
    assert np.array_equal([r.ids for r in ledger], ids)
    assert ledger.n_bytes < n * (4 * length + 80)


def test_documents_are_renumbered_task_by_task():
    ledger = Ledger([made(doc_id=0), made(doc_id=1), made(task="other", doc_id=1)])
    found = ledger.renumbered({"t": [4, 9], "other": [0, 1]})
    assert [(r.task, r.doc_id) for r in found] == [("t", 4), ("t", 9), ("other", 1)]
    assert ledger.renumbered({"t": [0, 1]}) is ledger
    assert found.readings[0] == made(doc_id=4)


def test_rescored_documents_are_those_with_two_values():
    some = [made(doc_id=d, index=i, plain_log_likelihood=p) for d, i, p in ((5, 0, -1.0), (5, 1, -2.0), (1, 0, None))]
    assert Ledger(some).rescored_documents("t") == [5]
    assert Ledger(some).rescored_documents("other") == []


WHOLE = [made(doc_id=d, repeat=n) for d in (0, 1) for n in (0, 1)] + [made(doc_id=2, window=w) for w in (0, 1, 2)]
ASKED = [("t", d, 1, n) for d in (0, 1) for n in (0, 1)] + [("t", 2, 1, 0)]


@pytest.mark.parametrize(
    ("readings", "asked", "message"),
    [
        (WHOLE[1:], ASKED, r"short of 1 requests: task 't', document 0, request 1, repeat 0"),
        (WHOLE[:3] + WHOLE[4:], ASKED, r"short of 1 requests: task 't', document 1, request 1, repeat 1"),
        (WHOLE, [*ASKED, ASKED[0]], r"short of 1 requests: task 't', document 0"),
        ([*WHOLE, WHOLE[3]], ASKED, r"more often than they were asked: task 't', document 1, request 1, repeat 1"),
        (WHOLE, ASKED[1:], r"more often than they were asked: task 't', document 0"),
        ([*WHOLE, made(task="u")], ASKED, r"more often than they were asked: task 'u', document 3"),
        (WHOLE[:5] + WHOLE[6:], ASKED, r"windows \[0, 2\] of task 't', document 2"),
        ([*WHOLE, WHOLE[5]], ASKED, r"windows \[0, 1, 1, 2\] of task 't', document 2"),
    ],
)
def test_request_that_is_missing_or_there_twice_is_named(readings, asked, message):
    Ledger(WHOLE).check_complete(ASKED)
    with pytest.raises(RunError, match=message):
        Ledger(readings).check_complete(asked)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 but not really"])
def test_what_is_no_ledger_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(RunError, match="record the evaluation again"):
        Ledger.load(tmp_path / "x.parquet")


def test_ledger_that_was_cut_off_or_damaged_anywhere_is_refused(tmp_path):
    file = tmp_path / "x.parquet"
    Ledger(WHOLE).save(file)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    contents = [whole[:n] for n in (4, len(whole) // 2, len(whole) - 1)]
    for position in rng.choice(len(whole), 150, replace=False):
        contents.append(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
    for content in contents:
        file.write_bytes(content)
        assert _refused(file) or Ledger.load(file) == Ledger(WHOLE), "altered and not refused"


def _refused(file: Path) -> bool:
    try:
        Ledger.load(file)
    except RunError as error:
        message = str(error)
        return "x.parquet" in message and message.endswith("record the evaluation again") and "\n" not in message
    return False


@pytest.mark.parametrize(
    "alter",
    [
        lambda t: t.set_column(t.schema.get_field_index("doc_id"), "doc_id", pc.add(t["doc_id"], 1)),
        lambda t: t.slice(1),
        lambda t: t.take([1, 0, *range(2, len(t))]),
        lambda t: t.replace_schema_metadata(None),
        lambda t: t.drop_columns(["targets"]),
    ],
)
def test_ledger_that_another_program_wrote_again_is_refused(tmp_path, alter):
    file = tmp_path / "x.parquet"
    Ledger(WHOLE).save(file)
    pq.write_table(alter(pq.read_table(file)), file)
    with pytest.raises(RunError, match=r"x.parquet .*; record the evaluation again"):
        Ledger.load(file)


def test_checksum_is_of_the_rows_and_not_of_how_they_lie_in_the_file(tmp_path):
    file = tmp_path / "x.parquet"
    Ledger(WHOLE).save(file)
    pq.write_table(pq.read_table(file), file, row_group_size=2, compression="gzip")
    assert Ledger.load(file) == Ledger(WHOLE)
