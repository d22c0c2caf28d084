"""Large made-up reports: the example's tasks and latents told again, under other names, as often as asked for."""

from __future__ import annotations

from diffharness.report.html import render_html
from diffharness.report.schema import Report
from tests.report.example import example_report

LIMIT_TASKS, LIMIT_LATENTS = 30, 500
"""The size for which a page is promised to stay under `LIMIT_BYTES`."""
LIMIT_BYTES = 5_000_000
MANY_TASKS, MANY_LATENTS = 100, 2_000
"""The size at which a page must still open and scroll."""


def large_report(n_tasks: int, n_latents: int) -> Report:
    """A report of that many tasks, each with its account, and that many latents, each with its texts."""
    report = example_report(n_tasks=n_tasks, n_latents=n_latents)
    assert len({task.task for task in report.tasks}) == n_tasks
    assert len({latent.index for latent in report.latents}) == n_latents
    return report


def large_page(n_tasks: int, n_latents: int, *, is_drawn: bool = True) -> str:
    """Its page, with its figures unless they are not worth the wait."""
    return render_html(large_report(n_tasks, n_latents), None if is_drawn else ())
