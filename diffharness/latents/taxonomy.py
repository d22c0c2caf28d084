"""The categories that latents are sorted into: names, definitions, examples, order.

The default stands in `taxonomy.yaml` beside this module; a user's own file has the same keys. Probes may use names
that no taxonomy defines: they come after those that it does.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffharness.errors import UsageError

UNCLEAR = "unclear"
"""The category of a latent that the evidence does not name."""

_UNCLEAR_DEFINITION = "The evidence names no category, or more than one."


@dataclass(frozen=True)
class Category:
    """One entry of a taxonomy."""

    name: str
    definition: str
    """What belongs, and what near it does not."""
    major: str | None = None
    """The group that it is part of."""
    positive: tuple[str, ...] = ()
    """Texts that belong."""
    negative: tuple[str, ...] = ()
    """Texts that look alike and do not belong."""


@dataclass(frozen=True)
class Taxonomy:
    """Categories in the order in which they are shown."""

    categories: tuple[Category, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all categories, `unclear` not among them."""
        return tuple(category.name for category in self.categories)

    def define(self, name: str) -> str | None:
        """What a category means, or `None` where the taxonomy does not know the name."""
        if name == UNCLEAR:
            return _UNCLEAR_DEFINITION
        return next((category.definition for category in self.categories if category.name == name), None)

    def major(self, name: str) -> str | None:
        """The group of a category; `None` where it has none, or the taxonomy does not know the name."""
        return next((category.major for category in self.categories if category.name == name), None)

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Distinct names: those of the taxonomy in its order, others by alphabet, `unclear` last."""
        known = {name: place for place, name in enumerate(self.names)}
        return tuple(sorted(set(names), key=lambda name: (name == UNCLEAR, known.get(name, len(known)), name)))


def load_taxonomy(path: str | Path | None = None) -> Taxonomy:
    """Read a taxonomy from YAML; `None` means the default, which is read once.

    The file holds one list, `categories`, of entries with `name` and `definition`, and if wanted `major` (a word)
    and `positive` and `negative` (lists of short texts).

    Raises `UsageError` naming file, entry and remedy: a file that can not be read or is no YAML, no list, a
    missing name or definition, a name that comes twice or is `unclear`, an unknown key.
    """
    return _default() if path is None else _read(Path(path))


def define(name: str, taxonomy: Taxonomy | None = None) -> str | None:
    """What a category means in a taxonomy (default: the packaged one); see `Taxonomy.define`."""
    return (taxonomy or _default()).define(name)


def in_order(names: Iterable[str], taxonomy: Taxonomy | None = None) -> tuple[str, ...]:
    """Distinct names in a taxonomy's order (default: the packaged one); see `Taxonomy.in_order`."""
    return (taxonomy or _default()).in_order(names)


def closest(name: str, known: Collection[str], otherwise: str) -> str:
    """The remedy for a name that is not known: the known one that it resembles, or what to do else."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


@lru_cache(maxsize=1)
def _default() -> Taxonomy:
    return _read(Path(__file__).with_name("taxonomy.yaml"))


_KEYS = tuple(field.name for field in fields(Category))
_SHAPE = "write 'categories:' and under it a list of entries with 'name' and 'definition'"


def _read(path: Path) -> Taxonomy:
    where = f"taxonomy {path}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{where}: can not be read ({reason}); give a UTF-8 YAML file") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML ({' '.join(str(error).split())}); {_SHAPE}") from error
    entries = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(entries, list) or not entries:
        raise UsageError(f"{where}: it holds no list of categories; {_SHAPE}")
    for key in content:
        if key != "categories":
            remedy = closest(str(key), ("categories",), "keep to the one key 'categories'")
            raise UsageError(f"{where}: unknown key {key!r}; {remedy}")
    categories: list[Category] = []
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        category = _category(f"{where}, entry {number}", entry)
        first = seen.setdefault(category.name.casefold(), number)
        if first != number:
            raise UsageError(
                f"{where}, entry {number}: the name {category.name!r} is taken by entry {first}; "
                "rename one or merge the two"
            )
        categories.append(category)
    return Taxonomy(tuple(categories))


def _category(where: str, entry: Any) -> Category:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: a {type(entry).__name__} is no entry; {_SHAPE}")
    name = _words(where, entry, "name")
    where = f"{where} ({name})"
    if name.casefold() == UNCLEAR:
        raise UsageError(f"{where}: {UNCLEAR!r} is kept for latents without a name; use another word")
    for key in entry:
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key!r}; {closest(str(key), _KEYS, 'known: ' + ', '.join(_KEYS))}")
    return Category(
        name=name,
        definition=_words(where, entry, "definition"),
        major=None if entry.get("major") is None else _words(where, entry, "major"),
        positive=_texts(where, entry, "positive"),
        negative=_texts(where, entry, "negative"),
    )


def _words(where: str, entry: dict[Any, Any], key: str) -> str:
    """The text under a key, with single spaces."""
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {key!r} is missing, empty or no text; write '{key}: ...', in quotes if in doubt")
    return " ".join(value.split())


def _texts(where: str, entry: dict[Any, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise UsageError(f"{where}: {key!r} is no list of texts; write one a line after '- ', in quotes if in doubt")
    return tuple(text.strip() for text in value)
