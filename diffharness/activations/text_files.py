"""Texts in local files: JSONL, blank-line separated text, folders of text files.

A file is passed over once to find where its texts start; then those that are drawn are read from their places.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffharness.activations.corpora import FORMS, CorpusSpec
from diffharness.errors import UsageError

CHECKED_BYTES = 64_000_000
"""How much of a file is parsed before long work starts."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Document:
    """One text, and where it stands."""

    text: str
    source: str


@dataclass(frozen=True)
class NamedSource:
    """A source that one `--corpus` names."""

    spec: CorpusSpec

    @property
    def name(self) -> str:
        """As the user wrote it, without the weight."""
        return str(self.spec)

    @property
    def weight(self) -> float:
        """Its share of the token budget, relative to the others'."""
        return self.spec.weight

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.spec.name)

    def check_file(self) -> None:
        """Raise `UsageError` where there is no such file."""
        if not self.path.is_file():
            raise UsageError(f"--corpus {self.path} is not a file; {FORMS}")

    def empty(self) -> UsageError:
        """What to raise where there is no text."""
        return UsageError(f"--corpus {self.name} is empty; {FORMS}")


@dataclass(frozen=True)
class JsonLines(NamedSource):
    """A JSONL file: one pass over it finds where its lines start, a second reads those that are drawn."""

    def check(self) -> int:
        """Parse the lines of the file's first part."""
        self.check_file()
        n, n_bytes = 0, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                n_bytes += len(line)
                if line.strip():
                    self.parse(line, number)
                    n += 1
                if n_bytes > CHECKED_BYTES:
                    break
        if not n:
            raise self.empty()
        return n

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Lines in random order."""
        self.check_file()
        with self.path.open("rb") as file:
            starts_N2 = np.fromiter(_line_starts(file), dtype=np.dtype((np.int64, 2)))
            for i in rng.permutation(len(starts_N2)):
                start, number = map(int, starts_N2[i])
                file.seek(start)
                yield Document(self.parse(file.readline(), number), f"{self.path.name}:{number}")

    def parse(self, line: bytes, number: int) -> str:
        """The `text` of a line; raises `UsageError` with its number."""
        try:
            text = json.loads(line.removeprefix(_BYTE_ORDER_MARK).decode())["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise UsageError(f"--corpus {self.path}, line {number}: not a JSON object with a `text`")
        return text


def _line_starts(file: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Byte offset and number of every line that is not blank."""
    offset = 0
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield offset, number
        offset += len(line)


@dataclass(frozen=True)
class TextFile(NamedSource):
    """A .txt file: texts separated by blank lines."""

    def check(self) -> int:
        """Decode the file's first part."""
        self.check_file()
        with self.path.open("rb") as file:
            n = sum(1 for _ in _blocks(self._first_part(file)))
        if not n:
            raise self.empty()
        return n

    def _first_part(self, file: Iterable[bytes]) -> Iterator[bytes]:
        n_bytes = 0
        for number, line in enumerate(file, start=1):
            _decode(line, f"{self.path}, line {number}")
            yield line
            n_bytes += len(line)
            if n_bytes > CHECKED_BYTES:
                return

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Blocks in random order, each without the line break at its end."""
        self.check_file()
        with self.path.open("rb") as file:
            blocks_N3 = np.fromiter(_blocks(file), dtype=np.dtype((np.int64, 3)))
            for i in rng.permutation(len(blocks_N3)):
                start, length, number = map(int, blocks_N3[i])
                file.seek(start)
                text = _decode(file.read(length), f"{self.path}, line {number}")
                yield Document(text.rstrip("\r\n"), f"{self.path.name}:{number}")


def _blocks(file: Iterable[bytes]) -> Iterator[tuple[int, int, int]]:
    """Byte offset, bytes and first line's number of every run of lines that are not blank."""
    offset, block = 0, None
    for number, line in enumerate(file, start=1):
        if not line.strip():
            if block is not None:
                yield block[0], offset - block[0], block[1]
            block = None
        elif block is None:
            block = offset, number
        offset += len(line)
    if block is not None:
        yield block[0], offset - block[0], block[1]


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"--corpus {where}: not UTF-8; save the file as UTF-8") from error


@dataclass(frozen=True)
class TextFolder(NamedSource):
    """A folder: every .txt file in it, at any depth, is one text."""

    @property
    def files(self) -> list[Path]:
        """In order of their names."""
        if not self.path.is_dir():
            raise UsageError(f"--corpus {self.path} is not a folder; {FORMS}")
        files = sorted(f for f in self.path.rglob("*.txt") if f.is_file() and f.stat().st_size)
        if not files:
            raise UsageError(f"--corpus {self.path} holds no .txt files; {FORMS}")
        return files

    def check(self) -> int:
        """Decode the first files."""
        n_bytes, files = 0, self.files
        for file in files:
            n_bytes += file.stat().st_size
            _decode(file.read_bytes(), str(file))
            if n_bytes > CHECKED_BYTES:
                break
        return len(files)

    def documents(self, rng: np.random.Generator) -> Iterator[Document]:
        """Files in random order."""
        files = self.files
        for i in rng.permutation(len(files)):
            name = files[i].relative_to(self.path.parent)
            yield Document(_decode(files[i].read_bytes(), str(files[i])), f"{name}:1")
