"""What a waiting user sees."""

from __future__ import annotations

import io

from rich.console import Console

from diffharness.progress import StageProgress


def test_a_terminal_shows_the_note_behind_the_time_left():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with StageProgress(console).stage("train") as report:
        report(3, 10)
        report(4, 10, "explained 0.812")
    assert "explained 0.812" in out.getvalue()
    assert "4/10" in out.getvalue()
    assert "✓" in out.getvalue()


def test_without_a_terminal_or_a_console_notes_are_not_shown():
    out = io.StringIO()
    for console in (None, Console(file=out)):
        with StageProgress(console).stage("train") as report:
            report(4, 10, "explained 0.812")
    assert "explained" not in out.getvalue()
    assert "train" in out.getvalue()
