"""What an annotator is shown of a latent: texts with its activation on every token, cleaned and cut for showing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

MOST_CHARACTERS = 600
"""Of a text that is shown, around its strongest token."""

STRONGEST = 10
"""Strengths are whole numbers from 1 to this."""

_LONGEST_TOKEN = 80
_JOINERS = "\u200c\u200d"
_T = TypeVar("_T")


@dataclass(frozen=True)
class ShownText:
    """A text, or the part of one around the latent's peak."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    """Activation of the latent on each token; 0 where it is silent."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.values):
            raise ValueError(f"{len(self.tokens)} tokens with {len(self.values)} values")

    @property
    def peak(self) -> float:
        """The strongest activation; 0 where the latent is silent or the text is empty."""
        return max((value for value in self.values if value > 0), default=0.0)


@dataclass(frozen=True)
class LatentEvidence:
    """What is known of a latent without saying whose it is."""

    index: int
    quantiles: tuple[ShownText, ...]
    """Texts on which it fires, from several quantiles of its activation, the strongest first."""
    contrasts: tuple[ShownText, ...]
    """Texts on which it does not fire."""
    heldout_active: tuple[ShownText, ...] = ()
    """Texts on which it fires that are not among those shown; the label is tried on them."""
    heldout_silent: tuple[ShownText, ...] = ()


def clean(text: str) -> str:
    """A text without what shows nothing, but may steer a reader or a terminal.

    Control characters but line ends and tabs go, and so do invisible format characters (direction marks, tags);
    joiners, which scripts need, stay. Halves of surrogate pairs become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return "" if category in ("Cc", "Cf") else character


def prepare(text: ShownText, most_characters: int = MOST_CHARACTERS) -> ShownText:
    """The text cleaned token by token, and cut to the part around its strongest token."""
    tokens = [_short(clean(token[: 4 * _LONGEST_TOKEN])) for token in text.tokens]
    if not tokens:
        return text
    values = [value if value > 0 else 0.0 for value in text.values]  # NaN is silence too
    first, last = _window([len(token) for token in tokens], values.index(max(values)), most_characters)
    return ShownText(tuple(tokens[first:last]), tuple(values[first:last]))


def _short(token: str) -> str:
    return token if len(token) <= _LONGEST_TOKEN else f"{token[: _LONGEST_TOKEN - 1]}…"


def _window(lengths: Sequence[int], peak: int, most: int) -> tuple[int, int]:
    """Bounds of the tokens around the peak that fit, grown to both sides in turn."""
    first, last, room = peak, peak + 1, most - lengths[peak]
    while True:
        grown = False
        if first > 0 and lengths[first - 1] <= room:
            first -= 1
            room -= lengths[first]
            grown = True
        if last < len(lengths) and lengths[last] <= room:
            room -= lengths[last]
            last += 1
            grown = True
        if not grown:
            return first, last


def strength(value: float, strongest: float) -> int:
    """An activation as a whole number: 0 for silence, then 1 to `STRONGEST` in equal steps up to the strongest."""
    if not value > 0 or not strongest > 0:
        return 0
    return min(STRONGEST, max(1, math.ceil(STRONGEST * value / strongest)))


def evenly(items: Sequence[_T], most: int) -> tuple[_T, ...]:
    """At most so many of the items, first and last among them, evenly spread."""
    if len(items) <= most:
        return tuple(items)
    if most == 1:
        return (items[0],)
    return tuple(items[round(place * (len(items) - 1) / (most - 1))] for place in range(most))
