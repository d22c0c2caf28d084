"""The latents of the page: searched, filtered, opened by mouse and by keyboard."""

from __future__ import annotations

import itertools

import pytest
from playwright.sync_api import Locator, Page, expect

from diffharness.report import cards
from diffharness.report.schema import Latent
from tests.browser.conftest import kept_report
from tests.browser.watch import watching


@pytest.fixture(scope="module")
def latents() -> tuple[Latent, ...]:
    return tuple(cards.carded(kept_report()))


@pytest.fixture
def page(browser, page_file):
    with watching(browser, page_file("kept")) as watched:
        yield watched.page
        assert watched.complaints == []


def _tools(page: Page) -> Locator:
    return page.get_by_role("search", name="Filter the latents")


def _says(page: Page, n: int, of: int) -> None:
    expect(_tools(page).get_by_role("status")).to_have_text(f"{n} of {of} latents")


def _shown(page: Page) -> list[int]:
    return [int(text.removeprefix("Latent ")) for text in page.locator("details.latent h3").all_text_contents()]


def _card(page: Page, index: int) -> Locator:
    return page.locator("details.latent").filter(has=page.get_by_role("heading", name=f"Latent {index}", exact=True))


def test_status_and_category_leave_the_latents_that_have_them(page, latents):
    _says(page, len(latents), len(latents))
    wanted = latents[0]
    _tools(page).get_by_label("Category").select_option(wanted.category)
    named = [latent.index for latent in latents if latent.category == wanted.category]
    _says(page, len(named), len(latents))
    assert set(_shown(page)) <= set(named)
    _tools(page).get_by_label("Status").select_option(wanted.status)
    both = [latent.index for latent in latents if (latent.category, latent.status) == (wanted.category, wanted.status)]
    _says(page, len(both), len(latents))
    assert wanted.index in _shown(page)
    _tools(page).get_by_role("button", name="Clear").click()
    _says(page, len(latents), len(latents))


def test_a_task_leaves_its_latents_the_largest_first(page, latents):
    task = max(latents[0].contributions, key=lambda name: abs(latents[0].contributions[name]))
    _tools(page).get_by_label("Task").select_option(label=task)
    expect(_tools(page).get_by_role("status")).not_to_have_text(f"{len(latents)} of {len(latents)} latents")
    by_index = {latent.index: abs(latent.contributions.get(task, 0.0)) for latent in latents}
    sizes = [by_index[index] for index in _shown(page)]
    assert sizes[0] == max(by_index.values())
    assert all(before >= after - 1e-3 for before, after in itertools.pairwise(sizes))


def test_search_finds_a_token_of_a_text_and_nothing_where_there_is_none(page, latents):
    search = _tools(page).get_by_role("searchbox")
    search.fill(f"latent {latents[-1].index}")
    expect(_card(page, latents[-1].index)).to_be_visible()
    search.fill("<script>no such token</script>")
    _says(page, 0, len(latents))
    assert _shown(page) == []


@pytest.mark.parametrize("hand", ["mouse", "Enter", "Space"])
def test_a_card_opens_by_mouse_and_by_keyboard_and_is_built_then(page, latents, hand):
    latent = [latent for latent in latents if latent.examples][-1]
    _tools(page).get_by_role("searchbox").fill(f"latent {latent.index}")
    card = _card(page, latent.index)
    expect(card).to_be_visible()
    assert card.get_attribute("open") is None
    summary = card.locator("summary")
    if hand == "mouse":
        summary.click()
    else:
        summary.focus()
        page.keyboard.press(hand)
    expect(card).to_have_attribute("open", "")
    expect(card.get_by_text("mean activation").first).to_be_visible()
    expect(card.get_by_role("button", name=f"Copy latent {latent.index} as JSON")).to_be_visible()
    expect(card.locator("ol.examples").first).to_be_visible()


def test_a_link_to_a_latent_opens_it_where_filters_hid_it(page, latents):
    last = latents[-1].index
    _tools(page).get_by_role("searchbox").fill("<none>")
    _says(page, 0, len(latents))
    page.evaluate("index => { location.hash = `latent-${index}`; }", last)
    expect(_card(page, last)).to_have_attribute("open", "")
    expect(_card(page, last).locator("summary")).to_be_in_viewport()
