"""About a screen: the verdict first, then why, what is a cause and what it rests on; nothing against it is cut."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from diffharness.report.numbers import interval, plain, signed
from diffharness.report.schema import Report, Task
from diffharness.report.terminal_summary import print_summary
from diffharness.report.terminal_why import part_words
from diffharness.report.view import by_severity, is_real
from tests.report.example import example_report, stale_report


def screen(report: Report, width: int, *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    print_summary(report, console, Path("reports/demo"))
    return out.getvalue()


@pytest.mark.parametrize(("width", "most"), [(80, 46), (120, 44)])
def test_it_is_about_a_screen_and_no_line_is_too_long(report: Report, width: int, most: int) -> None:
    lines = screen(report, width).splitlines()
    assert len(lines) <= most
    assert all(len(line.rstrip()) <= width for line in lines)
    many = screen(example_report(n_tasks=100, n_latents=500), width).splitlines()
    assert len(many) <= most + 3


@pytest.mark.parametrize("width", [80, 120])
def test_the_verdict_comes_first_and_the_files_last(report: Report, width: int) -> None:
    page = " ".join(screen(report, width).split())
    told = ("6 of 10 tasks", "verdict", "Why", "Does it beat chance?", "What changed inside", "Can it be trusted")
    places = [page.index(words) for words in (*told, "report.html", "diffharness report reports/demo --full")]
    assert places == sorted(places)
    assert page.startswith("6 of 10 tasks changed")


@pytest.mark.parametrize("width", [80, 120])
def test_no_score_is_cut(report: Report, width: int) -> None:
    page = screen(report, width)
    for task in report.tasks:
        for number in (plain(task.baseline), plain(task.candidate), signed(task.gap), interval(task.interval)):
            assert number in page


def test_tasks_that_do_not_fit_are_counted() -> None:
    report = example_report(n_tasks=40)
    n = sum(task.verdict in ("improved", "regressed") for task in report.tasks)
    page = screen(report, 100)
    assert "rows in the report only: 28 of other tasks" in page
    assert f"… and {n - 4} more tasks with a gap, in the report" in page


def test_only_what_beats_chance_is_named_as_such(report: Report) -> None:
    said = " ".join(screen(report, 120).split())
    assert "Does it beat chance? 3 of 7 contributions do: " in said
    none = report.model_copy(
        update={"claims": tuple(claim.model_copy(update={"is_causal": False}) for claim in report.claims)}
    )
    assert "0 of 7 contributions do, so nothing is worded as a cause" in " ".join(screen(none, 120).split())
    assert "beat chance" not in screen(report.model_copy(update={"claims": ()}), 120)


def test_what_speaks_against_it_is_told_in_full() -> None:
    report = stale_report()
    broken = tuple(check.model_copy(update={"holds": False}) for check in report.validation.replay)
    other = report.comparability.model_copy(update={"documents_equal": False})
    validation = report.validation.model_copy(update={"replay": broken})
    page = " ".join(screen(report.model_copy(update={"validation": validation, "comparability": other}), 80).split())
    assert "less than 60 %" in page
    assert "did not answer the same documents" in page
    assert f"replay agrees with lm-eval in 0 of {len(broken)}" in page


def test_a_withheld_mechanism_is_not_told(report: Report) -> None:
    validation = report.validation.model_copy(update={"mechanism_withheld": "the replay does not hold"})
    page = screen(report.model_copy(update={"validation": validation}), 100)
    assert "Withheld: the replay does not hold" in page
    for words in ("check", "What changed inside", "have a name", "beat chance"):
        assert words not in page


def test_a_run_without_a_gap_or_an_account_says_so(report: Report) -> None:
    still = tuple(task.model_copy(update={"verdict": "no change"}) for task in report.tasks)
    assert "There is no gap to explain." in screen(report.model_copy(update={"tasks": still, "claims": ()}), 100)
    bare = tuple(
        task.model_copy(update={"components": (), "surrogate": None, "account_reason": "cut at different places"})
        for task in report.tasks
    )
    assert "There is no account of this task: cut at" in screen(report.model_copy(update={"tasks": bare}), 120)


def test_what_explains_a_gap_goes_its_way_and_the_rest_holds_it_back(report: Report) -> None:
    """The largest part of a loss may be a gain: it is not what explains it."""

    def of(task: Task, *values: float) -> Task:
        assert task.surrogate is not None
        kinds = {"safety": "latents", "facts": "latents", "prior": "prior"}
        rows = tuple(
            task.components[0].model_copy(
                update={"kind": kind, "category": None if kind == "prior" else name, "origin": None, "contribution": v}
            )
            for (name, kind), v in zip(kinds.items(), values, strict=True)
        )
        tracked = task.surrogate.model_copy(update={"gap": sum(values), "tracks": True, "tracks_reason": None})
        return task.model_copy(update={"components": rows, "surrogate": tracked})

    real = [task for task in by_severity(report.tasks) if is_real(task) and task.is_primary and task.surrogate]
    lost, gained = of(real[1], 0.30, -0.22, -0.19), of(real[2], -0.5, 0.03, 0.9)
    tasks = tuple({t.task: t for t in (*report.tasks, lost, gained)}.values())
    page = screen(report.model_copy(update={"tasks": tasks}), 120)
    assert "of −0.110: facts −0.220, prior −0.190; held back by safety +0.300" in page
    assert "of +0.430: prior +0.900; held back by safety −0.500" in page
    narrow = screen(report.model_copy(update={"tasks": tasks}), 80)
    assert "of −0.110: facts −0.220 and 2 more" in narrow
    assert part_words(of(lost, -0.3, 0.9, -0.8), 2) == "prior −0.800; held back by facts +0.900 and 1 more"
    assert part_words(of(lost, -0.02, 0.5, -0.03), 3) == "facts +0.500"


@pytest.mark.parametrize("width", [80, 200])
def test_hostile_strings_move_no_cursor_and_obey_no_markup(hostile: Report, width: int) -> None:
    page = screen(hostile, width)
    assert not set(page) & set("\x1b\x07\u202e\r")
    assert "\x1b[31m" not in screen(hostile, width, colour=True)
    assert "[bold]rich[/bold]" in screen(hostile, 200)
