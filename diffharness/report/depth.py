"""The depth profile as every view shows it: a sentence, a small picture in text, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.defaults import AUTO_RULE
from diffharness.report.markup import escape
from diffharness.report.numbers import count, interval, percent, signed
from diffharness.report.schema import HALF, DepthProfile, LayerDepth, Report, carried_together
from diffharness.report.text import brief, clean

BLOCKS = "▁▂▃▄▅▆▇█"
_BAR_CELLS = 20
_MOST_ROWS = 30
"""Tasks in the table of the Markdown page."""


def depth_sentence(report: Report) -> str | None:
    """Which layer carries half of the gaps, and what the compared layer does; none where no gap is real."""
    together = carried_together(report.depth)
    if not together:
        return None
    n = sum(profile.moved for profile in report.depth)
    gaps = "the gap" if n == 1 else f"the {n} real gaps together"
    half = next((layer for layer, share in together.items() if share >= HALF), None)
    first = (
        f"half of {gaps} is carried by layer {half} of {report.run.n_layers}"
        if half is not None
        else f"no layer carries half of {gaps}: most of it is in how the final norm and the head read"
    )
    own = together.get(report.run.layer)
    if own is None:
        return first
    return (
        f"{first}; layer {report.run.layer}, which is compared, carries {percent(own)}, and {percent(1 - own)} is read "
        "above it"
    )


def sparkline(profile: DepthProfile) -> str:
    """A block a layer, full at the whole gap: what each carries, from nothing to all; `·` where it is not known."""
    return "".join("·" if row.share is None else _block(row.share) for row in profile.layers)


def _block(share: float) -> str:
    return BLOCKS[round(min(max(share, 0.0), 1.0) * (len(BLOCKS) - 1))]


def at(profile: DepthProfile, layer: int) -> LayerDepth | None:
    """What a profile says of a layer."""
    return next((row for row in profile.layers if row.layer == layer), None)


def read_above(row: LayerDepth | None) -> float | None:
    """The share of the gap that is read above a layer."""
    return None if row is None or row.share is None else 1 - row.share


def markdown_depth(report: Report) -> str | None:
    """The profile as a block of Markdown: a row a task."""
    if not report.depth:
        return None
    layer = report.run.layer
    lines = ["<details><summary>At which layer do the gaps arise?</summary>"]
    sentence = depth_sentence(report)
    if sentence is not None:
        lines.append(f"{escape(sentence[0].upper() + sentence[1:])}.")
    head = (
        f"| task | gap | by layer, 0 to {report.run.n_layers - 1} | half by | layer {layer} carries | interval | read "
        "above it | documents |\n|---|--:|---|--:|--:|--:|--:|--:|"
    )
    shown = sorted(report.depth, key=lambda profile: not profile.moved)
    rows = [_markdown_row(profile, layer) for profile in shown[:_MOST_ROWS]]
    lines.append("\n".join([head, *rows]))
    if len(shown) > _MOST_ROWS:
        lines.append(f"… and {len(shown) - _MOST_ROWS} more tasks, in `report.html`.")
    lines.append("</details>")
    return "\n\n".join(lines)


def _markdown_row(profile: DepthProfile, layer: int) -> str:
    own, half = at(profile, layer), profile.first_half()
    shared = profile.share_reason is None
    cells = (
        escape(brief(profile.task, 80)),
        signed(profile.gap),
        sparkline(profile) if shared else escape(brief(profile.share_reason or "", 80)),
        "–" if half is None else str(half),
        signed(own.carried if own else None) + (f" ({percent(own.share)})" if own and own.share is not None else ""),
        interval(own.interval if own else None),
        percent(read_above(own)),
        f"{count(profile.n_documents)} of {count(profile.n_task)}",
    )
    return f"| {' | '.join(cells)} |"


def print_depth(
    profiles: Sequence[DepthProfile], missing: Mapping[str, str], console: Console, *, choice: tuple[int, str]
) -> None:
    """Print every task's profile, and the layer that `--layer auto` picks with its reason."""
    for profile in sorted(profiles, key=lambda profile: not profile.moved):
        said = "" if profile.share_reason is None else f"; {profile.share_reason}"
        documents = f"{count(profile.n_documents)} of {count(profile.n_task)} documents"
        console.print(Text(""))
        console.print(
            Text.assemble(
                (brief(profile.task, 60), "bold"), f"  {signed(profile.gap)} {profile.unit}, {documents}{said}"
            )
        )
        console.print(_table(profile))
    for task, reason in missing.items():
        console.print(Text(f"{brief(task, 60)}: no profile, {clean(reason)}", style="dim"))
    layer, why = choice
    console.print(Text(""))
    console.print(Text.assemble((f"--layer auto picks layer {layer}", "bold"), f": {clean(why)}."))
    console.print(Text(f"Its rule: {AUTO_RULE}.", style="dim"))


def _table(profile: DepthProfile) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("layer", "carried", "interval", "of the gap", "read above"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for row in profile.layers:
        last = Text(_bar(row.share), style="cyan") if row.reason is None else Text(brief(row.reason, 80), style="dim")
        numbers = (signed(row.carried), interval(row.interval), percent(row.share), percent(read_above(row)))
        table.add_row(str(row.layer), *map(Text, numbers), last)
    return table


def _bar(share: float | None) -> str:
    eighths = round(min(max(share or 0.0, 0.0), 1.0) * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]
