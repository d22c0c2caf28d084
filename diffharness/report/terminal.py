"""The whole report on a terminal; `terminal_summary` is a screen of it.

Strings from outside reach rich only as `Text`, so that no markup in them is obeyed, and without control
characters, so that none of them moves the cursor.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffharness.report.ablated import terminal_ablated
from diffharness.report.latent_words import TOO_FEW, annotation_sentence, is_told, shift_word
from diffharness.report.numbers import count, interval, p_value, percent, plain, signed
from diffharness.report.quality import splice_sentence, stability_sentence, stale_sentences
from diffharness.report.schema import CategoryShift, CrosscoderQuality, Report, Task, TaskVerdict
from diffharness.report.settling import approximate_sentence, settling_sentence, shown
from diffharness.report.terminal_why import heading, terminal_why
from diffharness.report.text import brief, clean, squeeze
from diffharness.report.view import changed_latents, protocols
from diffharness.report.words import VERDICT_SIGNS, corpus_sentence, headline, replay_sentence, rescored_sentence

_VERDICT_STYLES: dict[TaskVerdict, str] = {
    "improved": "bold cyan",
    "regressed": "bold dark_orange",
    "no change": "dim",
    "inconclusive": "none",
}
_MOST_CHANGED = 3
_MOST_UNTOLD = 8
_WIDE = 100
_LONGEST_VERDICT = "? inconclusive"


def print_report(report: Report, console: Console, folder: Path | None = None) -> None:
    """Print all sections; `folder` is where the files lie, if they were written."""
    for part in (head(report), leaderboard(report, console.width), _notes(report), terminal_why(report, console.width)):
        console.print(part)
    if (ablated := terminal_ablated(report)) is not None:
        console.print(ablated)
    if report.validation.mechanism_withheld is None:
        console.print(_shift(report, console.width))
    console.print(_trust(report))
    if folder is not None:
        console.print(_files(folder))


def head(report: Report) -> RenderableType:
    """The verdict in a sentence, the models, and what speaks against all that follows."""
    names = {m.side: brief(m.name, 40) for m in report.models}
    models = f"{names.get('baseline', 'baseline')} → {names.get('candidate', 'candidate')}"
    where = f"layer {report.run.layer} of {report.run.n_layers}"
    lines = [Text(""), Text(clean(headline(report)), style="bold"), Text(f"{models}, {where}", style="dim")]
    if not report.comparability.documents_equal:
        lines.append(Text("The two sides did not answer the same documents.", style="dark_orange"))
    lines += [Text(f"{clean(sentence)}.", style="bold dark_orange") for sentence in stale_sentences(report)]
    return Group(*lines, Text(""))


def leaderboard(report: Report, width: int, most: int | None = None) -> Table:
    """The table of tasks, the first `most` of them; only names give way on a narrow terminal, never a number."""
    tasks = shown(report)[:most]
    start = _common_start(tasks)
    wide = width >= _WIDE
    names = ("n", "baseline", "candidate", "gap", "interval") if wide else ("n", "base", "cand", "gap", "interval")
    rows = [_numbers(task) for task in tasks]
    widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
    metric = min(18, max((len(t.metric) for t in tasks), default=0)) if wide else 0
    taken = sum(widths) + metric + len(_LONGEST_VERDICT) + 2 * (len(widths) + 1 + wide)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("task", no_wrap=True, max_width=max(8, width - taken))
    if wide:
        table.add_column("metric", no_wrap=True, max_width=metric)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for task, numbers in zip(tasks, rows, strict=True):
        verdict = Text(f"{VERDICT_SIGNS[task.verdict]} {task.verdict}", style=_VERDICT_STYLES[task.verdict])
        room = max(8, width - taken)
        name = task.task if len(task.task) <= room else f"…{task.task[start:]}" if start else task.task
        cells = [Text(squeeze(name, room))]
        if wide:
            cells.append(Text(brief(task.metric, metric)))
        table.add_row(*cells, *map(Text, numbers), verdict)
    return table


def _notes(report: Report) -> RenderableType:
    """Below the leaderboard: what to know of its rows, and how many are not in it."""
    others = len(report.tasks) - len(shown(report))
    below = [clean(words) for words in (settling_sentence(report), approximate_sentence(report)) if words is not None]
    if others > 0:
        below.append(f"and {others} {'row' if others == 1 else 'rows'} of the tasks' other metrics, in the report")
    return Group(*(Text(words, style="dim") for words in below))


def _common_start(tasks: tuple[Task, ...]) -> int:
    """How many characters all names begin with, up to a separator."""
    names = sorted(task.task for task in tasks)
    if len(names) < 2:
        return 0
    first, last = names[0], names[-1]
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return max(first.rfind(separator, 0, same) for separator in "_/-") + 1


def _numbers(task: Task) -> tuple[str, ...]:
    scores = (plain(task.baseline), plain(task.candidate))
    return (count(task.n), *scores, signed(task.gap), interval(task.interval))


def _shift(report: Report, width: int) -> RenderableType:
    lines: list[RenderableType] = [Text(""), heading("What changed inside")]
    if report.changed is not None:
        most = ", ".join(f"{j.index} ({brief(j.category, 24)})" for j in changed_latents(report)[:_MOST_CHANGED])
        lines.append(Text(brief(report.changed.sentence, 4 * width)))
        if most:
            lines.append(Text(f"changed most: latents {most}", style="dim"))
    default = next(iter(protocols(report)), None)
    if default is None:
        return Group(*lines, Text(clean(report.categories_reason or "No category shift was computed.")))
    told = [row for row in default.rows if is_told(row.conclusion) or is_told(row.mass_conclusion)]
    untold = [brief(row.name, 28) for row in default.rows if row not in told]
    if told:
        lines.append(_shift_grid(told))
    if untold:
        rest = f" and {len(untold) - _MOST_UNTOLD} more" if len(untold) > _MOST_UNTOLD else ""
        lines.append(Text(f"{TOO_FEW}: {', '.join(untold[:_MOST_UNTOLD])}{rest}"))
    return Group(*lines)


def _shift_grid(rows: list[CategoryShift]) -> Table:
    """A row a category of which something can be told: its counts, then its mass."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    for _ in range(2):
        grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    if any(row.mass_change is not None for row in rows):
        grid.add_column()
    for row in rows:
        change = "–" if row.change is None else f"{signed(row.change, 0)}\u00a0%"
        cells = [
            Text(brief(row.name, 24)),
            Text(f"{row.n_baseline} → {row.n_candidate}"),
            Text(change),
            Text(f"p\u00a0{p_value(row.p_value)}, {brief(shift_word(row.conclusion), 40)}"),
        ]
        if row.mass_change is not None:
            moved = f"mass {signed(row.mass_change, 1)}\u00a0points"
            said = brief(shift_word(row.mass_conclusion), 40) or "not tested"
            cells.append(Text(f"{moved}, p\u00a0{p_value(row.mass_p_value)}, {said}"))
        grid.add_row(*cells)
    return grid


