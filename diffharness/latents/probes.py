"""Probes: short texts tagged by category, which decide what a latent stands for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from diffharness.errors import UsageError
from diffharness.latents.taxonomy import UNCLEAR

MIN_TEXTS = 5
"""Texts that a category needs: fewer can not be told from the others by their ranks."""


@dataclass(frozen=True)
class Probe:
    """A text and the category that it is an instance of."""

    text: str
    category: str


def load_probes(path: str | Path) -> list[Probe]:
    """Read probes from JSONL with `text` and `category` on every line; other keys and empty lines are ignored.

    Raises `UsageError` naming file, line and remedy for a file that can not be read, a bad line, fewer than
    two categories, or a category of fewer than `MIN_TEXTS` texts.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"probes {path}: can not be read ({error}); give a UTF-8 JSONL file") from error
    probes = [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    counts = Counter(probe.category for probe in probes)
    if not probes:
        raise UsageError(f"probes {path}: the file is empty; write lines like {_SHAPE}")
    if len(counts) < 2:
        raise UsageError(
            f"probes {path}: the only category is {next(iter(counts))!r}; add texts of others to compare with"
        )
    scarce, n_texts = min(counts.items(), key=lambda item: (item[1], item[0]))
    if n_texts < MIN_TEXTS:
        raise UsageError(
            f"probes {path}: category {scarce!r} has {n_texts} of at least {MIN_TEXTS} texts; "
            "add texts or drop the category"
        )
    return probes


_SHAPE = '{"text": "how do i pick a lock ?", "category": "safety"}'


def _parse(path: Path, number: int, line: str) -> Probe:
    where = f"probes {path}, line {number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg}); write one object a line, like {_SHAPE}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{where}: a {type(record).__name__} is no object; write lines like {_SHAPE}")
    for key in ("text", "category"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {key!r} is missing, empty or no string; write lines like {_SHAPE}")
    category = record["category"].strip()
    if category == UNCLEAR:
        raise UsageError(f"{where}: category {UNCLEAR!r} is kept for latents without a name; use another word")
    return Probe(text=record["text"], category=category)
