"""What a waiting user sees: the stage, how far it is, and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as RemainingColumn


class Report(Protocol):
    """How far a stage is."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        """Say so, with a few words that stand behind the time left."""
        ...


def _unseen(_done: int, _total: int, _note: str = "", /) -> None:
    """Report to nobody."""


class StageProgress:
    """Shows stages one after the other: a live bar in a terminal, a line each elsewhere; silent without a console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    @contextmanager
    def stage(self, title: str) -> Iterator[Report]:
        """Show a stage while it runs; report progress by calling what is yielded."""
        if self.console is None:
            yield _unseen
            return
        began = time.monotonic()
        if not self.console.is_terminal:
            yield _unseen
        else:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]left"),
                RemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bars:
                task = bars.add_task(title, total=None, note="")

                def show(done: int, total: int, note: str = "", /) -> None:
                    bars.update(task, completed=done, total=total, note=note)

                yield show
        self.console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)

    def say(self, text: str) -> None:
        """A line between stages."""
        if self.console is not None:
            self.console.print(text, highlight=False)
