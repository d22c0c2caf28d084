"""What a latent's card shows, before it is drawn: which latents have one, their examples token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffharness.report import text
from diffharness.report.schema import Example, Latent, Report
from diffharness.report.view import strongest

MOST_LATENTS = 2_000
"""Latents that the page lists; `report.json` has every one."""
MOST_TASKS = 10
"""Rows of a card's table of tasks."""
_SMALLEST_CONTRIBUTION = 0.0005
MOST_NEIGHBOURS = 5
MOST_PROMOTED = 8
"""Tokens that a latent promotes, and as many that it suppresses, a model."""
FULL_CARDS = 20
"""The first cards show more texts than the others, so that a page of many latents stays small."""
MOST_EXAMPLES = {"top": 5, "quantile": 10, "near miss": 3}
"""Of each kind on a full card."""
_FEWER_EXAMPLES = {"top": 3, "quantile": 5, "near miss": 2}
MOST_TOKENS = {"top": 64, "quantile": 32, "near miss": 32}
"""Tokens of an example, around its strongest."""
MOST_CHARACTERS = 500
"""Of an example's text; at least its strongest token is shown."""
_MOST_NUMBERED = 8
"""Tokens of an example with their activation printed beside them."""
_MOST_BOTH = 6
"""Tokens of an example with both models' values."""
_LONGEST_TOKEN = 80
_SHADES = 5
_HEADINGS = {
    "top": "Where it fires most",
    "quantile": "Across its range",
    "near miss": "Near misses: texts that came nearest without firing",
}


@dataclass(frozen=True)
class Token:
    """A token of an example: `shade` is 0 (silent) to 5, `shown` whether its value is printed beside it."""

    text: str
    value: float
    shade: int
    shown: bool
    baseline: float | None = None
    candidate: float | None = None


@dataclass(frozen=True)
class Shown:
    """An example as it is shown; `both` are the tokens of its table of both models' values."""

    tokens: tuple[Token, ...]
    source: str
    quantile: float | None
    both: tuple[Token, ...]
    cut_before: bool
    """Whether tokens before the first were left out."""
    cut_after: bool


@dataclass(frozen=True)
class Group:
    """Examples of one kind."""

    heading: str
    kind: Literal["top", "quantile", "near miss"]
    examples: tuple[Shown, ...]


@dataclass(frozen=True)
class TaskRow:
    """One task on a latent's card."""

    task: str
    density: float | None
    contribution: float | None


def carded(report: Report, limit: int = MOST_LATENTS) -> tuple[Latent, ...]:
    """The latents that get a card, by contribution: those whose use changed most, and the ones that contribute most."""
    named = set(report.changed.latents if report.changed is not None else ())
    ranked = strongest(report.latents)
    first = [latent for latent in ranked if latent.index in named][:limit]
    rest = [latent for latent in ranked if latent.index not in named]
    return strongest((*first, *rest[: limit - len(first)]))


def task_rows(latent: Latent) -> tuple[TaskRow, ...]:
    """The tasks on which it fires or to which it contributes, the largest contribution first.

    A contribution of 0 at the card's digits is no row of its own.
    """
    contributing = {name for name, value in latent.contributions.items() if abs(value) >= _SMALLEST_CONTRIBUTION}
    names = {*contributing, *latent.density_by_task}
    rows = [TaskRow(name, latent.density_by_task.get(name), latent.contributions.get(name)) for name in names]
    return tuple(sorted(rows, key=lambda row: (-abs(row.contribution or 0.0), -(row.density or 0.0), row.task)))


def lens_rows(latent: Latent) -> tuple[tuple[tuple[str, float] | None, ...], ...]:
    """The tokens that the latent promotes and suppresses: a row a rank, two cells a side, `None` where a list ends."""
    columns = [
        list(zip(p.tokens, p.values, strict=False)) for lens in latent.lens.values() for p in (lens.up, lens.down)
    ]
    depth = min(MOST_PROMOTED, max((len(column) for column in columns), default=0))
    return tuple(tuple(column[n] if n < len(column) else None for column in columns) for n in range(depth))


