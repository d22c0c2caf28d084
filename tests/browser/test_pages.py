"""Every page in a real browser: quiet, alone, closed to foreign code, readable, and hostile strings are only text."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.browser.watch import axe_findings, watching
from tests.report.example import HOSTILE

ALL = ("kept", "hostile", "matrix", "hostile matrix", "comparison")
PAPER = 718
"""A4 between Chromium's own margins, in CSS pixels."""
MOST_SHRUNK = 1.5
"""Chromium makes what is wider than its paper smaller, to no less than two thirds; then it cuts."""
LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]

NAMES = "[...document.querySelectorAll('*')].filter(e => !e.closest('svg')).map(e => e.localName)"
"""Elements of a page, but what charts are drawn with."""
INJECTED = """<script>window.acted = "script"</script><img src="x" onerror="window.acted = 'handler'">
<a id="run" href="javascript:window.acted = 'link'">go</a><iframe src="data:text/html,frame"></iframe>
<link rel="stylesheet" href="http://127.0.0.1:9/style.css"><style>body { display: none }</style>
<form action="http://127.0.0.1:9/form"><button id="send">send</button></form></main>"""


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_quiet_and_asks_for_nothing(browser, page_file, name):
    with watching(browser, page_file(name)) as watched:
        watched.open_all()
        watched.page.mouse.wheel(0, 100_000)
        watched.page.wait_for_function("scrollY > 0")
        assert watched.page.locator("h1").count() == 1
        assert watched.requests == [watched.address]
        assert (watched.complaints, watched.dialogs) == ([], [])


@pytest.mark.parametrize(("name", "harmless"), [("hostile", "plain"), ("hostile matrix", "matrix")])
def test_hostile_strings_are_text_in_the_document(browser, page_file, name, harmless):
    with watching(browser, page_file(harmless)) as watched:
        watched.open_all()
        known = set(watched.page.evaluate(NAMES))
    with watching(browser, page_file(name)) as watched:
        page = watched.page
        watched.open_all()
        assert set(page.evaluate(NAMES)) <= known | {"noscript", "q"}
        assert page.locator("script:not([type='application/json'])").count() == (name == "hostile")
        assert page.locator("script[src], img, iframe, object, embed, base, form, link, svg a, svg script").count() == 0
        attributes = page.evaluate("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
        assert not [found for found in attributes if found.startswith("on") or found in ("src", "srcdoc", "formaction")]
        links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
        # The matrix leads to the reports beside it, by a path without a scheme.
        assert not [link for link in links if re.match(r"\s*[a-z]+:|//", link, re.IGNORECASE)]
        text = page.locator("main").text_content() or ""
        for hostile in HOSTILE:
            shown = hostile.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
            assert shown in text
        assert watched.dialogs == []


@pytest.mark.parametrize("name", ["kept", "matrix"])
def test_the_policy_stops_code_and_style_that_got_into_the_page(browser, page_file, tmp_path, name):
    before, end, after = page_file(name).read_text(encoding="utf-8").rpartition("</main>")
    assert end
    file = tmp_path / "injected.html"
    file.write_text(before + INJECTED + after, encoding="utf-8")
    with watching(browser, file) as watched:
        page = watched.page
        assert page.locator("h1").is_visible()
        page.locator("#run").evaluate("link => link.click()")
        page.locator("#send").evaluate("button => button.click()")
        page.evaluate("""() => {
            const added = document.createElement("script");
            added.textContent = "window.acted = 'added'";
            document.body.append(added);
        }""")
        refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
        page.wait_for_timeout(200)
        assert refused == "refused"
        assert page.evaluate("window.acted") is None
        assert page.url == watched.address
        assert set(watched.strayed) <= set(watched.refused)
        # Its own code, allowed by its hash, still runs.
        assert (page.get_by_role("button", name="gap").count() > 0) == (name == "kept")
        blocked = [said for said in watched.complaints if "Content Security Policy" in said]
        for directive in ("script", "style", "img-src", "form-action", "connect"):
            assert any(directive in said for said in blocked), directive


@pytest.mark.parametrize(("scheme", "width", "name"), [
    ("light", 1280, "short"), ("dark", 390, "short"), ("dark", 1280, "hostile"), ("light", 390, "hostile"),
    ("light", 1280, "matrix"), ("dark", 390, "matrix"), ("light", 1280, "comparison"), ("dark", 390, "comparison"),
])  # fmt: skip
def test_axe_finds_nothing_serious(browser, page_file, name, scheme, width):
    with watching(browser, page_file(name), scheme=scheme, width=width) as watched:
        watched.open_all()
        assert axe_findings(watched.page) == []


@pytest.mark.parametrize("name", ["kept", "hostile", "matrix", "comparison"])
def test_headings_are_in_order(browser, page_file, name):
    with watching(browser, page_file(name)) as watched:
        watched.open_all()
        levels = watched.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.localName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", ["kept", "hostile", "matrix", "comparison"])
def test_a_phone_does_not_scroll_sideways(browser, page_file, name):
    with watching(browser, page_file(name), width=390) as watched:
        watched.open_all()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["kept", "matrix", "comparison"])
def test_paper_cuts_nothing_and_is_white(browser, page_file, name):
    with watching(browser, page_file(name), scheme="dark", width=PAPER) as watched:
        page = watched.page
        page.emulate_media(media="print", color_scheme="dark")
        watched.open_all()
        assert page.evaluate("document.documentElement.scrollWidth") <= MOST_SHRUNK * PAPER
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_names_of_tasks_break_behind_their_underlines_only(browser, page_file):
    """Where a name is cut within a word, a reader takes it for two."""
    with watching(browser, page_file("comparison"), width=390) as watched:
        assert watched.page.locator("#scores tbody th wbr").count() > 0
        assert watched.page.locator("#differences td.evidence wbr").count() > 0


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_pictures_are_kept(browser, page_file, pictures, scheme, width):
    with watching(browser, page_file("kept"), scheme=scheme, width=width) as watched:
        for section in ("scores", "why", "latents"):
            watched.page.evaluate("id => document.getElementById(id).scrollIntoView()", section)
            picture = pictures / f"report-{section}-{scheme}-{width}.png"
            watched.page.screenshot(path=picture)
            assert picture.read_bytes().startswith(b"\x89PNG")
