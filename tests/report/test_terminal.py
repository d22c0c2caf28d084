from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from diffharness.report.numbers import interval, plain, signed
from diffharness.report.schema import Report
from diffharness.report.terminal import print_report
from diffharness.report.view import by_severity, is_real
from tests.report.example import example_report


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
    assert len(printed.splitlines()) <= 75
    assert "too few to tell" in printed
    assert "exact check" in printed
    assert "completeness" in printed
    assert "does not track" in " ".join(printed.split())
    assert "Does it beat chance? 3 of 7 contributions do" in printed


def test_the_worst_gaps_are_drawn_and_every_other_one_has_a_line(report: Report) -> None:
    printed = " ".join(_printed(report, 120).split("What changed inside")[0].split())
    drawn = [task for task in by_severity(report.tasks) if is_real(task)][:3]
    for task in drawn:
        assert task.surrogate is not None
        assert f"{task.task} {signed(task.gap)} {task.metric}; {signed(task.surrogate.gap)} in the surrogate" in printed
    assert "organism_multilingual +0.310 acc; of +0.288: prior +0.123, multilingual +0.101" in printed
    assert "organism_safety_multilingual +0.240 exact_match; the surrogate does not track it" in printed


def test_a_long_category_keeps_its_origin(report: Report) -> None:
    assert "instruction foll… (read) −0.039" in " ".join(_printed(report, 120).split())


def test_gaps_beyond_the_last_line_are_counted_and_one_without_an_account_says_why(report: Report) -> None:
    many = example_report(n_tasks=40)
    n = sum(is_real(task) for task in many.tasks)
    assert f"… and {n - 8} more tasks with a gap, in the report." in _printed(many, 100)
    without = [t.model_copy(update={"verdict": "improved"}) for t in report.tasks if not t.components]
    several = report.model_copy(update={"tasks": (*report.tasks[:5], *without)})
    assert "cut at different places" in " ".join(_printed(several, 120).split())


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
