"""Documents whose score changed, for every view: the account of each as rows, its tokens as lines of shades."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from diffharness.report import view
from diffharness.report.markup import code, escape
from diffharness.report.numbers import count, plain, signed
from diffharness.report.schema import FlippedDocument, Report, Task, TaskDocuments, TokenSegment
from diffharness.report.text import brief, clean

MOST_BY_TOKEN = 60
"""Documents of a page that are shown by token; `report.json` has the tokens of all."""
MOST_LINES = 3
"""Categories of a document whose tokens are shown."""
AROUND = 40
"""Tokens shown on either side of a category's strongest."""
MOST_ROWS = 8
_SHADES = 5
_LEAST_SHARE = 0.04
"""Of the strongest token: below it a token is not shaded."""
_MOST_NUMBERED = 8
"""Tokens of a line whose number is printed beside them; that of other shaded tokens is in the text unseen."""
_LONGEST_TOKEN = 80
_MOST_LISTED = 12
_IN_MARKDOWN = 3
_ANSWER = 80
_READ = " (read)"


@dataclass(frozen=True)
class Lit:
    """A token: `shade` is 0 to 5, in the class of what adds (`a`) or takes away (`t`)."""

    text: str
    value: float
    shade: str | None
    is_numbered: bool


@dataclass(frozen=True)
class Strip:
    """A segment as far as it is shown."""

    name: str
    tokens: tuple[Lit, ...]
    n_before: int
    """Tokens left out."""
    n_after: int


@dataclass(frozen=True)
class Line:
    """A document's tokens by one category."""

    category: str
    sum: float
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class AccountRow:
    """A component of a document's account, its origins side by side."""

    name: str
    written: float | None
    read: float | None
    sum: float
    share: float
    """Of the largest, −1 to 1."""


def documents_of(report: Report, task: Task) -> TaskDocuments | None:
    """The task's flipped documents, where the row is of the metric that they flipped in."""
    if not task.is_primary:
        return None
    found = next((row for row in report.documents if row.task == task.task), None)
    return found if found is not None and (found.documents or found.others) else None


def by_token(report: Report) -> set[tuple[str, int]]:
    """Task and number of the documents whose tokens are on the page: of every task the first, then the second, …"""
    return {(task, d.doc_id) for task, d in _in_turn(report)[:MOST_BY_TOKEN]}


def _in_turn(report: Report) -> list[tuple[str, FlippedDocument]]:
    """All documents, the first of each task first; tasks by severity."""
    rows = {row.task: row for row in report.documents}
    tasks = [rows[task.task] for task in view.by_severity(view.primary(report)) if task.task in rows]
    ranks = zip_longest(*([(row.task, d) for d in row.documents] for row in tasks))
    return [pair for rank in ranks for pair in rank if pair is not None]


def outcome(document: FlippedDocument) -> str:
    """`lost` or `gained`, with the kind where one is known."""
    said = "lost" if document.is_loss else "gained"
    return said if document.kind is None else f"{said}, {document.kind}"


def account_rows(document: FlippedDocument) -> tuple[AccountRow, ...]:
    """The document's components by size, the smallest added up; what the quadrature missed comes last."""
    names = dict.fromkeys(label.removesuffix(_READ) for label in document.contributions)
    parts = {name: (document.contributions.get(name), document.contributions.get(name + _READ)) for name in names}
    sums = {name: (written or 0.0) + (read or 0.0) for name, (written, read) in parts.items()}
    order = sorted(sums, key=lambda name: (-abs(sums[name]), name))
    largest = max(map(abs, sums.values()), default=0.0) or 1.0
    rows = [
        AccountRow(brief(name, 60), None if name == "prior" else parts[name][0], parts[name][1], sums[name],
                   sums[name] / largest)
        for name in order[:MOST_ROWS]
    ]  # fmt: skip
    rest = sum(sums[name] for name in order[MOST_ROWS:])
    if len(order) > MOST_ROWS:
        rows.append(AccountRow(f"{len(order) - MOST_ROWS} smaller", None, None, rest, _bounded(rest / largest)))
    missed = document.residual
    return (*rows, AccountRow("missed by the quadrature", None, None, missed, _bounded(missed / largest)))


def _bounded(share: float) -> float:
    return max(-1.0, min(1.0, share))


def lines(document: FlippedDocument) -> tuple[Line, ...]:
    """The document's tokens once for each of its largest categories, shaded on one scale."""
    shown = [n for n, column in enumerate(document.columns) if column.kind == "latents"][:MOST_LINES]
    values = [abs(v) for segment in document.segments for n in shown for v in segment.values[n]]
    largest = max(values, default=0.0)
    return tuple(_line(document, n, largest) for n in shown)


