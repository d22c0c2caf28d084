"""What a corpus is called: `--corpus` parsed, and checked before anything long starts.

    stories.jsonl                  JSONL with a `text` in every line
    book.txt                       texts separated by blank lines
    books/                         a folder: every .txt file in it is one text
    shard.parquet                  Parquet with a column `text`
    hf:ORG/NAME[/CONFIG][:SPLIT[:COLUMN]]    a Hugging Face dataset, streamed (split `train`, column `text`);
                                   `hf:` may be left out where no such file exists
    tasks                          the training splits of the run's own tasks

Any of them takes a weight: `stories.jsonl@0.7`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffharness.errors import UsageError

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Kind = Literal["jsonl", "text", "folder", "parquet", "hub", "tasks"]

FORMS = "give a JSONL file with a `text` in every line, a .txt or .parquet file, hf:NAME or `tasks`"
_KINDS: dict[str, Kind] = {".txt": "text", ".parquet": "parquet"}
_DATA_SUFFIXES = (".jsonl", ".json", ".txt", ".parquet", ".csv", ".gz")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class CorpusSpec:
    """One corpus as the user named it."""

    kind: Kind
    name: str
    """A path, a dataset's name, or `tasks`."""
    split: str = "train"
    """Of a Hugging Face dataset."""
    column: str = "text"
    weight: float = 1.0
    """Its share of the token budget, relative to the others'."""
    config: str | None = None
    """Of a Hugging Face dataset."""

    @property
    def path(self) -> Path | None:
        """The file or folder that is read, where it is one."""
        return Path(self.name) if self.kind not in ("hub", "tasks") else None

    def __str__(self) -> str:
        """The corpus without its weight."""
        if self.kind != "hub":
            return self.name
        name = f"hf:{self.name}/{self.config}" if self.config else f"hf:{self.name}"
        parts = [name, *((self.split, self.column) if self.column != "text" else (self.split,))]
        return ":".join(parts if parts[1:] != ["train"] else parts[:1])


def parse_corpus(spec: str) -> CorpusSpec:
    """What a `--corpus` value means; files are not opened.

    Raises:
        UsageError: it can not mean anything.
    """
    name, weight = _split_weight(spec)
    if not name:
        raise UsageError(f"--corpus {spec!r} names nothing; {FORMS}")
    if name == "tasks":
        return CorpusSpec("tasks", name, weight=weight)
    path = Path(name)
    if path.is_dir():
        return CorpusSpec("folder", name, weight=weight)
    is_hub = name.startswith("hf:") or (
        not path.exists()
        and _HUB_NAME.fullmatch(name.split(":")[0]) is not None
        and Path(name.split(":")[0]).suffix.lower() not in _DATA_SUFFIXES
    )
    if is_hub:
        return _hub(spec, name.removeprefix("hf:"), weight)
    return CorpusSpec(_KINDS.get(path.suffix.lower(), "jsonl"), name, weight=weight)


def _split_weight(spec: str) -> tuple[str, float]:
    """The name and the weight; the whole is the name where a file is called so or no number follows the last @."""
    name, at, tail = spec.rpartition("@")
    try:
        weight = float(tail) if at and not Path(spec).exists() else None
    except ValueError:
        weight = None
    if weight is None:
        return spec, 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"--corpus {spec!r} has the weight {tail}; give a positive number after the @")
    return name, weight


def _hub(spec: str, name: str, weight: float) -> CorpusSpec:
    name, *rest = name.split(":")
    config = None
    if not name.startswith((".", "/", "~")):
        parts = name.split("/")
        if len(parts) == 3:
            name, config = "/".join(parts[:2]), parts[2]
        if len(parts) > 3 or not all(parts):
            raise UsageError(f"--corpus {spec!r} is no dataset's name; give hf:ORG/NAME[/CONFIG][:SPLIT[:COLUMN]]")
    if len(rest) > 2 or not all(rest):
        raise UsageError(f"--corpus {spec!r} has parts that are not understood; give hf:NAME[:SPLIT[:COLUMN]]")
    split, column = (*rest, *("train", "text")[len(rest) :])
    return CorpusSpec("hub", name, split, column, weight, config)


def check_corpus(specs: Sequence[CorpusSpec], tasks: Mapping[str, Task] | None = None) -> tuple[str, ...]:
    """Find corpora that are absent, empty or malformed, before long work.

    Text files are read to the end up to some 64 MB; the rest is checked when it is drawn.

    Args:
        specs: the corpora.
        tasks: the run's tasks by name, where `tasks` is among the corpora.

    Returns:
        Notes on tasks that have no training split.

    Raises:
        UsageError: naming the corpus, and the file's line where there is one.
    """
    from diffharness.activations.sources import open_sources

    twice = next((s for i, s in enumerate(specs) if str(s) in map(str, specs[:i])), None)
    if twice is not None:
        raise UsageError(f"--corpus {twice} is given twice; give it once, with a weight such as {twice}@2")
    sources, notes = open_sources(specs, tasks)
    if specs and sum(source.check() for source in sources) < 2:
        raise UsageError(f"--corpus {specs[0]} holds one text; give at least two, to hold one out")
    return notes
