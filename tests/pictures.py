"""Makes `reports/example`: the demo's report and the README's pictures of it. Needs Chromium (`apt install chromium`).

make demo && make pictures
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DEMO, EXAMPLE = ROOT / "reports" / "demo", ROOT / "reports" / "example"
KEPT = ("report.html", "report.md", "report.json", "run.yaml", "figures")
WIDTH, HEIGHT = 1180, 1560
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def copy_example() -> None:
    """Replace the kept example by the demo's report: SVG figures only, and no paths of the machine it was made on."""
    shutil.rmtree(EXAMPLE, ignore_errors=True)
    EXAMPLE.mkdir(parents=True)
    for name in KEPT:
        source = DEMO / name
        if source.is_dir():
            shutil.copytree(source, EXAMPLE / name, ignore=shutil.ignore_patterns("*.png"))
        else:
            text = source.read_text(encoding="utf-8").replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
            (EXAMPLE / name).write_text(text, encoding="utf-8")


def photograph(browser: str, report: Path, folder: Path) -> None:
    """The top of a report, the account of its first task, and that task's first document that flipped."""
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser).new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1
        )
        page.goto(report.resolve().as_uri())
        page.screenshot(path=folder / "report.png")
        task = "details.task:has(.flipped)"
        _show(page, task)
        page.screenshot(path=folder / "account.png", clip={"x": 0, "y": 46, "width": WIDTH, "height": 860})
        _show(page, f"{task} .flipped")
        page.screenshot(path=folder / "document.png", clip={"x": 0, "y": 46, "width": WIDTH, "height": 790})


def _show(page: Page, selector: str) -> None:
    """Open the first element that fits, with all folds that it lies in, and bring it to the top."""
    page.locator(selector).first.evaluate(
        """element => {
            for (let fold = element; fold; fold = fold.parentElement.closest("details")) fold.open = true;
            element.scrollIntoView();
            return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )


def main() -> None:
    """Copy and photograph."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium found; install it (Debian: apt install chromium)")
    if not (DEMO / "report.html").is_file():
        sys.exit("no demo report; run `make demo` first")
    copy_example()
    photograph(browser, EXAMPLE / "report.html", EXAMPLE)
    click.echo(f"wrote {EXAMPLE}")


if __name__ == "__main__":
    main()
