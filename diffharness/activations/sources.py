"""Where the texts of a corpus come from: documents of each kind of source in random order, never all in memory.

Places are counted from 1: lines of a file, rows of a table or split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from diffharness.activations.corpora import FORMS, CorpusSpec
from diffharness.activations.text_files import Document, JsonLines, NamedSource, TextFile, TextFolder
from diffharness.errors import RunError, UsageError

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from lm_eval.api.task import Task

SHUFFLED_DOCUMENTS = 4096
"""Documents of a stream held at a time, to draw from at random."""
PARQUET_ROWS = 16_384
"""Most rows of a Parquet file held at a time."""


class Source(Protocol):
    """Texts to draw from."""

    @property
    def name(self) -> str:
        """How the report calls it."""
        ...

    @property
    def weight(self) -> float:
        """Its share of the token budget, relative to the others'."""
        ...

    def check(self) -> int:
        """How many documents were found (2 may stand for more).

        Raises:
            UsageError: absent, empty or malformed.
        """
        ...

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Every document once, in random order."""
        ...


def open_sources(specs: Sequence[CorpusSpec], tasks: Mapping[str, Task] | None) -> tuple[list[Source], tuple[str, ...]]:
    """The sources of some corpora (one a task for `tasks`, which share its weight), and notes on tasks left out.

    Raises:
        UsageError: `tasks` is asked for and no task has a training split.
    """
    sources: list[Source] = []
    notes: list[str] = []
    for spec in specs:
        if spec.kind == "tasks":
            found, left_out = _task_sources(spec, tasks or {})
            sources.extend(found)
            notes.extend(left_out)
        else:
            kinds: dict[str, Callable[[CorpusSpec], Source]] = {
                "jsonl": JsonLines, "text": TextFile, "folder": TextFolder, "parquet": ParquetFile, "hub": HubDataset,
            }  # fmt: skip
            sources.append(kinds[spec.kind](spec))
    return sources, tuple(notes)


@dataclass(frozen=True)
class ParquetFile(NamedSource):
    """A Parquet file with a column `text`.

    Rows are drawn uniformly: the next few thousand of a random order are gathered in one pass over the row groups.
    """

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.check_file()
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"--corpus {self.path} is not a Parquet file ({error}); {FORMS}") from error
        schema = file.schema_arrow
        if self.spec.column not in schema.names:
            raise UsageError(
                f"--corpus {self.path} has no column {self.spec.column!r}, it has: {', '.join(schema.names)}; "
                "rename the one that holds the texts"
            )
        kind = schema.field(self.spec.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UsageError(f"--corpus {self.path}: column {self.spec.column!r} is of {kind}; give one of strings")
        return file

    def check(self) -> int:
        """Read the file's schema and number of rows."""
        with self._open() as file:
            n = file.metadata.num_rows
        if not n:
            raise self.empty()
        return n

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Rows in random order."""
        with self._open() as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            ends_G = np.cumsum(sizes)
            order_N = rng.permutation(int(ends_G[-1]) if sizes else 0)
            done, n_rows = 0, 256
            while done < len(order_N):
                rows = order_N[done : done + n_rows]
                texts = self._gather(file, ends_G, rows)
                for row in map(int, rows):
                    text = texts.pop(row)
                    if text is None:
                        raise UsageError(f"--corpus {self.path}, row {row + 1}: no {self.spec.column!r}; drop the row")
                    yield Document(text, f"{self.path.name}:{row + 1}")
                done, n_rows = done + n_rows, min(4 * n_rows, PARQUET_ROWS)

    def _gather(self, file: pq.ParquetFile, ends_G: np.ndarray, rows: np.ndarray) -> dict[int, str | None]:
        texts: dict[int, str | None] = {}
        group_of = np.searchsorted(ends_G, rows, side="right")
        for g in np.unique(group_of):
            own = np.sort(rows[group_of == g])
            first = int(ends_G[g - 1]) if g else 0
            column = file.read_row_group(int(g), columns=[self.spec.column]).column(0).take(own - first)
            texts.update(zip(map(int, own), column.to_pylist(), strict=True))
        return texts


@dataclass(frozen=True)
class HubDataset(NamedSource):
    """A Hugging Face dataset, streamed from its start through a buffer that is drawn from at random."""

    def check(self) -> int:
        """Read the first two rows."""
        n = len(list(islice(self._rows(UsageError), 2)))
        if not n:
            raise self.empty()
        return n

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Rows in the order of a shuffle buffer."""
        return _shuffled(self._rows(RunError), rng, SHUFFLED_DOCUMENTS)

    def _rows(self, failure: type[UsageError | RunError]) -> Iterator[Document]:
        import datasets

        spec, number = self.spec, 0
        try:
            for number, row in enumerate(
                datasets.load_dataset(spec.name, spec.config, split=spec.split, streaming=True), start=1
            ):
                yield self._document(row, number)
        except UsageError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            after = f" after row {number}" if number else ""
            raise failure(
                f"--corpus {self.name} is neither a file nor a dataset within reach{after}: {reason}"
                if failure is UsageError
                else f"--corpus {self.name} can not be read on{after}: {reason}"
            ) from error

    def _document(self, row: Mapping[str, Any], number: int) -> Document:
        text = row.get(self.spec.column)
        if not isinstance(text, str):
            raise UsageError(
                f"--corpus {self.name}, row {number}: no text in column {self.spec.column!r}; it has: "
                f"{', '.join(map(str, row))}; give hf:NAME:SPLIT:COLUMN"
            )
        return Document(text, f"hf:{self.spec.name}:{number}")


def _shuffled(rows: Iterator[Document], rng: np.random.Generator, size: int) -> Iterator[Document]:
    """Fill a buffer, then give out a random one of it for every row that comes."""
    buffer = list(islice(rows, size))
    for row in rows:
        i = int(rng.integers(len(buffer)))
        yield buffer[i]
        buffer[i] = row
    for i in rng.permutation(len(buffer)):
        yield buffer[i]


@dataclass(frozen=True)
class TaskSplit:
    """One task's training split."""

    task: str
    weight: float
    split: str
    rows: Sequence[Any]
    text_of: Callable[[Any], str]

    @property
    def name(self) -> str:
        """Task and split."""
        return f"{self.task}:{self.split}"

    def check(self) -> int:
        """Write out the first document."""
        self._document(0)
        return len(self.rows)

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Documents in random order."""
        for i in rng.permutation(len(self.rows)):
            yield self._document(int(i))

    def _document(self, i: int) -> Document:
        try:
            return Document(self.text_of(self.rows[i]), f"{self.name}:{i + 1}")
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"--corpus tasks: document {i + 1} of {self.name} can not be written out ({reason}); mend the task "
                "or leave it out"
            ) from error


def _task_sources(spec: CorpusSpec, tasks: Mapping[str, Task]) -> tuple[list[Source], list[str]]:
    from functools import partial

    from diffharness.evaluation.training_texts import training_documents, training_split, training_text

    found: list[tuple[str, Task, str, Sequence[Any]]] = []
    notes = []
    for name, task in tasks.items():
        split = training_split(task)
        rows = training_documents(name, task) if split is not None else ()
        if split is not None and len(rows):
            found.append((name, task, split, rows))
        else:
            notes.append(f"task {name!r} has no training split and adds nothing to the corpus")
    if not found:
        names = ", ".join(tasks) or "none given"
        raise UsageError(f"--corpus tasks: no task has a training split ({names}); {FORMS}")
    weight = spec.weight / len(found)
    return [TaskSplit(n, weight, split, rows, partial(training_text, task)) for n, task, split, rows in found], notes
