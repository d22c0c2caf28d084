"""Drawings as the page holds them: marks that carry their exact values, and nothing that only the renderer needs."""

from __future__ import annotations

import re

LIGHT_TEXT, LIGHT_PAGE = "#1f2328", "#ffffff"
DARK_TEXT, DARK_PAGE = "#e6e8eb", "#0f1216"
FONT = "Helvetica, Arial, sans-serif"
_TIP = re.compile(r' aria-label="@([a-z0-9-]*)@([^"]*)"')
_SPOKEN = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
_TAG = re.compile(r"<[a-z][^>]*>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_AS_BY_DEFAULT = re.compile(
    r' (?:stroke-opacity|fill-opacity|opacity|stroke-width)="1"| font-size="11px"| class="[^"]*"| pointer-events="none"'
)
_EMPTY = re.compile(r'<path d="[^"]*" display="none"/>|<path d="M0,0h0v0h0Z"/>|<g></g>')


def tip(words: str, row: str = "") -> str:
    """The description of a mark: what is said of it, and the row of the table beside the figure that it stands for."""
    return f"@{row}@{words}"


def lean(svg: str) -> str:
    """The renderer's SVG with its marks' tips as `data-tip` and `data-row`, and about half as long.

    Every number of a shape is rounded to hundredths of a pixel. The text of labels stays as it is.
    """
    svg = _TAG.sub(lambda tag: _tag(tag.group()), svg)
    before = ""
    while before != svg:
        before, svg = svg, _EMPTY.sub("", svg)
    return svg.replace("<svg ", f'<svg font-family="{FONT}" font-size="11px" ', 1)


def standalone(svg: str) -> str:
    """A drawing as a file: with a background and a text colour of its own, light or dark by system."""
    style = (
        f"<style>svg{{color:{LIGHT_TEXT};background:{LIGHT_PAGE}}}"
        f"@media (prefers-color-scheme:dark){{svg{{color:{DARK_TEXT};background:{DARK_PAGE}}}}}</style>"
    )
    return _first(svg, style)


def on_white(svg: str) -> str:
    """A drawing with dark text on a white ground."""
    ground = f'<rect width="100%" height="100%" fill="{LIGHT_PAGE}"/>'
    return _first(svg.replace("currentColor", LIGHT_TEXT), ground)


def _first(svg: str, content: str) -> str:
    """The drawing with this as its first content."""
    return re.sub(r"(<svg[^>]*>)", lambda m: m.group() + content, svg, count=1)


def _tag(tag: str) -> str:
    if 'aria-label="@' in tag:
        tag = _TIP.sub(lambda m: (f' data-row="{m[1]}"' if m[1] else "") + f' data-tip="{m[2]}"', tag)
    said, _, rest = tag.partition(' data-tip="')
    tip_words, _, after = rest.partition('"')
    bare = [_AS_BY_DEFAULT.sub("", _SPOKEN.sub("", part)) for part in (said, after)]
    short = [
        _LONG_NUMBER.sub(lambda m: f"{float(m.group()):.2f}", part).replace(f' font-family="{FONT}"', "")
        for part in bare
    ]
    return f'{short[0]} data-tip="{tip_words}"{short[1]}' if rest else short[0]
