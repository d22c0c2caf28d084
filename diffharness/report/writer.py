"""The report's files: each is written whole beside its name and then put in its place."""

from __future__ import annotations

from pathlib import Path

from diffharness.report.files import put, to_json
from diffharness.report.schema import Report

README_PICTURES = 3
"""Figures that also become PNG files: the heat map and the first waterfalls."""


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write `report.json`, `report.md`, `report.html` and `figures/` into a folder, and return the paths.

    Raises OSError where the folder can not be written.
    """
    from diffharness.report.charts import figures, standalone, to_png
    from diffharness.report.html import render_html
    from diffharness.report.markdown import render_markdown

    drawn = figures(report)
    pictures = [(f"figures/{figure.name}.svg", figure.alt, figure.task) for figure in drawn]
    contents: dict[str, bytes] = {
        "report.json": to_json(report).encode(),
        "report.md": render_markdown(report, pictures).encode(),
        "report.html": render_html(report, drawn).encode(),
    }
    for position, figure in enumerate(drawn):
        contents[f"figures/{figure.name}.svg"] = standalone(figure).encode()
        if position < README_PICTURES:
            contents[f"figures/{figure.name}.png"] = to_png(figure)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    paths = [put(folder / name, content) for name, content in contents.items()]
    _remove_old_figures(folder / "figures", {path.name for path in paths})
    return paths


def _remove_old_figures(folder: Path, kept: set[str]) -> None:
    """Remove the figures of an earlier run of other tasks; files of other names are left alone."""
    for pattern in ("account-*.svg", "account-*.png", "heatmap.svg", "heatmap.png", "depth.svg", "depth.png"):
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink()