def _line(document: FlippedDocument, column: int, largest: float) -> Line:
    own = sorted((abs(v) for s in document.segments for v in s.values[column]), reverse=True)
    numbered = max(own[:_MOST_NUMBERED][-1] if own else 0.0, _LEAST_SHARE * largest)
    strips = tuple(_strip(s, column, largest, numbered) for s in document.segments if s.texts)
    about = document.columns[column]
    return Line(brief(about.category or about.kind, 60), about.sum, strips)


def _strip(segment: TokenSegment, column: int, largest: float, numbered: float) -> Strip:
    """What is near the segment's strongest token; a segment that is kept whole and short is shown whole."""
    values, places = segment.values[column], segment.places
    peak = max(range(len(values)), key=lambda p: abs(values[p]))
    first = last = peak
    whole = len(places) <= 2 * AROUND + 1
    while first > 0 and (whole or peak - first < AROUND) and _are_neighbours(segment, first - 1):
        first -= 1
    while last + 1 < len(places) and (whole or last - peak < AROUND) and _are_neighbours(segment, last):
        last += 1
    tokens = tuple(
        Lit(_shown(segment.texts[p]), values[p], _shade(values[p], largest), abs(values[p]) >= numbered > 0)
        for p in range(first, last + 1)
    )
    return Strip(segment.name, tokens, places[first], segment.n_tokens - places[last] - segment.lengths[last])


def _are_neighbours(segment: TokenSegment, piece: int) -> bool:
    """Whether no token was left out behind the piece."""
    return segment.places[piece] + segment.lengths[piece] == segment.places[piece + 1]


def _shade(value: float, largest: float) -> str | None:
    share = abs(value) / largest if largest else 0.0
    if share < _LEAST_SHARE:
        return None
    return f"{'a' if value > 0 else 't'}{min(_SHADES, 1 + int(share * _SHADES))}"


def _shown(text: str) -> str:
    """A token as it reads, line breaks seen."""
    cut = text if len(text) <= _LONGEST_TOKEN else text[:_LONGEST_TOKEN] + "…"
    return clean(cut).replace("\n", "↵\n")


def number(value: float) -> str:
    """A token's contribution: at least two digits that are not zero, so that none reads as nothing."""
    digits = 3
    while digits < 6 and abs(value) < 10 ** (1 - digits):
        digits += 1
    return signed(value, digits)


def others_sentences(found: TaskDocuments) -> tuple[str, ...]:
    """The flips whose tokens are not shown, with the reason."""
    said = []
    for other in found.others:
        n_lost, n_gained = len(other.lost), len(other.gained)
        said.append(
            f"{count(n_lost + n_gained)} more changed ({count(n_lost)} lost, {count(n_gained)} gained): "
            f"{brief(other.reason, 200)}; documents {_listing(other.lost + other.gained)}."
        )
    return tuple(said)


def _listing(doc_ids: tuple[int, ...]) -> str:
    ordered = sorted(doc_ids)
    more = len(ordered) - _MOST_LISTED
    return ", ".join(map(str, ordered[:_MOST_LISTED])) + (f" and {count(more)} more" if more > 0 else "")


def markdown_flips(report: Report) -> list[str]:
    """Blocks for the strongest flips of the page, each with both answers, its account and its strongest tokens."""
    metrics = {task.task: task.metric for task in report.tasks if task.is_primary}
    return [_block(task, metrics.get(task, ""), document) for task, document in _in_turn(report)[:_IN_MARKDOWN]]


def _block(task: str, metric: str, d: FlippedDocument) -> str:
    said = (
        f"**{escape(brief(task, 80))}, document {d.doc_id}: {outcome(d)}** ({escape(brief(metric, 40))} "
        f"{plain(d.baseline_score)} → {plain(d.candidate_score)})"
    )
    rows = [
        said,
        f"- right {code(d.gold, _ANSWER)}, baseline {code(d.baseline_answer, _ANSWER)}, candidate "
        f"{code(d.candidate_answer, _ANSWER)}",
    ]
    parts = [f"{escape(row.name)} {signed(row.sum)}" for row in account_rows(d)[:4]]
    rows.append(f"- account of its {signed(d.candidate_surrogate - d.baseline_surrogate)}: {', '.join(parts)}")
    strongest = sorted(
        (
            (abs(v), v, line.category, strip.name, t.text)
            for line in lines(d) for strip in line.strips for t in strip.tokens for v in (t.value,)
        ),
        key=lambda found: -found[0],
    )[:4]  # fmt: skip
    tokens = [
        f"{code(text.strip() or text, 24)} ({escape(brief(name, 40))}) {escape(category)} {number(v)}"
        for _, v, category, name, text in strongest
    ]
    if tokens:
        rows.append(f"- tokens: {'; '.join(tokens)}")
    return "\n".join([rows[0], "", *rows[1:]])
