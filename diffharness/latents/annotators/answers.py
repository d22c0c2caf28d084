"""What a model answered, read leniently and checked strictly: nothing but a taxonomy's name and a short text comes out.

Models wrap what is asked for in thoughts, fences and politeness; those are stepped over. Whatever a text in the prompt
talked the model into, an answer that is no name of the taxonomy is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffharness.latents.annotators.evidence import clean
from diffharness.latents.taxonomy import UNCLEAR, Taxonomy

MOST_CHARACTERS = 20_000
"""A longer answer is not read."""

MOST_EXPLAINED = 300
"""Characters of an explanation that are kept."""

_THOUGHT = "</think>"


class AnswerError(Exception):
    """An answer that can not be used; its text says why, in words made here, for the model to read."""


@dataclass(frozen=True)
class Naming:
    """A category, or `unclear`, and the model's reason."""

    category: str
    explanation: str


def read_naming(answer: str, taxonomy: Taxonomy) -> Naming:
    """The category and explanation of an answer; other keys are ignored.

    Raises `AnswerError` where there is not exactly one object with `category`, the category is neither a name of the
    taxonomy nor `unclear` (capitals aside), or there is no explanation in words.
    """
    found: list[dict[str, Any]] = []
    for value in _values(answer):
        objects = value if isinstance(value, list) else [value]
        found += [o for o in objects if isinstance(o, dict) and "category" in o and o not in found]
    if not found:
        raise AnswerError('it holds no JSON object with the key "category" at the top')
    if len(found) > 1:
        raise AnswerError("it holds more than one JSON object")
    category, explanation = found[0]["category"], found[0].get("explanation")
    if not isinstance(category, str):
        raise AnswerError("the category is not a string")
    names = {name.casefold(): name for name in (*taxonomy.names, UNCLEAR)}
    name = names.get(category.strip().casefold())
    if name is None:
        raise AnswerError("the category is not one of the names")
    if not isinstance(explanation, str) or not shorten(explanation):
        raise AnswerError('there is no "explanation" in words')
    return Naming(name, shorten(explanation))


def read_detection(answer: str, n: int) -> tuple[bool, ...]:
    """The n yes-or-no's of an answer, which is one JSON list of 0 and 1.

    Raises `AnswerError` where there is not exactly one list of that length that holds nothing else.
    """
    lists: list[list[Any]] = []
    for value in _values(answer):
        inside = list(value.values()) if isinstance(value, dict) else [value]
        lists += [entry for entry in inside if isinstance(entry, list) and entry not in lists]
    if not lists:
        raise AnswerError("it holds no JSON list")
    if len(lists) > 1:
        raise AnswerError("it holds more than one JSON list")
    if not all(isinstance(value, int) and value in (0, 1) for value in lists[0]):
        raise AnswerError("the list holds something other than 0 and 1")
    if len(lists[0]) != n:
        raise AnswerError(f"the list has {len(lists[0])} numbers where there are {n} texts")
    return tuple(bool(value) for value in lists[0])


def shorten(text: str, most: int = MOST_EXPLAINED) -> str:
    """A text on one line, without control characters, of so many characters at most."""
    line = " ".join(clean(text[: 8 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _values(answer: str) -> Iterator[dict[str, Any] | list[Any]]:
    """The JSON objects and lists of an answer, none inside another.

    A `{` that opens no valid object spoils the answer: an object inside it may be one that the model only quotes.
    """
    if len(answer) > MOST_CHARACTERS:
        raise AnswerError(f"it is longer than {MOST_CHARACTERS} characters")
    text = answer.rpartition(_THOUGHT)[2]
    decoder = json.JSONDecoder(object_pairs_hook=_pairs)
    place = 0
    while place < len(text):
        if text[place] not in "{[":
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:
            if text[place] == "{":
                raise AnswerError("it is not valid JSON") from None
            place += 1
        except RecursionError:
            raise AnswerError("it is nested too deeply") from None
        except ValueError:  # a number of thousands of digits, which Python will not read
            raise AnswerError("it holds a number that is too long") from None
        else:
            yield value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise AnswerError("an object has one key twice")
    return dict(pairs)
