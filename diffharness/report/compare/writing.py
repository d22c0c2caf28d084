"""A comparison in its formats: as text, and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from diffharness.errors import UsageError
from diffharness.report.compare.model import Comparison

FILES = ("md", "html", "json", "csv")
"""Formats that can be written: `comparison.md` and so on."""


def render(comparison: Comparison, name: str) -> str:
    """The comparison in one of `FILES`."""
    from diffharness.report.compare.markdown import render_markdown
    from diffharness.report.compare.page import render_html
    from diffharness.report.compare.table import comparison_table
    from diffharness.report.files import to_json
    from diffharness.report.tables import to_csv

    renderers: dict[str, Callable[[], str]] = {
        "md": lambda: render_markdown(comparison),
        "html": lambda: render_html(comparison),
        "json": lambda: to_json(comparison),
        "csv": lambda: to_csv(comparison_table(comparison)).decode(),
    }
    return renderers[name]()


def write(comparison: Comparison, formats: Iterable[str], folder: Path) -> list[Path]:
    """Write files into a folder, which is made where it is missing.

    Raises:
        UsageError: it can not be written.
    """
    from diffharness.report.files import put

    texts = {name: render(comparison, name).encode("utf-8", "replace") for name in formats}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [put(folder / f"comparison.{name}", text) for name, text in texts.items()]
    except OSError as error:
        raise UsageError(f"{folder} can not be written ({error.strerror}); name another folder by --output") from error
