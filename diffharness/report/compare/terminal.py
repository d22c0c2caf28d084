"""A comparison on a terminal. Strings from outside reach rich only as `Text`, without control characters."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffharness.report.compare.model import Comparison
from diffharness.report.compare.words import headline, of_gaps, part_label, ranked, reasons, run_sentence, traced, word
from diffharness.report.numbers import interval, signed
from diffharness.report.side_by_side import print_parts, print_scores
from diffharness.report.text import brief, clean, squeeze

_MOST = 12
"""Differences that are printed; the others are counted."""
_MOST_TRACED = 3
_MOST_LEFT_OUT = 6
_NAMES = ((40,), (22, 18), (17, 13, 10))
"""Characters of a row's names, where there are one, two or three: what fits beside the numbers on 80 columns."""


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the tables."""
    console.print(Text(""))
    console.print(Text(clean(headline(comparison)), style="bold"))
    for run in comparison.runs:
        console.print(Text(clean(f"{brief(run.name, 60)}: {run_sentence(run)}"), style="dim"))
    console.print(Text("\nDid the scores change", style="bold underline"))
    print_scores(comparison, console, scores=True)
    if comparison.sums:
        _print_differences(comparison, console)
    print_parts(comparison, console, origins=True)
    if comparison.sums:
        console.print(Text("w: what is written, r: what is read; summed over the tasks that moved", style="dim"))
    console.print(Text("\nWhat to know", style="bold underline"))
    for said in comparison.notes:
        console.print(Text(f"- {brief(said, 600)}"))
    for said in comparison.left_out[:_MOST_LEFT_OUT]:
        console.print(Text(f"- {brief(said, 300)}", style="dim"))
    if len(comparison.left_out) > _MOST_LEFT_OUT:
        console.print(Text(f"- and {len(comparison.left_out) - _MOST_LEFT_OUT} more tasks left out", style="dim"))


def _print_differences(comparison: Comparison, console: Console) -> None:
    """What differs most from the first run, and in which tasks."""
    against = brief(comparison.runs[0].name, 40)
    console.print(Text(f"\nWhat differs most from {against}", style="bold underline"))
    found = ranked(comparison)
    rows = [*of_gaps(comparison), *found[:_MOST]]
    several = len({row.run for row in rows}) > 1, len({row.unit for row in rows}) > 1
    names = ["part", *(["run"] if several[0] else []), *(["unit"] if several[1] else [])]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rooms = _NAMES[len(names) - 1]
    for name, room in zip(names, rooms, strict=True):
        table.add_column(name, no_wrap=True, max_width=room)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        shown = [part_label(row), *([row.run] if several[0] else []), *([row.unit] if several[1] else [])]
        short = (squeeze(name, room) for name, room in zip(shown, rooms, strict=True))
        cells = [*short, signed(row.difference), interval(row.interval), word(row)]
        style = "bold" if row.kind == "gap" else "" if row.is_clear else "dim"
        table.add_row(*(Text(clean(cell), style=style) for cell in cells))
    console.print(table)
    if len(found) > _MOST:
        console.print(Text(f"and {len(found) - _MOST} smaller differences", style="dim"))
    for row in [row for row in found if row.is_clear][:_MOST_TRACED]:
        console.print(Text(clean(f"{brief(part_label(row), 40)} in {brief(row.run, 40)}: {traced(comparison, row)}")))
    for said in reasons(comparison):
        console.print(Text(clean(f"no interval: {brief(said, 300)}"), style="dim"))
