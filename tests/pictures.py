"""Makes `reports/example`: the demo's report and the README's picture of it. Needs Chromium (`apt install chromium`).

make demo && make pictures
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
DEMO, EXAMPLE = ROOT / "reports" / "demo", ROOT / "reports" / "example"
KEPT = ("report.html", "report.md", "report.json", "run.yaml", "figures")
SIZE = (1180, 1560)
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


def photograph(browser: str, page: Path, picture: Path) -> None:
    """A screenshot of the top of a page."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--screenshot={picture}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    """Copy and photograph."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium found; install it (Debian: apt install chromium)")
    if not (DEMO / "report.html").is_file():
        sys.exit("no demo report; run `make demo` first")
    copy_example()
    photograph(browser, EXAMPLE / "report.html", EXAMPLE / "report.png")
    click.echo(f"wrote {EXAMPLE}")


if __name__ == "__main__":
    main()
