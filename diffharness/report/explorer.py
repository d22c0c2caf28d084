"""The latent explorer's data: cards written once, by the template, and stored as trees that the page's script builds.

A card that stands in the page is the template's HTML; every other is the same HTML as nested lists, so that the two can
not differ. Numbers go before texts and strong latents before weak ones where the page has no room for all.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from diffharness.report import text
from diffharness.report.cards import FULL_CARDS, MOST_TASKS, task_rows
from diffharness.report.numbers import count
from diffharness.report.schema import Latent

STATIC_CARDS = 6
"""Cards that stand in the page itself, for readers without script and for print."""
_ATTRIBUTES = ("id", "title", "href", "scope", "colspan", "dir", "aria-label", "tabindex")
_LEFT_TO_SCRIPT = "term"
"""Links with this class get their title from the page's own list of words."""
_BREAK = re.compile(r"\s*\n\s*")
_LONGEST_TEXT = 200
_SMALLEST = 5e-5
"""Contributions below it are not copied: they would read as 0.000."""
_NOT_IN_XML = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}

Detail = Literal["all", "fewer texts", "numbers", "line"]
"""How much a card shows."""
Draw = Callable[[Latent, Detail], str]
"""A latent's card as HTML."""


@dataclass(frozen=True)
class Explorer:
    """What the page embeds of the latents, and how much of each."""

    details: Mapping[int, Detail]
    """By latent, the strongest first."""
    data: Markup
    """JSON: the latents in their order, and the names of the tasks that they point to."""
    tasks: tuple[str, ...]
    with_texts: frozenset[int]
    """Latents of which texts are known."""

    def left_out(self) -> str | None:
        """What the page has no room for, and where it is; none where it has all."""
        n_lines = sum(detail == "line" for detail in self.details.values())
        n_textless = sum(self.details[index] in ("numbers", "line") for index in self.with_texts)
        parts = [f"the texts of {count(n_textless)}"] if n_textless else []
        parts += [f"all but one line of {count(n_lines)}"] if n_lines else []
        if not parts:
            return None
        said = " and ".join(parts)
        return (
            f"To keep this page small, {said} of the {count(len(self.details))} latents are left out, the weakest "
            "first: report.json has everything, latents.parquet all numbers."
        )


def explore(latents: tuple[Latent, ...], draw: Draw, room: int) -> Explorer:
    """The data of the latents in at most `room` bytes, as far as one line a latent allows.

    Texts of the weakest latents are left out first, then their numbers; every latent keeps its line.
    """
    names = task_names(latents)
    places = {name: place for place, name in enumerate(names)}
    fixed, free = latents[:STATIC_CARDS], latents[STATIC_CARDS:]
    details: dict[int, Detail] = {latent.index: "all" for latent in fixed}
    entries = {latent.index: encode(_facts(latent, places) | {"r": record(latent)}) for latent in fixed}
    for latent in free:
        details[latent.index] = "line"
        entries[latent.index] = _entry(latent, "line", draw, places)
    left = room - sum(len(entry.encode()) + 1 for entry in entries.values())

    def grow(wanted: tuple[Latent, ...], detail: Detail) -> None:
        nonlocal left
        for latent in wanted:
            entry = _entry(latent, detail, draw, places)
            more = len(entry.encode()) - len(entries[latent.index].encode())
            if more > left:
                return
            entries[latent.index], details[latent.index] = entry, detail
            left -= more

    strong = max(0, FULL_CARDS - STATIC_CARDS)
    grow(free[:strong], "all")
    grow(tuple(latent for latent in free if details[latent.index] == "line"), "numbers")
    grow(tuple(latent for latent in free if details[latent.index] == "numbers"), "fewer texts")
    return Explorer(
        details,
        Markup(f'{{"latents":[{",".join(entries.values())}]}}'),
        names,
        frozenset(latent.index for latent in latents if latent.examples),
    )


def task_names(latents: tuple[Latent, ...]) -> tuple[str, ...]:
    """The tasks of the latents' cards."""
    return tuple(dict.fromkeys(row.task for latent in latents for row in task_rows(latent)[:MOST_TASKS]))


def record(latent: Latent) -> dict[str, Any]:
    """The latent's numbers by the names of `report.json`, to copy: what is absent and its texts are left out."""
    words: Any = {"examples": True, "lens": True, "status_reason": True, "evidence": {"reason": True}}
    plain = latent.model_dump(mode="json", exclude=words, exclude_defaults=True, exclude_none=True)
    for name in ("contributions", "read"):
        plain[name] = {task: value for task, value in plain.get(name, {}).items() if abs(value) >= _SMALLEST}
    return _rounded(plain)


def tree(html: str) -> list[Any]:
    """HTML of our own making as nested lists: `[tag.class…, {attribute: value}?, child…]`, a child is a list or a text.

    Raises ValueError for HTML that is not also XML, or that holds an attribute which the script would not set.
    """
    try:
        return _node(ET.fromstring(html.translate(_NOT_IN_XML)))
    except ET.ParseError as error:
        raise ValueError(f"the card is not well formed: {error}") from None


def encode(value: Any) -> str:
    """JSON for a `<script>` element: nothing in it can end the element or open a comment."""
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        said = said.replace(character, f"\\u{ord(character):04x}")
    return said


def _entry(latent: Latent, detail: Detail, draw: Draw, places: Mapping[str, int]) -> str:
    facts = _facts(latent, places)
    if detail != "line":
        facts["r"] = record(latent)
    return encode(facts | {"d": [part for part in tree(draw(latent, detail))[1:] if not isinstance(part, dict)]})


def _facts(latent: Latent, places: Mapping[str, int]) -> dict[str, Any]:
    """What the explorer filters by: index, category, status, and the tasks of the card with their contribution."""
    tasks = [[places[row.task], _rounded(row.contribution or 0.0)] for row in task_rows(latent)[:MOST_TASKS]]
    return {"i": latent.index, "c": text.brief(latent.category, 60), "s": latent.status, "t": tasks}


def _node(element: ET.Element) -> list[Any]:
    classes = element.get("class", "").split()
    given = {name: value for name, value in element.attrib.items() if name not in ("class", "open")}
    if _LEFT_TO_SCRIPT in classes:
        given.pop("title", None)
    unknown = given.keys() - set(_ATTRIBUTES)
    if unknown:
        raise ValueError(f"the script does not set {', '.join(sorted(unknown))}")
    node: list[Any] = [".".join((element.tag, *classes))]
    if given:
        node.append(given)
    node += _words(element.text)
    for child in element:
        node.append(_node(child))
        node += _words(child.tail)
    return node


def _words(between: str | None) -> list[str]:
    """A text between elements, without the template's own line breaks (shown texts have none left)."""
    said = _BREAK.sub("", between or "")
    return [said] if said else []


def _rounded(value: Any) -> Any:
    """Numbers to four digits and texts in one line, everywhere within."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, str):
        return text.brief(value, _LONGEST_TEXT)
    if isinstance(value, dict):
        return {text.brief(str(key), _LONGEST_TEXT): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
