from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from diffharness.report.numbers import interval, plain, signed
from diffharness.report.schema import Report
from diffharness.report.terminal import print_report


def _printed(report: Report, width: int, *, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    print_report(report, console, Path("reports/demo"))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_and_no_line_is_too_long(report: Report, width: int) -> None:
    printed = _printed(report, width)
    assert all(len(line.rstrip()) <= width for line in printed.splitlines())
    for task in report.tasks:
        for number in (plain(task.baseline), plain(task.candidate), signed(task.gap), interval(task.interval)):
            assert number in printed


def test_the_story_is_told_in_order_and_in_about_a_screen(report: Report) -> None:
    printed = _printed(report, 100)
    places = [
        printed.index(words)
        for words in ("6 of 10 tasks", "verdict", "Why", "What changed inside", "Can it be trusted", "report.html")
    ]
    assert places == sorted(places)
    assert len(printed.splitlines()) < 66
    assert "too few to tell" in printed
    assert "exact check" in printed
    assert "completeness" in printed
    assert "does not track" in printed


def test_hostile_strings_are_printed_as_text(hostile: Report) -> None:
    plain_text = _printed(hostile, 200)
    assert "\x1b" not in plain_text
    assert "\u202e" not in plain_text
    assert "\x07" not in plain_text
    for text in ("[bold]rich[/bold]", "\\x1b[31mred", "<script>alert(1)</script>", "@everyone", "\\u202egnp.exe"):
        assert text in plain_text
    assert "\x1b[31mred" not in _printed(hostile, 200, colour=True)


def test_a_withheld_mechanism_is_not_told(report: Report) -> None:
    withheld = report.validation.model_copy(update={"mechanism_withheld": "the replay does not hold"})
    printed = _printed(report.model_copy(update={"validation": withheld}), 100)
    assert "Withheld: the replay does not hold" in printed
    assert "exact check" not in printed
