"""The report's files: each is written whole beside its name and then put in its place."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

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
    paths = [_put(folder / name, content) for name, content in contents.items()]
    _remove_old_figures(folder / "figures", {path.name for path in paths})
    return paths


def to_json(report: Report) -> str:
    """`report.json` as text: numbers that JSON does not have become `null`, half code points `U+FFFD`."""
    plain = _jsonable(report.model_dump(mode="python"))
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_jsonable(str(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace" if value.isascii() else "surrogatepass").decode("utf-8", "replace")
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)


def _put(path: Path, content: bytes) -> Path:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _remove_old_figures(folder: Path, kept: set[str]) -> None:
    """Remove the figures of an earlier run of other tasks; files of other names are left alone."""
    for pattern in ("account-*.svg", "account-*.png", "heatmap.svg", "heatmap.png", "depth.svg", "depth.png"):
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink()