def _trust(report: Report) -> RenderableType:
    lines: list[RenderableType] = [Text(""), heading("Can it be trusted")]
    for quality in report.quality:
        lines.append(Text(_quality_line(quality)))
        if quality.stale is not None:
            lines.append(Padding(Text(f"stale: {clean(quality.stale)}", style="bold dark_orange"), (0, 0, 0, 2)))
        inside = [said for said in (splice_sentence(quality), stability_sentence(quality)) if said is not None]
        if inside:
            lines.append(Padding(Text(clean("; ".join(inside))), (0, 0, 0, 2)))
    corpus, replay, rescored = corpus_sentence(report), replay_sentence(report), rescored_sentence(report)
    if corpus is not None:
        lines.append(Text(clean(corpus)))
    names = annotation_sentence(report.annotation, costs=False)
    if names is not None and report.validation.mechanism_withheld is None:
        lines.append(Text(clean(names)))
    if replay is not None:
        holds = all(check.holds for check in report.validation.replay)
        lines.append(Text(replay, style="" if holds else "bold dark_orange"))
    if rescored is not None:
        lines.append(Text(clean(rescored), style="bold dark_orange"))
    complete = report.validation.completeness
    if complete is not None:
        lines.append(
            Text(
                f"completeness: residual {percent(complete.median, 3)} median, "
                f"{percent(complete.percentile_99, 2)} at the 99th percentile, {count(complete.n)} documents"
            )
        )
    return Group(*lines)


def _quality_line(quality: CrosscoderQuality) -> str:
    variance = ", ".join(percent(v, 1) for v in quality.explained_variance.values())
    return (
        f"{brief(quality.name, 30)}: explained variance {variance}; "
        f"L0 {plain(quality.l0, 1)}; dead {percent(quality.dead_share, 1)}"
    )


def _files(folder: Path) -> RenderableType:
    where = clean(str(folder))
    return Group(Text(""), Text.assemble(("Report ", "bold"), f"{where}/report.html  (also .md, .json, figures/)"))
