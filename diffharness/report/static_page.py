"""One page without a script: its own style by hash, no request, every string from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.side_by_side import DECIDED, SideBySide, score_rows, sum_words, unit_tables, verdict_words
from diffharness.report.text import breakable, brief, clean


def render_page(template: str, shown: SideBySide, **context: Any) -> str:
    """A template of models side by side, filled."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("diffharness.report") / "templates"
    environment = Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        signed=signed, plain=plain, percent=percent, interval=interval, brief=brief, breakable=breakable
    )
    environment.globals.update(verdict_words=verdict_words, sum_words=sum_words, decided=DECIDED)
    style = (folder / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        score_rows=score_rows(shown),
        unit_tables=unit_tables(shown),
        **context,
    )
