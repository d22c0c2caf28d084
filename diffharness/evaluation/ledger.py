"""The ledger: for every request of a task, the exact tokens that the model read and the span it was scored on.

A row is a *reading*: one sequence, the predictor positions `start … start + len(targets) − 1` in it, and the
tokens predicted there. A request has one reading, or one a window (`loglikelihood_rolling`). Rows are kept as an Arrow
table, four bytes a token, and made into `Reading` objects where they are asked for.
"""

# pyarrow makes its compute functions when it is imported.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffharness.errors import RunError
from diffharness.evaluation.checksum import table_digest

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("index", pa.int32()),
        ("repeat", pa.int32()),
        ("window", pa.int32()),
        ("kind", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("start", pa.int32()),
        ("targets", pa.list_(pa.int32())),
        ("log_likelihood", pa.float64()),
        ("truncated", pa.bool_()),
        ("greedy", pa.bool_()),
        ("plain_log_likelihood", pa.float64()),
        ("retokenised", pa.bool_()),
    ]
)
_BATCH = 512
"""Readings that are packed, and unpacked, at a time."""
_DIGEST = b"diffharness.digest"


def sequence_hash(ids: Sequence[int] | np.ndarray) -> str:
    """Identity of a sequence: BLAKE2b (16 bytes, hex) of its token ids as little-endian int32."""
    return hashlib.blake2b(np.asarray(ids, dtype="<i4").tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Reading:
    """One sequence that a request made the model read."""

    task: str
    doc_id: int
    """Position of the document in the task, as lm-eval logs it."""
    index: int
    """Which request of the document: the choice, or 0."""
    repeat: int
    window: int
    """Which window of a rolling request, or 0."""
    kind: str
    """lm-eval's request type."""
    ids: tuple[int, ...]
    """What the model read; the last target is not part of it. Empty where a rolling text has no tokens."""
    start: int
    """First scored predictor position: the token at `start + i + 1` is `targets[i]`."""
    targets: tuple[int, ...]
    log_likelihood: float | None
    """In nats, as lm-eval used it; `None` for generated answers."""
    truncated: bool
    """Whether the context was cut from the left."""
    greedy: bool | None = None
    """Whether lm-eval found every target to be the most likely token; `None` for generated answers."""
    plain_log_likelihood: float | None = None
    """What plain lm-eval returned where its grouping got it wrong; `log_likelihood` is then the right value."""
    retokenised: bool = False
    """Whether the scored ids were made from text and not recorded."""

    @property
    def sequence(self) -> str:
        """The hash of `ids`."""
        return sequence_hash(self.ids)


class LedgerWriter:
    """Readings as they come, packed a few hundred at a time."""

    def __init__(self) -> None:
        self._packed: list[pa.RecordBatch] = []
        self._open: list[Reading] = []

    def add(self, reading: Reading) -> None:
        """Append a reading."""
        self._open.append(reading)
        if len(self._open) >= _BATCH:
            self._pack()

    def ledger(self) -> Ledger:
        """All that was added so far."""
        self._pack()
        return Ledger(table=pa.Table.from_batches(self._packed, schema=_SCHEMA))

    def _pack(self) -> None:
        self._packed += _packed(self._open).to_batches()
        self._open = []


class Ledger:
    """All readings of one model on one set of tasks.

    Args:
        readings: the rows.
        table: the rows as a table of the ledger's schema, in place of `readings`.
    """

    def __init__(self, readings: Iterable[Reading] = (), *, table: pa.Table | None = None) -> None:
        self._table: pa.Table = _packed(readings) if table is None else table

    @property
    def n_bytes(self) -> int:
        """What the rows take in memory."""
        return self._table.nbytes

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All rows at once; iterating over the ledger makes them one by one."""
        return tuple(self)

    def __iter__(self) -> Iterator[Reading]:
        return _unpacked(self._table)

    def __len__(self) -> int:
        return self._table.num_rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self._table.equals(other._table)

    def by_document(self, task: str) -> dict[int, list[Reading]]:
        """The task's readings, grouped by document and ordered by request, repeat and window.

        Requests that made the model read nothing (an empty rolling text) are left out.
        """
        grouped: dict[int, list[Reading]] = {}
        rows = (r for r in _unpacked(self._of(task)) if r.ids)
        for reading in sorted(rows, key=lambda r: (r.doc_id, r.index, r.repeat, r.window)):
            grouped.setdefault(reading.doc_id, []).append(reading)
        return grouped

    def tokens(self, task: str) -> set[int]:
        """All token ids that a task made the model read or scored it on."""
        rows = self._of(task)
        found: set[int] = set()
        for name in ("ids", "targets"):
            found.update(pc.unique(pc.list_flatten(rows[name])).to_pylist())
        return found

    def rescored_documents(self, task: str) -> list[int]:
        """Documents of which plain lm-eval's grouping of requests returned a wrong log-likelihood; ours is right."""
        return sorted({r.doc_id for r in self.rescored() if r.task == task})

    def rescored(self) -> Iterator[Reading]:
        """The readings of which plain lm-eval's grouping of requests returned a wrong log-likelihood."""
        return _unpacked(self._table.filter(pc.is_valid(self._table["plain_log_likelihood"])))

    def renumbered(self, numbers: Mapping[str, Sequence[int]]) -> Ledger:
        """The same readings with other document numbers.

        Args:
            numbers: by task, the number of the document that is called 0, 1, 2, … here; other tasks stay as they are.
        """
        changed = {task: n for task, n in numbers.items() if list(n) != list(range(len(n)))}
        if not changed:
            return self
        doc_ids = self._table["doc_id"].to_numpy().copy()
        for task, own in changed.items():
            chosen = pc.equal(self._table["task"], task).to_numpy()
            doc_ids[chosen] = np.asarray(own, dtype=np.int64)[doc_ids[chosen]]
        column = _SCHEMA.get_field_index("doc_id")
        return Ledger(table=self._table.set_column(column, _SCHEMA.field("doc_id"), pa.array(doc_ids)))

    def check_complete(self, expected: Iterable[tuple[str, int, int, int]]) -> None:
        """Raise unless exactly the expected (task, document, request, repeat) were recorded, each with all its windows.

        Raises:
            RunError: naming the first task and document that is short, or recorded more than once.
        """
        recorded: dict[tuple[str, int, int, int], list[int]] = defaultdict(list)
        keys = (self._table[name].to_pylist() for name in ("task", "doc_id", "index", "repeat", "window"))
        for *key, window in zip(*keys, strict=True):
            recorded[tuple(key)].append(window)
        wanted = Counter(expected)
        missing = [key for key, n in wanted.items() if len(recorded.get(key, ())) < n]
        if missing:
            raise RunError(
                f"the ledger is short of {len(missing)} requests: {_named(missing[0])} was answered without being "
                "recorded; was a response cache in use?"
            )
        doubled = [key for key, windows in recorded.items() if windows.count(0) > wanted[key]]
        if doubled:
            raise RunError(
                f"the ledger holds {len(doubled)} requests more often than they were asked: {_named(doubled[0])}; "
                "clear the ledger and record the evaluation again"
            )
        for key, windows in recorded.items():
            if sorted(windows) != sorted(wanted[key] * list(range(max(windows) + 1))):
                raise RunError(
                    f"the ledger holds windows {sorted(windows)} of {_named(key)}; record the evaluation again"
                )

    def save(self, path: Path) -> None:
        """Write as Parquet, with a checksum of the rows."""
        sequences = [sequence_hash(ids) for chunk in self._table["ids"].chunks for ids in _rows(chunk)]
        table = self._table.add_column(_SCHEMA.get_field_index("ids"), "sequence", pa.array(sequences, pa.string()))
        table = table.replace_schema_metadata({_DIGEST: table_digest(self._table)})
        pq.write_table(table, path, write_page_checksum=True)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read what `save` wrote.

        Raises:
            RunError: the file is absent, not a ledger, cut off or altered.
        """
        remedy = "record the evaluation again"
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            digest = (table.schema.metadata or {}).get(_DIGEST)
            table = table.select(_SCHEMA.names).replace_schema_metadata(None).cast(_SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(f"{path} can not be read as a ledger: {reason}; {remedy}") from error
        if digest is None or digest != table_digest(table):
            raise RunError(
                f"ledger {path} was altered: its rows do not have the checksum they were saved with; {remedy}"
            )
        return cls(table=table)

    def _of(self, task: str) -> pa.Table:
        return self._table.filter(pc.equal(self._table["task"], task))


def _packed(readings: Iterable[Reading]) -> pa.Table:
    rows = list(readings)
    return pa.table({name: [getattr(r, name) for r in rows] for name in _SCHEMA.names}, schema=_SCHEMA)


def _unpacked(table: pa.Table) -> Iterator[Reading]:
    """The readings; equal ids are one object, so that those who keep them keep 8 bytes a token."""
    shared: dict[int, int] = {}
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            row["ids"] = tuple(shared.setdefault(i, i) for i in row["ids"])
            row["targets"] = tuple(shared.setdefault(i, i) for i in row["targets"])
            yield Reading(**row)


def _rows(lists: Any) -> Iterator[np.ndarray]:
    """The rows of a list array."""
    values, ends = lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy())
    yield from np.split(values, ends[:-1]) if len(ends) else ()


def _named(key: tuple[str, int, int, int]) -> str:
    task, doc_id, index, repeat = key
    return f"task {task!r}, document {doc_id}, request {index}, repeat {repeat}"
