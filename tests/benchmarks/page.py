"""Opens large made-up reports in a real browser: bytes, time to open, scroll frames, time to answer a search.

    python -m tests.benchmarks.page --json reports/benchmarks/page.json

Needs Chromium (Debian: apt install chromium). The limits are on the size that is promised and on the opening of the
larger one; a machine that does other work at the same time misses the latter.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from playwright.sync_api import Browser, Page, expect

from tests.benchmarks.record import Bound, write_record
from tests.browser.large import LIMIT_BYTES, LIMIT_LATENTS, LIMIT_TASKS, MANY_LATENTS, MANY_TASKS, large_page
from tests.browser.watch import browsing, watching

_MOST_SECONDS = 2.0
_SCROLLED = """steps => new Promise(done => {
    const frames = [], reach = document.documentElement.scrollHeight - innerHeight;
    let step = 0, last = null;
    const frame = now => {
        if (last !== null) frames.push(now - last);
        last = now;
        if (step > steps) return done(frames);
        scrollTo({top: reach * step++ / steps, behavior: "instant"});
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""
"""Milliseconds between frames while the page is scrolled from top to bottom in even steps."""
_OPENED = """() => {
    const [opened] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return {
        interactive_ms: opened.domContentLoadedEventEnd, load_ms: opened.loadEventEnd,
        paint_ms: paint?.startTime ?? null, n_elements: document.querySelectorAll("*").length,
    };
}"""


def _searched_ms(page: Page, n_latents: int) -> float:
    """From the last key to the count of the latents found, its short wait for further keys included."""
    tools = page.get_by_role("search", name="Filter the latents")
    began = time.perf_counter()
    tools.get_by_role("searchbox").fill("no such text anywhere")
    expect(tools.get_by_role("status")).to_have_text(f"0 of {n_latents} latents")
    return 1000 * (time.perf_counter() - began)


def _measure(browser: Browser, file: Path, n_latents: int, repeats: int) -> dict[str, Any]:
    """Medians over several openings of one page."""
    rows = []
    for _ in range(repeats):
        with watching(browser, file) as watched:
            watched.page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
            row = watched.page.evaluate(_OPENED)
            frames = watched.page.evaluate(_SCROLLED, 120)
            row["frame_ms"], row["slow_frame_ms"] = float(np.median(frames)), float(np.percentile(frames, 95))
            row["search_ms"] = _searched_ms(watched.page, n_latents)
            rows.append(row)
    return {
        "bytes": file.stat().st_size,
        **{name: float(np.median([row[name] for row in rows if row[name] is not None])) for name in rows[0]},
    }


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the figures are written.")
@click.option("--repeats", default=5, show_default=True, help="Openings of each page.")
def main(file: Path, repeats: int) -> None:
    """Measure pages of two sizes."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        for n_tasks, n_latents in ((LIMIT_TASKS, LIMIT_LATENTS), (MANY_TASKS, MANY_LATENTS)):
            name = f"{n_tasks} tasks, {n_latents} latents"
            page = Path(folder) / f"{n_tasks}.html"
            began = time.perf_counter()
            page.write_text(large_page(n_tasks, n_latents), encoding="utf-8")
            made_s = time.perf_counter() - began
            figures[name] = {"made_s": made_s, **_measure(browser, page, n_latents, repeats)}
            click.echo(f"{name}: {figures[name]}")
    limit, many = figures.values()
    bounds = [
        Bound(f"bytes of {LIMIT_TASKS} tasks, {LIMIT_LATENTS} latents", limit["bytes"], f"<= {LIMIT_BYTES}"),
        Bound(
            f"seconds to open {MANY_TASKS} tasks, {MANY_LATENTS} latents", many["load_ms"] / 1000, f"<= {_MOST_SECONDS}"
        ),
    ]
    write_record(file, figures, bounds, seeds=[0])


if __name__ == "__main__":
    main()
