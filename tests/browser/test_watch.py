"""What watches the pages sees what is planted, so that its silence means something."""

from __future__ import annotations

import shutil

import pytest

from tests.browser.watch import axe_findings, browsing, watching

BAD = """<!doctype html><html lang="en"><head><title>bad</title></head><body><main><h1>Bad</h1>
<p style="color:#bbb;background:#fff">too pale</p><button></button>
<script>console.error("planted"); alert("planted dialog"); fetch("http://127.0.0.1:9/planted").catch(() => {});</script>
</main></body></html>"""


def test_a_bad_page_is_found_out(browser, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text(BAD, encoding="utf-8")
    with watching(browser, file) as watched:
        found = axe_findings(watched.page)
    assert any("color-contrast" in line for line in found)
    assert any("button-name" in line for line in found)
    assert "planted" in watched.complaints
    assert watched.dialogs == ["planted dialog"]
    assert watched.strayed == ["http://127.0.0.1:9/planted"]


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_no_browser_fails_in_ci_and_skips_elsewhere(monkeypatch, ci, outcome):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="install it"), browsing():
        pass
