"""The ledger: for every request of a task, the exact tokens that the model read and the span it was scored on.

A row is a *reading*: one sequence, the predictor positions `start … start + len(targets) − 1` in it, and the
tokens predicted there. A request has one reading, or one a window (`loglikelihood_rolling`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffharness.errors import RunError

_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("index", pa.int32()),
        ("repeat", pa.int32()),
        ("window", pa.int32()),
        ("kind", pa.string()),
        ("sequence", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("start", pa.int32()),
        ("targets", pa.list_(pa.int32())),
        ("log_likelihood", pa.float64()),
        ("truncated", pa.bool_()),
    ]
)


def sequence_hash(ids: Sequence[int]) -> str:
    """Identity of a sequence: BLAKE2b (16 bytes, hex) of its token ids as little-endian int32."""
    return hashlib.blake2b(np.asarray(ids, dtype="<i4").tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Reading:
    """One sequence that a request made the model read."""

    task: str
    doc_id: int
    """Position of the document in the task, as lm-eval numbers it."""
    index: int
    """Which request of the document: the choice, or 0."""
    repeat: int
    window: int
    """Which window of a rolling request, or 0."""
    kind: str
    """lm-eval's request type."""
    ids: tuple[int, ...]
    """What the model read; the last target is not part of it."""
    start: int
    """First scored predictor position: the token at `start + i + 1` is `targets[i]`."""
    targets: tuple[int, ...]
    log_likelihood: float | None
    """In nats, as lm-eval used it; `None` for generated answers."""
    truncated: bool
    """Whether the context was cut from the left."""

    @property
    def sequence(self) -> str:
        """The hash of `ids`."""
        return sequence_hash(self.ids)


@dataclass(frozen=True)
class Ledger:
    """All readings of one model on one set of tasks."""

    readings: tuple[Reading, ...]

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    def by_document(self, task: str) -> dict[int, list[Reading]]:
        """The task's readings, grouped by document and ordered by request, repeat and window."""
        grouped: dict[int, list[Reading]] = {}
        for reading in sorted(
            (r for r in self.readings if r.task == task),
            key=lambda r: (r.doc_id, r.index, r.repeat, r.window),
        ):
            grouped.setdefault(reading.doc_id, []).append(reading)
        return grouped

    def tokens(self, task: str) -> set[int]:
        """All token ids that a task made the model read or scored it on."""
        return {i for r in self.readings if r.task == task for i in (*r.ids, *r.targets)}

    def check_complete(self, expected: Iterable[tuple[str, int, int, int]]) -> None:
        """Raise unless every expected (task, document, request, repeat) was recorded.

        Raises:
            RunError: naming the first task and document that is short.
        """
        recorded = {(r.task, r.doc_id, r.index, r.repeat) for r in self.readings}
        missing = [key for key in expected if key not in recorded]
        if missing:
            task, doc_id, index, repeat = missing[0]
            raise RunError(
                f"the ledger is short of {len(missing)} requests: task {task!r}, document {doc_id}, request {index}, "
                f"repeat {repeat} was answered without being recorded; was a response cache in use?"
            )

    def save(self, path: Path) -> None:
        """Write as Parquet."""
        columns = {
            "task": [r.task for r in self.readings],
            "doc_id": [r.doc_id for r in self.readings],
            "index": [r.index for r in self.readings],
            "repeat": [r.repeat for r in self.readings],
            "window": [r.window for r in self.readings],
            "kind": [r.kind for r in self.readings],
            "sequence": [r.sequence for r in self.readings],
            "ids": [list(r.ids) for r in self.readings],
            "start": [r.start for r in self.readings],
            "targets": [list(r.targets) for r in self.readings],
            "log_likelihood": [r.log_likelihood for r in self.readings],
            "truncated": [r.truncated for r in self.readings],
        }
        pq.write_table(pa.table(columns, schema=_SCHEMA), path)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read what `save` wrote.

        Raises:
            RunError: the file is absent or not a ledger.
        """
        try:
            table = pq.read_table(path, schema=_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{path} can not be read as a ledger: {error}; record the evaluation again") from error
        return cls(
            tuple(
                Reading(
                    task=row["task"],
                    doc_id=row["doc_id"],
                    index=row["index"],
                    repeat=row["repeat"],
                    window=row["window"],
                    kind=row["kind"],
                    ids=tuple(row["ids"]),
                    start=row["start"],
                    targets=tuple(row["targets"]),
                    log_likelihood=row["log_likelihood"],
                    truncated=row["truncated"],
                )
                for row in table.to_pylist()
            )
        )
