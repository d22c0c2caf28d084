"""What if: the ablated models' rows, as the views show them."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffharness.report.markup import escape
from diffharness.report.numbers import interval, plain, signed
from diffharness.report.schema import AblatedModel, AblatedRow, Report
from diffharness.report.text import brief, clean, squeeze

_HEAD = "| task | metric | baseline | candidate | ablated | change | interval |\n|---|---|--:|--:|--:|--:|--:|"
_MOST_ROWS = 40
_NAME_WIDTH = 28
"""Characters of a task's name on a terminal: the numbers beside it fill the rest of 80 columns."""


def shown_name(model: AblatedModel) -> str:
    """`candidate without safety (23 latents)`."""
    return f"{brief(model.name, 120)} ({model.n_latents} latent{'' if model.n_latents == 1 else 's'})"


def by_change(model: AblatedModel) -> tuple[AblatedRow, ...]:
    """The rows, those that change most first."""
    return tuple(sorted(model.rows, key=lambda row: (-abs(row.change), row.task)))


def terminal_ablated(report: Report) -> RenderableType | None:
    """A small table a model; `None` where nothing was ablated."""
    if not report.ablated:
        return None
    parts: list[RenderableType] = [Text(""), Text("What if", style="bold underline")]
    for model in report.ablated:
        parts.append(Text(clean(shown_name(model)), style="bold"))
        if model.reason is not None:
            parts.append(Text(clean(model.reason)))
            continue
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("task", no_wrap=True, max_width=_NAME_WIDTH)
        for name in ("base", "cand", "ablated", "change", "interval"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in by_change(model):
            table.add_row(Text(squeeze(row.task, _NAME_WIDTH)), *map(Text, _numbers(row)))
        parts.append(table)
    return Group(*parts)


def markdown_ablated(report: Report) -> list[str]:
    """A block a model."""
    blocks = []
    for model in report.ablated:
        title = f"**What if: {escape(shown_name(model))}**"
        if model.reason is not None:
            blocks.append(f"{title}: {escape(brief(model.reason, 200))}.")
            continue
        rows = by_change(model)
        lines = [
            f"| {' | '.join((escape(brief(row.task, 80)), escape(brief(row.metric, 40)), *_numbers(row)))} |"
            for row in rows[:_MOST_ROWS]
        ]
        left = f"\n\n… and {len(rows) - _MOST_ROWS} more tasks, in `report.html`." if len(rows) > _MOST_ROWS else ""
        blocks.append("\n".join([f"{title}\n", _HEAD, *lines]) + left)
    return blocks


def _numbers(row: AblatedRow) -> tuple[str, ...]:
    return (plain(row.baseline), plain(row.candidate), plain(row.ablated), signed(row.change), interval(row.interval))
