"""Large reports: pages within their size, that open, scroll and answer. Times are the benchmark's, not asserted."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.large import LIMIT_BYTES, LIMIT_LATENTS, LIMIT_TASKS, MANY_LATENTS, MANY_TASKS
from tests.browser.watch import watching


@pytest.mark.parametrize(
    ("name", "n_tasks", "n_latents"), [("limit", LIMIT_TASKS, LIMIT_LATENTS), ("many", MANY_TASKS, MANY_LATENTS)]
)
def test_a_large_page_is_within_its_size_opens_and_answers(browser, page_file, name, n_tasks, n_latents):
    file = page_file(name)
    assert file.stat().st_size < LIMIT_BYTES
    with watching(browser, file) as watched:
        page = watched.page
        scores = page.get_by_role("search", name="Filter the scores")
        expect(scores.get_by_role("status")).to_have_text(f"{n_tasks} of {n_tasks} rows")
        scores.get_by_role("searchbox").fill("organism_safety_multilingual")
        expect(scores.get_by_role("status")).to_have_text(f"{n_tasks // 10} of {n_tasks} rows")
        latents = page.get_by_role("search", name="Filter the latents")
        last = 3 + 8 * (n_latents - 1)
        latents.get_by_role("searchbox").fill(f"latent {last}")
        card = page.locator(f"#latent-{last}")
        card.locator("summary").click()
        expect(card).to_have_attribute("open", "")
        assert watched.complaints == []
        assert watched.requests == [watched.address]
