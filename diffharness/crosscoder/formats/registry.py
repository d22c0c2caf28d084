"""The formats of others, each behind one small interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from diffharness.crosscoder.config import CodeNorm
from diffharness.crosscoder.formats.files import Files
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError

CODE_NORMS: dict[str, CodeNorm] = {
    "sum": "sum",
    "concatenated": "concatenated",
    "mixed": "mixed",
    "none": "none",
    "per_model": "per_model",
    "crosscoder": "sum",
    "sae": "concatenated",
    "decoupled": "per_model",
}
"""Ours, and what `dictionary_learning` calls them."""


@dataclass(frozen=True)
class Options:
    """What the user says of a file that does not say it itself."""

    code_norm: CodeNorm | None = None
    code_norm_weights: tuple[float, float] | None = None
    """Of the concatenated norm and of the sum, for `mixed`."""
    sides: tuple[str, ...] | None = None
    """Names of the models, or `side@layer` of every column."""

    @classmethod
    def make(cls, code_norm: str | None, sides: tuple[str, ...] | None) -> Options:
        """Read `sum | concatenated | mixed[:A,B] | none | per_model`, or the field's names of them.

        Raises:
            UsageError: unknown.
        """
        if code_norm is None:
            return cls(sides=sides)
        name, _, weights = code_norm.strip().lower().partition(":")
        try:
            pair = tuple(float(w) for w in weights.split(",")) if weights else None
        except ValueError:
            pair = ()
        if name not in CODE_NORMS or (pair is not None and (len(pair) != 2 or name != "mixed")):
            raise UsageError(
                f"--code-norm {code_norm} is not known; use sum, concatenated, mixed:1.0,0.1 (weights of the "
                "concatenated norm and of the sum), none or per_model"
            )
        return cls(CODE_NORMS[name], None if pair is None else (pair[0], pair[1]), sides)

    def check_code_norm(self, files: Files, said: CodeNorm) -> None:
        """Refuse a code norm that contradicts the file.

        Raises:
            UsageError: naming both.
        """
        if self.code_norm not in (None, said):
            raise UsageError(f"{files.weights} says code norm {said}, not {self.code_norm}; leave --code-norm out")


class Format(Protocol):
    """How one project writes its crosscoders."""

    @property
    def name(self) -> str:
        """What the project or format is called."""
        ...

    def recognises(self, files: Files) -> bool:
        """Whether the files are of this format, from the names of their tensors and configurations."""
        ...

    def read(self, files: Files, options: Options) -> Crosscoder:
        """The crosscoder that the files hold.

        Raises:
            UsageError: something is missing, broken, ambiguous, or can not be held.
        """
        ...


class Registry:
    """Formats by name."""

    def __init__(self, *formats: Format) -> None:
        self._formats: dict[str, Format] = {}
        for format in formats:
            self.register(format)

    def register(self, format: Format) -> None:
        """Add one.

        Raises:
            ValueError: there is one of this name.
        """
        if format.name in self._formats:
            raise ValueError(f"a format of the name {format.name!r} is registered already")
        self._formats[format.name] = format

    def __iter__(self) -> Iterator[Format]:
        return iter(self._formats.values())

    def find(self, files: Files) -> Format:
        """The format of some files.

        Raises:
            UsageError: none knows them, or more than one does.
        """
        found = [format for format in self if format.recognises(files)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(format.name for format in found)
            raise UsageError(f"{files.weights}: could be of several formats ({names}); put its configuration beside it")
        known = ", ".join(["diffharness", *(format.name for format in self)])
        some = ", ".join(sorted(files.tensors)[:6]) or "none"
        raise UsageError(
            f"{files.weights}: a crosscoder of no known format (its tensors: {some}); known are {known}; "
            "give one of those, with its configuration beside it"
        )