def token_name(token: str) -> str:
    """A token in a table's cell: one line, its leading space seen."""
    line = text.brief(token, 24)
    return f"␣{line[1:]}" if line.startswith(" ") else line


def groups(latent: Latent, full: bool = True) -> tuple[Group, ...]:
    """The latent's examples by kind; empty kinds are left out.

    Those across its range go from the strongest quantile down, and where some are left out the rest still spans it.
    """
    most = MOST_EXAMPLES if full else _FEWER_EXAMPLES
    top = max((v for e in latent.examples for v in e.values), default=0.0) or 1.0
    made = []
    for kind, heading in _HEADINGS.items():
        found = [example for example in latent.examples if example.kind == kind]
        if kind == "quantile":
            found.sort(key=lambda example: -(example.quantile or 0.0))
        if found:
            chosen = _spread(found, most[kind]) if kind == "quantile" else found[: most[kind]]
            examples = tuple(_shown(example, top) for example in chosen)
            made.append(Group(heading, found[0].kind, examples))
    return tuple(made)


def _spread(found: list[Example], limit: int) -> list[Example]:
    """At most `limit` of a sorted list, evenly spaced, its ends among them."""
    if len(found) <= limit:
        return found
    return [found[round(n * (len(found) - 1) / (limit - 1))] for n in range(limit)]


def _shown(example: Example, top: float) -> Shown:
    """The example's tokens around its strongest, shaded on the latent's own scale over all its examples."""
    values = example.values
    strength = _strength(example)
    start, stop = _window(example, max(range(len(values)), key=lambda i: strength[i], default=0))
    firing = sorted((i for i in range(start, stop) if values[i] > 0), key=lambda i: -values[i])
    numbered = set(firing[:_MOST_NUMBERED])
    tokens = {i: _token(example, i, top, shown=i in numbered) for i in range(start, stop)}
    both: tuple[Token, ...] = ()
    if example.baseline and example.candidate:
        held = sorted((i for i in range(start, stop) if strength[i] > 0), key=lambda i: -strength[i])
        both = tuple(tokens[i] for i in sorted(held[:_MOST_BOTH]))
    return Shown(tuple(tokens.values()), example.source, example.quantile, both, start > 0, stop < len(values))


def _strength(example: Example) -> tuple[float, ...]:
    """What ranks the tokens: the activation, or what either model holds where the latent does not fire."""
    if example.kind != "near miss" or not (example.baseline and example.candidate):
        return example.values
    return tuple(max(pair) for pair in zip(example.baseline, example.candidate, strict=True))


def _window(example: Example, peak: int) -> tuple[int, int]:
    """From where to where the tokens are shown: grown around the peak, within the limits."""
    n, limit = len(example.tokens), MOST_TOKENS[example.kind]
    start, stop = peak, min(n, peak + 1)
    room = MOST_CHARACTERS - sum(min(len(t), _LONGEST_TOKEN) for t in example.tokens[start:stop])
    grows = True
    while grows and stop - start < limit:
        grows = False
        for place in (start - 1, stop):
            wanted = min(len(example.tokens[place]), _LONGEST_TOKEN) if 0 <= place < n else room + 1
            if wanted <= room and stop - start < limit:
                room, grows = room - wanted, True
                start, stop = min(start, place), max(stop, place + 1)
    return start, stop


def _token(example: Example, place: int, top: float, *, shown: bool) -> Token:
    value = example.values[place]
    return Token(
        text=text.one_line(text.shorten(example.tokens[place], _LONGEST_TOKEN)),
        value=value,
        shade=0 if value <= 0 else max(1, min(_SHADES, round(_SHADES * value / top))),
        shown=shown,
        baseline=example.baseline[place] if example.baseline else None,
        candidate=example.candidate[place] if example.candidate else None,
    )
