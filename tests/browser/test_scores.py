"""The table of scores: sorted by every column and filtered, by mouse and by keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from diffharness.report import view
from diffharness.report.schema import Report
from tests.browser.conftest import kept_report
from tests.browser.watch import watching


@pytest.fixture(scope="module")
def report() -> Report:
    return kept_report()


@pytest.fixture
def page(browser, page_file):
    with watching(browser, page_file("short")) as watched:
        yield watched.page
        assert watched.complaints == []


def _table(page: Page) -> Locator:
    return page.get_by_role("region", name="Scores by task").get_by_role("table")


def _names(page: Page) -> list[str]:
    shown = _table(page).locator("tbody tr:visible > th bdi").all_text_contents()
    return [name.replace("\u200b", "") for name in shown]


def _head(page: Page, name: str) -> Locator:
    return _table(page).get_by_role("columnheader", name=name, exact=True)


def _button(page: Page, name: str) -> Locator:
    return _head(page, name).get_by_role("button")


def test_a_click_sorts_by_gap_another_turns_it_round_and_a_third_brings_the_order_back(page, report):
    rows = view.by_severity(report.tasks)
    written = [task.task for task in rows]
    assert _names(page) == written
    rising = [task.task for task in sorted(rows, key=lambda task: task.gap)]
    falling = [task.task for task in sorted(rows, key=lambda task: -task.gap)]
    _button(page, "gap").click()
    expect(_head(page, "gap")).to_have_attribute("aria-sort", "descending")
    assert _names(page) == falling
    _button(page, "gap").click()
    expect(_head(page, "gap")).to_have_attribute("aria-sort", "ascending")
    assert _names(page) == rising
    _button(page, "gap").click()
    assert _head(page, "gap").get_attribute("aria-sort") is None
    assert _names(page) == written


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_sorts_too_and_one_column_at_a_time(page, report, key):
    _button(page, "task").focus()
    page.keyboard.press(key)
    assert _names(page) == sorted(task.task for task in report.tasks)
    _button(page, "candidate").focus()
    page.keyboard.press(key)
    by_name = sorted(view.by_severity(report.tasks), key=lambda task: task.task)
    rows = (by_name, view.by_severity(report.tasks))  # what is alike stays as it was, or as it was written
    assert _names(page) in [[t.task for t in sorted(before, key=lambda t: -t.candidate)] for before in rows]
    assert _head(page, "task").get_attribute("aria-sort") is None


def test_words_filter_the_rows_and_the_count_says_so(page, report):
    tools = page.get_by_role("search", name="Filter the scores")
    wanted = report.tasks[0].task
    tools.get_by_role("searchbox").fill(wanted.upper())
    expected = [task.task for task in view.by_severity(report.tasks) if wanted in task.task]
    expect(tools.get_by_role("status")).to_have_text(f"{len(expected)} of {len(report.tasks)} rows")
    assert _names(page) == expected
    tools.get_by_role("searchbox").fill("no such task")
    expect(tools.get_by_role("status")).to_have_text(f"0 of {len(report.tasks)} rows")
    assert _names(page) == []


def test_a_verdict_filters_the_rows_and_sorting_keeps_the_filter(page, report):
    tools = page.get_by_role("search", name="Filter the scores")
    verdict = report.tasks[0].verdict
    tools.get_by_role("combobox").select_option(verdict)
    scores = {task.task: task.baseline for task in report.tasks if task.verdict == verdict}
    expect(tools.get_by_role("status")).to_have_text(f"{len(scores)} of {len(report.tasks)} rows")
    _button(page, "baseline").click()
    assert [scores[name] for name in _names(page)] == sorted(scores.values(), reverse=True)
