"""The report without a mouse: Tab reaches what can be used, in order, visibly; keys open what is folded."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.watch import watching

FOCUSED = """() => {
    const at = document.activeElement, style = getComputedStyle(at);
    return {
        tag: at.localName,
        name: at.getAttribute("aria-label") || at.labels?.[0]?.textContent.trim() || at.textContent.trim(),
        outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    };
}"""
MOST_STOPS = 900


@pytest.fixture
def watched(browser, page_file):
    with watching(browser, page_file("short")) as opened:
        yield opened
        assert opened.complaints == []


def test_tab_reaches_everything_and_what_has_the_focus_is_outlined(watched):
    page = watched.page
    stops = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop["tag"] == "body":
            break
        stops.append(stop)
    assert stops[0]["name"] == "Skip to the scores"
    assert [stop for stop in stops if not stop["outlined"]] == []
    tags = {stop["tag"] for stop in stops}
    assert {"a", "button", "input", "select", "summary"} <= tags
    names = " | ".join(stop["name"] for stop in stops if stop["tag"] in ("summary", "button"))
    for wanted in ("task", "gap", "Clear", "Latent ", "Every comparison", "Document "):
        assert wanted in names, wanted
    usable = page.locator("button:visible, input:visible, select:visible, summary:visible").count()
    assert sum(stop["tag"] in ("button", "input", "select", "summary") for stop in stops) == usable


def test_the_skip_link_jumps_over_the_contents(watched):
    page = watched.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the scores")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Did the scores change?")).to_be_in_viewport()
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('scores').contains(document.activeElement)")


@pytest.mark.parametrize("hand", ["mouse", "Enter", "Space"])
def test_documents_open_by_mouse_and_by_keyboard(watched, hand):
    page = watched.page
    fold = page.locator("details.task[open] details.flipped").first
    summary = fold.locator("summary").first
    assert fold.get_attribute("open") is None
    if hand == "mouse":
        summary.click()
    else:
        summary.focus()
        page.keyboard.press(hand)
    expect(fold).to_have_attribute("open", "")
    for words in ("prompt", "baseline", "candidate"):
        expect(fold.get_by_text(words, exact=True).first).to_be_visible()


def test_a_link_to_a_folded_task_opens_it(watched):
    page = watched.page
    folded = page.locator("details.task:not([open])").first
    identity = folded.get_attribute("id")
    page.get_by_role("region", name="Scores by task").locator(f"a[href='#{identity}']").click()
    expect(page.locator(f"#{identity}")).to_have_attribute("open", "")
    expect(page.locator(f"#{identity} > summary")).to_be_in_viewport()
