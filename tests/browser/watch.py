"""A real browser and what it tells of a page: console, requests, dialogs, axe-core's findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import axe_playwright_python
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.needed import program
from tests.pictures import BROWSERS

PATIENCE_MS = 120_000
"""A machine that runs the whole suite is slow; nothing here is asserted of times."""
expect.set_options(timeout=PATIENCE_MS / 2)
PICTURES = "DIFFHARNESS_PICTURES"
"""The variable that names the folder in which pictures of the pages are kept."""
_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


@dataclass
class Watched:
    """An open page, and what it said and asked for since before it was loaded."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, and errors that nothing caught."""
    requests: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Requests that the page's own policy stopped before they left."""
    dialogs: list[str] = field(default_factory=list)

    @property
    def strayed(self) -> list[str]:
        """Requests for anything but the page itself and pictures that it carries."""
        return [url for url in self.requests if url.split("#")[0] != self.address and not url.startswith("data:")]

    def open_all(self, selector: str = "details") -> None:
        """Open every fold that fits the selector, and wait until what is built on opening is there."""
        self.page.evaluate(
            """selector => {
                document.querySelectorAll(selector).forEach(fold => { fold.open = true; });
                return new Promise(done => setTimeout(done, 50));
            }""",
            selector,
        )


@contextmanager
def browsing() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    found = program("Chromium", "chromium", *BROWSERS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def watching(
    browser: Browser, file: Path, *, scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900
) -> Iterator[Watched]:
    """The file opened from disk in a window of its own, without animations and without a network."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce", offline=True
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    watched = Watched(page, file.resolve().as_uri())

    def dismiss(dialog: Any) -> None:
        watched.dialogs.append(dialog.message)
        dialog.dismiss()

    def refuse(request: Any) -> None:
        if request.failure == "csp":
            watched.refused.append(request.url)

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            watched.complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("requestfailed", refuse)
    page.on("dialog", dismiss)
    page.goto(watched.address)
    yield watched
    context.close()


_ALL_LAID_OUT = """() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("* { content-visibility: visible !important }");
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}"""
"""What is only laid out in view moves under axe-core, which then takes one element's background for another's."""


def axe_findings(page: Page, impacts: tuple[str, ...] = ("serious", "critical")) -> list[str]:
    """What axe-core finds wrong with what is unfolded, one line an element; the worst of its ranks unless said."""
    page.evaluate(_ALL_LAID_OUT)
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        if rule["impact"] in impacts
        for node in rule["nodes"]
    ]
