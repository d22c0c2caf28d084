"""The report in about a screen of a terminal: the verdict, the leaderboard, why, what is a cause, can it be trusted.

Nothing is told here that the whole report does not tell; a line that would not fit ends in an ellipsis. What speaks
against the report (a stale crosscoder, a replay that does not hold, unequal documents) is never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffharness.report.ablated import by_change, shown_name
from diffharness.report.claims import TITLE, claim_name, ordered_claims
from diffharness.report.latent_words import TOO_FEW, is_told, shift_word
from diffharness.report.numbers import count, percent, plain, signed
from diffharness.report.schema import Report, Task
from diffharness.report.settling import approximate_sentence, shown
from diffharness.report.terminal import head, leaderboard
from diffharness.report.terminal_why import MOST_PARTS, drawn, heading, part_words
from diffharness.report.text import brief, clean, squeeze
from diffharness.report.view import changed_latents, is_explained, protocols
from diffharness.report.words import account_sentence, rescored_sentence, to_explain

_MOST_ROWS = 12
_MOST_TOLD = 3
"""Gaps with a line each, after the one that is drawn."""
_MOST_NAMED = 3
_NAME_CELLS = 34


def print_summary(report: Report, console: Console, folder: Path | None = None) -> None:
    """Print about a screen of the report; `folder` is where its files lie, if they were written."""
    width = console.width
    parts = [head(report), leaderboard(report, width, most=_MOST_ROWS), _notes(report, width), _why(report, width)]
    if report.ablated:
        parts.append(_what_if(report, width))
    if report.validation.mechanism_withheld is None:
        parts.append(_inside(report, width))
    parts.append(_trust(report, width))
    if folder is not None:
        parts.append(_files(folder))
    for part in parts:
        console.print(part)


def _line(words: str, width: int, style: str = "") -> Text:
    """One line, whatever the words."""
    return Text(brief(words, width), style=style)


def _fitting(items: list[str], room: int) -> str:
    """As many of the items as fit, at least the first, and how many there are besides."""
    n = len(items)
    while n > 1 and len(_counted(items, n)) > room:
        n -= 1
    return _counted(items, n)


def _counted(items: list[str], n: int) -> str:
    return ", ".join(items[:n]) + (f" and {len(items) - n} more" if n < len(items) else "")


def _notes(report: Report, width: int) -> RenderableType:
    """Below the leaderboard: rows that are not in it, and what to know of those that are, in two lines."""
    rows = shown(report)
    hidden, others = max(0, len(rows) - _MOST_ROWS), len(report.tasks) - len(rows)
    left = [f"{n} {what}" for n, what in ((hidden, "of other tasks"), (others, "on other metrics")) if n]
    first = [f"rows in the report only: {', '.join(left)}"] if left else []
    first += [said for said in (approximate_sentence(report),) if said is not None]
    lines = ["; ".join(first)] if first else []
    start = "documents to decide: "
    if undecided := [f"{brief(t.task, 40)} {count(t.n_to_settle)}" for t in rows if t.n_to_settle is not None]:
        lines.append(start + _fitting(undecided, width - len(start)))
    return Group(*(_line(said, width, "dim") for said in lines))


def _why(report: Report, width: int) -> RenderableType:
    """The largest gap drawn, the next in a line each, and which contributions are causes."""
    lines: list[RenderableType] = [Text(""), heading("Why")]
    real, nothing = to_explain(report)
    if nothing is not None:
        return Group(*lines, Text(clean(nothing)))
    first = next((task for task in real if is_explained(task)), None)
    if first is not None:
        lines += drawn(first, width)
    rest = [task for task in real if task is not first]
    if rest:
        lines.append(_told(rest[:_MOST_TOLD], width))
    if len(rest) > _MOST_TOLD:
        lines.append(Text(f"… and {len(rest) - _MOST_TOLD} more tasks with a gap, in the report", style="dim"))
    if report.claims:
        lines.append(_causes(report, width))
    return Group(*lines)


def _told(tasks: Sequence[Task], width: int) -> Table:
    """A line a task: its gap, and as many of its largest parts as fit."""
    names = [squeeze(task.task, min(_NAME_CELLS, width // 3)) for task in tasks]
    room = width - max(map(len, names)) - 10
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    for task, name in zip(tasks, names, strict=True):
        table.add_row(
            Text(name, style="bold"), Text(signed(task.gap)), Text(brief(_parts(task, room), room), style="dim")
        )
    return table


def _parts(task: Task, room: int) -> str:
    """The largest parts that fit, or why they say nothing."""
    if not is_explained(task) or task.surrogate is None:
        return account_sentence(task)
    before = f"of {signed(task.surrogate.gap)}: "
    said = (before + part_words(task, most) for most in range(MOST_PARTS, 0, -1))
    return next((words for words in said if len(words) <= room), before + part_words(task, 1))


def _causes(report: Report, width: int) -> Text:
    """How many contributions beat random latents, and the first of them, in two lines."""
    causal = [claim for claim in ordered_claims(report) if claim.is_causal]
    said = f"{TITLE} {len(causal)} of {len(report.claims)} contributions do"
    if not causal:
        return Text(f"{said}, so nothing is worded as a cause")
    named = [f"{claim_name(claim)} {signed(claim.effect)}" for claim in causal]
    return Text(f"{said}: {_fitting(named, 2 * width - len(said) - 16)}")


def _what_if(report: Report, width: int) -> RenderableType:
    """A line a model without some categories: the scores that change most."""
    lines: list[RenderableType] = [Text(""), heading("What if")]
    for model in report.ablated:
        name = shown_name(model)
        moved = [f"{brief(row.task, 40)} {signed(row.change)}" for row in by_change(model)]
        said = _fitting(moved, width - len(name) - 2) if moved else model.reason or "no task was scored"
        lines.append(_line(f"{name}: {said}", width))
    return Group(*lines)


def _inside(report: Report, width: int) -> RenderableType:
    """Latents that only one side has or that are used otherwise, and the categories of which something can be told."""
    lines: list[RenderableType] = [Text(""), heading("What changed inside")]
    if (changed := report.changed) is not None:
        counts = f"{changed.n_specific_baseline} of the baseline, {changed.n_specific_candidate} of the candidate"
        lines.append(_line(f"specific latents: {counts}", width))
        if names := [f"{j.index} ({brief(j.category, 24)})" for j in changed_latents(report)]:
            lines.append(_line(f"most changed in use: {_fitting(names, width - 21)}", width))
    default = next(iter(protocols(report)), None)
    if default is None:
        return Group(*lines, _line(report.categories_reason or "No category shift was computed.", width))
    told = [row for row in default.rows if is_told(row.conclusion)]
    for row in told[:_MOST_NAMED]:
        moved = "" if row.change is None else f" ({signed(row.change, 0)}\u00a0%)"
        counts = f"{brief(row.name, 24)}: {row.n_baseline} → {row.n_candidate} specific latents{moved}"
        lines.append(_line(f"{counts}, {shift_word(row.conclusion)}", width))
    n_untold = len(default.rows) - len(told)
    if n_untold:
        lines.append(_line(f"category shift: {TOO_FEW} in {n_untold} of {len(default.rows)} categories", width))
    return Group(*lines)


def _trust(report: Report, width: int) -> RenderableType:
    """What it rests on, a line each; what speaks against it in full."""
    lines: list[RenderableType] = [Text(""), heading("Can it be trusted")]
    if report.quality:
        first = report.quality[0]
        variance = ", ".join(percent(v, 1) for v in first.explained_variance.values())
        lines.append(_line(f"explained variance {variance}; dead latents {percent(first.dead_share, 1)}", width))
    checks, complete = report.validation.replay, report.validation.completeness
    held = sum(check.holds for check in checks)
    said = [f"replay agrees with lm-eval in {held} of {len(checks)}"] if checks else []
    if complete is not None:
        said.append(f"accounts add up to within {percent(complete.percentile_99, 2)}")
    if said:
        lines.append(Text("; ".join(said), style="" if held == len(checks) else "bold dark_orange"))
    if (named := report.annotation) is not None and report.validation.mechanism_withheld is None:
        tried = "" if named.detection is None else f"; detection {plain(named.detection, 2)}"
        chance = f" ({plain(named.detection_chance, 2)} by chance)" if tried and named.detection_chance else ""
        said = f"{count(named.n_named)} of {count(named.n_asked)} latents have a name{tried}{chance}"
        lines.append(_line(said, width))
    if (rescored := rescored_sentence(report)) is not None:
        lines.append(Text(clean(rescored), style="bold dark_orange"))
    return Group(*lines)


def _files(folder: Path) -> RenderableType:
    """Where the page lies, and how to print the rest."""
    where = clean(str(folder))
    said = f"{where}/report.html; all of it: diffharness report {where} --full"
    return Group(Text(""), Text.assemble(("Report ", "bold"), said))
