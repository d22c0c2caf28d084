"""The report's files: each is written whole beside its name and then put in its place."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from diffharness.report.files import put, to_json
from diffharness.report.schema import Report

FORMATS = ("html", "md", "json", "csv", "parquet", "model-card", "eee")
README_PICTURES = 3
"""Figures that also become PNG files: the heat map and the first waterfalls."""


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write `report.json`, `report.md`, `report.html` and `figures/` into a folder, and return the paths.

    Raises OSError where the folder can not be written.
    """
    return write_formats(report, folder, ("json", "md", "html"))


def write_formats(report: Report, folder: Path, formats: Collection[str], run: Path | None = None) -> list[Path]:
    """Write a report in some of `FORMATS` into a folder, and return the paths; all are made before any is written.

    Args:
        report: what is written.
        folder: where to; made if it is not there.
        formats: `html`; `md` with `figures/`; `json`; `csv` and `parquet`: `tables/`; `model-card`: `model-card.md`;
            `eee`: `every_eval_ever/`, the scores in the format of Every Eval Ever.
        run: the run's folder, where more than the report is asked for: documents, settings of tasks.

    Raises:
        RunError: the run's evaluation is damaged.
        OSError: the folder can not be written.
    """
    contents: dict[str, bytes] = {}
    if "json" in formats:
        contents["report.json"] = to_json(report).encode()
    if "md" in formats or "html" in formats:
        contents.update(_pages(report, formats))
    contents.update(_tables(report, formats))
    if "model-card" in formats:
        from diffharness.report.model_card import render_model_card

        contents["model-card.md"] = render_model_card(report, run).encode()
    if "eee" in formats:
        from diffharness.report.every_eval_ever import every_eval_ever

        made = every_eval_ever(report, run, now=time.time())
        contents.update({f"every_eval_ever/{name}": content for name, content in made.items()})
    for parent in sorted({(folder / name).parent for name in contents}):
        parent.mkdir(parents=True, exist_ok=True)
    paths = [put(folder / name, content) for name, content in contents.items()]
    if "md" in formats:
        _remove_old_figures(folder / "figures", {path.name for path in paths})
    return paths


def _pages(report: Report, formats: Collection[str]) -> dict[str, bytes]:
    """The Markdown with its figures, and the page."""
    from diffharness.report.charts import figures, standalone, to_png
    from diffharness.report.html import render_html
    from diffharness.report.markdown import render_markdown

    drawn = figures(report)
    contents: dict[str, bytes] = {}
    if "md" in formats:
        pictures = [(f"figures/{figure.name}.svg", figure.alt, figure.task) for figure in drawn]
        contents["report.md"] = render_markdown(report, pictures).encode()
        for position, figure in enumerate(drawn):
            contents[f"figures/{figure.name}.svg"] = standalone(figure).encode()
            if position < README_PICTURES:
                contents[f"figures/{figure.name}.png"] = to_png(figure)
    if "html" in formats:
        contents["report.html"] = render_html(report, drawn).encode()
    return contents


def _tables(report: Report, formats: Collection[str]) -> dict[str, bytes]:
    from diffharness.report.tables import WRITERS, tables

    wanted = [ending for ending in WRITERS if ending in formats]
    made = tables(report) if wanted else {}
    return {f"tables/{name}.{ending}": WRITERS[ending](made[name]) for name in made for ending in wanted}


def _remove_old_figures(folder: Path, kept: set[str]) -> None:
    """Remove the figures of an earlier run of other tasks; files of other names are left alone."""
    for pattern in ("account-*.svg", "account-*.png", "heatmap.svg", "heatmap.png", "depth.svg", "depth.png"):
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink()
