"""Why the scores changed, on a terminal: the first gaps with a bar a part, the others in a line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffharness.report.claims import terminal_claims
from diffharness.report.depth import depth_sentence
from diffharness.report.flips import terminal_line
from diffharness.report.numbers import percent, signed
from diffharness.report.schema import Claim, Component, Report, Task
from diffharness.report.shapley import agreement_sentence, terminal_shapley
from diffharness.report.text import brief, brief_label, clean, squeeze
from diffharness.report.view import is_explained, label, ordered
from diffharness.report.words import account_sentence, check_word, to_explain

_MOST_DRAWN = 3
"""Tasks with a bar a part; the tasks after them have a line each."""
_MOST_WHY = 8
MOST_PARTS = 3
"""Of a task, with a bar or a number each."""
_SMALLEST_BAR = 0.1
"""Of the largest one."""
_BAR_CELLS = 12
_NAME_CELLS = 24
_WIDE = 100


def heading(words: str) -> Text:
    """The heading of a section."""
    return Text(words, style="bold underline")


def terminal_why(report: Report, width: int) -> RenderableType:
    """The section: the largest gaps drawn, then a line a gap, then what was tried of all of them."""
    lines: list[RenderableType] = [Text(""), heading("Why")]
    real, nothing = to_explain(report)
    if nothing is not None:
        return Group(*lines, Text(clean(nothing)))
    for task in real[:_MOST_DRAWN]:
        lines += _explained(report, task, width)
    lines += [_told(task, width) for task in real[_MOST_DRAWN:_MOST_WHY]]
    if len(real) > _MOST_WHY:
        lines.append(Text(f"… and {len(real) - _MOST_WHY} more tasks with a gap, in the report.", style="dim"))
    beaten = terminal_claims(report, width)
    if beaten is not None:
        lines.append(beaten)
    lines += [Text(said, style="dim") for said in (agreement_sentence(report), depth_sentence(report)) if said]
    return Group(*lines)


def _explained(report: Report, task: Task, width: int) -> list[RenderableType]:
    """A task drawn, with its Shapley values and what its changed answers show."""
    said = [words for words in (terminal_shapley(report, task), terminal_line(report, task)) if words is not None]
    below = [Padding(Text(brief(words, 2 * width), style="dim"), (0, 0, 0, 2)) for words in said]
    return [*drawn(task, width, report.claims), *below]


def drawn(task: Task, width: int, claims: Sequence[Claim] = ()) -> list[RenderableType]:
    """A task with its largest parts, or why they say nothing."""
    line = _gap(task, max(24, width - 48))
    if is_explained(task) and task.surrogate is not None:
        line.append(f"; {signed(task.surrogate.gap)} in the surrogate, of which", style="dim")
        return [line, Padding(_bars(task, width), (0, 0, 0, 2))]
    return [line, Padding(Text(brief(account_sentence(task, claims), 5 * width)), (0, 0, 0, 2))]


def _told(task: Task, width: int) -> Text:
    """A task in a line: its largest parts, or why they say nothing."""
    line = _gap(task)
    if task.surrogate is None or not task.components:
        return line.append(f": {brief(account_sentence(task), 2 * width)}")
    if not task.surrogate.tracks:
        return line.append("; the surrogate does not track it")
    return line.append(f"; of {signed(task.surrogate.gap)}: {part_words(task)}", style="dim")


def part_words(task: Task, most: int = MOST_PARTS) -> str:
    """The largest parts of a gap, at most so many: `safety −0.353, prior −0.040; held back by error +0.120`.

    The largest that goes the gap's way is always among them and comes first: it is what makes the gap, whatever larger
    parts work against it. How many of the few largest do not fit is said.
    """
    gap = task.surrogate.gap if task.surrogate is not None else task.gap
    by_size = _by_size(task)
    first = next((c for c in by_size if c.contribution * gap > 0), by_size[0])
    sizeable = [first, *(c for c in _sizeable(by_size) if c is not first)]
    told = sizeable[:most]
    groups = [c for c in told if c.contribution * gap >= 0], [c for c in told if c.contribution * gap < 0]
    said = [", ".join(f"{_name(c)} {signed(c.contribution)}" for c in group) for group in groups if group]
    left_out = min(len(sizeable), MOST_PARTS) - len(told)
    return "; held back by ".join(said) + (f" and {left_out} more" if left_out > 0 else "")


def _gap(task: Task, room: int = 60) -> Text:
    return Text.assemble((squeeze(task.task, room), "bold"), f"  {signed(task.gap)} {brief(task.metric, 30)}")


def _by_size(task: Task) -> list[Component]:
    return sorted(ordered(task.components), key=lambda c: -abs(c.contribution))


def _sizeable(by_size: Sequence[Component]) -> list[Component]:
    """The components that are not small beside the first."""
    least = _SMALLEST_BAR * abs(by_size[0].contribution)
    return [c for c in by_size if abs(c.contribution) >= least]


def _bars(task: Task, width: int) -> Table:
    """The largest components of a task, each with a bar, its number and what the exact check says."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", width=_NAME_CELLS)
    table.add_column(no_wrap=True, width=_BAR_CELLS)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    drawn = _sizeable(_by_size(task))[:MOST_PARTS]
    top = abs(drawn[0].contribution) or 1.0
    for component in drawn:
        value = component.contribution
        table.add_row(
            Text(_name(component)),
            Text(_bar(abs(value) / top), style="cyan" if value >= 0 else "dark_orange"),
            Text(signed(value)),
            Text(percent(component.share)),
            Text(_check(task, component, "exact check" if width >= _WIDE else "check")),
        )
    rest = [c for c in task.components if not any(c is shown for shown in drawn)]
    if rest:
        total = sum(c.contribution for c in rest)
        table.add_row(Text(f"{len(rest)} smaller", style="dim"), Text(""), Text(signed(total), style="dim"))
    return table


def _name(component: Component) -> str:
    return brief_label(label(component), _NAME_CELLS)


def _bar(share: float) -> str:
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _check(task: Task, component: Component, name: str) -> str:
    if component.ablation is None:
        return ""
    return f"{name} {signed(component.ablation.change)} {check_word(task, component)}"
