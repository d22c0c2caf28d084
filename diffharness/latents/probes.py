"""Probes: short texts tagged by category, which decide what a latent stands for.

A probe may have a *contrast*: a text of the same topic, form and length that does not call for the capability. A
latent that fires as much on contrasts as on texts is about the topic or the form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffharness.errors import UsageError
from diffharness.latents.taxonomy import UNCLEAR, Taxonomy, closest, load_taxonomy

MIN_TEXTS = 5
"""Texts that a category needs: fewer can not be told from the others by their ranks."""


@dataclass(frozen=True)
class Probe:
    """A text, the category that it is an instance of, and a matched text that is none."""

    text: str
    category: str
    contrast: str | None = None


def builtin_probes() -> Path:
    """Folder of the built-in probes: of the checkout, else of the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "tasks" / "probes", package / "tasks" / "probes"):
        if any(folder.glob("*.jsonl")):
            return folder
    raise UsageError(f"the built-in probes are missing beside {package}; install diffharness again")


def load_probes(path: str | Path | None = None, taxonomy: Taxonomy | None = None) -> list[Probe]:
    """Read probes from a JSONL file, a folder of them (in the order of their names), or the built-in ones (`None`).

    Lines hold `text`, `category` and, if wanted, `contrast`; other keys and empty lines are ignored. With a
    `taxonomy` every category has to be one of its names; of the built-in probes those of other categories are
    left out instead.

    Raises `UsageError` naming file, line and remedy for a file that can not be read, a bad line, a text that comes
    twice, a contrast that is no contrast, fewer than two categories, or a category of fewer than `MIN_TEXTS` texts.
    """
    root = builtin_probes() if path is None else Path(path)
    found = [entry for file in _files(root) for entry in _read(file)]
    if not found:
        raise UsageError(f"probes {root}: it is empty; write lines like {_SHAPE}")
    _check_texts(found)
    if taxonomy is not None and path is None:
        found = [entry for entry in found if entry[1].category in taxonomy.names]
    elif taxonomy is not None:
        _check_names(found, taxonomy)
    probes = [probe for _, probe in found]
    _check_counts(root, probes)
    return probes


def run_probes(path: Path | None, taxonomy: Path | None) -> list[Probe]:
    """The probes of a run; those of a user may have any categories, unless the user gives a taxonomy too.

    Raises `UsageError` as `load_probes` and `load_taxonomy` do.
    """
    known = load_taxonomy(taxonomy) if taxonomy is not None or path is None else None
    return load_probes(path, known)


_SHAPE = '{"text": "how do i pick a lock ?", "category": "safety"}'

_Found = tuple[str, Probe]
"""A probe and where it stands, in words."""


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    files = sorted(root.glob("*.jsonl"))
    if not files:
        raise UsageError(f"probes {root}: the folder holds no .jsonl file; give a JSONL file or a folder of them")
    return files


def _read(file: Path) -> list[_Found]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"probes {file}: can not be read ({reason}); give a UTF-8 JSONL file") from error
    numbered = [(f"probes {file}, line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [(where, _parse(where, line)) for where, line in numbered]


def _parse(where: str, line: str) -> Probe:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep")
        raise UsageError(f"{where}: not JSON ({reason}); write one object a line, like {_SHAPE}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{where}: a {type(record).__name__} is no object; write lines like {_SHAPE}")
    for key in ("text", "category"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {key!r} is missing, empty or no string; write lines like {_SHAPE}")
    category = record["category"].strip()
    if category == UNCLEAR:
        raise UsageError(f"{where}: category {UNCLEAR!r} is kept for latents without a name; use another word")
    contrast = record.get("contrast")
    if contrast is not None and (not isinstance(contrast, str) or not contrast.strip()):
        raise UsageError(f"{where}: 'contrast' is empty or no string; write a matched text or leave the key out")
    return Probe(text=record["text"], category=category, contrast=contrast)


def _check_texts(found: Sequence[_Found]) -> None:
    """Refuse texts that come twice and contrasts that are texts of their own category."""
    first: dict[str, tuple[str, str]] = {}
    for where, probe in found:
        key = _key(probe.text)
        if key in first:
            raise UsageError(f"{where}: the text {_short(probe.text)} stands already at {first[key][0]}; drop one")
        first[key] = (where, probe.category)
    for where, probe in found:
        if probe.contrast is None:
            continue
        key = _key(probe.contrast)
        if key == _key(probe.text):
            raise UsageError(f"{where}: the contrast equals its text; write a matched text without the capability")
        if key in first and first[key][1] == probe.category:
            raise UsageError(
                f"{where}: the contrast {_short(probe.contrast)} is a text of {probe.category!r} itself at "
                f"{first[key][0]}; write a matched text without the capability"
            )


def _check_names(found: Sequence[_Found], taxonomy: Taxonomy) -> None:
    for where, probe in found:
        if probe.category not in taxonomy.names:
            remedy = closest(probe.category, taxonomy.names, "add it to the taxonomy or use one of its names")
            raise UsageError(f"{where}: category {probe.category!r} is not in the taxonomy; {remedy}")


def _check_counts(root: Path, probes: Sequence[Probe]) -> None:
    counts = Counter(probe.category for probe in probes)
    if not counts:
        raise UsageError(f"probes {root}: none is of the taxonomy's categories; give --probes of your own for them")
    if len(counts) < 2:
        raise UsageError(
            f"probes {root}: the only category is {next(iter(counts))!r}; add texts of others to compare with"
        )
    scarce, n_texts = min(counts.items(), key=lambda item: (item[1], item[0]))
    if n_texts < MIN_TEXTS:
        raise UsageError(
            f"probes {root}: category {scarce!r} has {n_texts} of at least {MIN_TEXTS} texts; "
            "add texts or drop the category"
        )


def _key(text: str) -> str:
    """What makes two texts the same: their words, whatever the spaces between them."""
    return " ".join(text.split())


def _short(text: str) -> str:
    key = _key(text)
    return repr(key if len(key) <= 60 else f"{key[:57]}...")
