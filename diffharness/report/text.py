"""Text from outside (documents, answers, names) made safe to show: what it holds is seen and can not act."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline: terminals obey them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction overrides: they reorder their surroundings
    "\u2028\u2029\ufeff\ud800-\udfff]"  # line separators, byte order mark, halves of a code point
)

_READ = " (read)"


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean(text: str) -> str:
    """The text with every control and direction character written out, for example `\\x1b` or `\\u202e`."""
    return _ACTING.sub(_visible, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`clean`, with line breaks and tabs shown as `↵` and `⇥`."""
    return clean(text).replace("\n", "↵").replace("\t", "⇥")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters of the text; what is left out is counted behind an ellipsis."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def brief(text: str, limit: int) -> str:
    """One line of at most `limit` characters, the ellipsis included: for names in tables and figures."""
    line = one_line(text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def squeeze(text: str, limit: int) -> str:
    """Like `brief`, but cut in the middle: names of tasks often share their beginning."""
    if len(text) <= limit:
        return brief(text, limit)
    n_tail = (limit - 1) // 2
    return brief(text, limit - n_tail) + one_line(text[-n_tail:] if n_tail else "")[-n_tail:]


def brief_label(label: str, limit: int) -> str:
    """A component's label in one line of at most `limit` characters: what is cut from it is never its origin."""
    if not label.endswith(_READ):
        return brief(label, limit)
    return brief(label.removesuffix(_READ), limit - len(_READ)) + _READ


def breakable(name: str) -> Markup:
    """A name, escaped for a page, that may break behind its underlines."""
    from markupsafe import Markup

    return Markup(str(Markup.escape(clean(name))).replace("_", "_<wbr>"))
