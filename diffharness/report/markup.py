"""Markdown that holds strings from outside safely, on a page of bounded size."""

from __future__ import annotations

import re

from diffharness.report.text import one_line, shorten

LIMIT_BYTES = 60_000
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#]|^\d+(?=[.)])")
_REFERENCE = re.compile(r"(@|#|:(?=//)|[wW]{3}(?=\.))(?=\S)")
_BREAK = "\u200b"
"""Zero width: breaks mentions and links that are made after the Markdown is read."""


def escape(text: str) -> str:
    """A string from outside as one line of Markdown that shows exactly its characters."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _REFERENCE.sub(lambda m: m.group() + _BREAK, line)
    return _SPECIAL.sub(lambda m: m.group() + _BREAK if m.group().isdigit() else "\\" + m.group(), line)


def code(text: str, limit: int = 160) -> str:
    """A text of a document or a model as a code span; not for tables, where it would end at a bar."""
    line = one_line(shorten(text, limit))
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line[:1] in ("`", " ", "") or line[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{line or ' '}{pad}{fence}"


class Page:
    """Blocks of Markdown up to a number of bytes; what is left out is counted, and named by `left_out`.

    `where` is said of it: where it can be read.
    """

    def __init__(self, limit: int = LIMIT_BYTES, where: str = "in `report.html`") -> None:
        self.limit = limit
        self.where = where
        self.text = ""
        self.size = 0
        self.left_out: list[str] = []

    def fits(self, block: str, reserved: int = 0) -> bool:
        """Whether the block fits beside what is reserved."""
        return self.size + len(block.encode()) + 2 + reserved <= self.limit

    def add(self, block: str, reserved: int = 0, name: str | None = None) -> bool:
        """Append the block if it fits beside what is reserved; say whether it did, and keep its name where not."""
        if not self.fits(block, reserved):
            if name is not None:
                self.left_out.append(name)
            return False
        self.text += block + "\n\n"
        self.size += len(block.encode()) + 2
        return True

    def table(self, head: str, rows: list[str], noun: str, share: float = 1.0) -> None:
        """Append a table, at most `share` of the page; what is left out is counted."""
        budget = min(int(self.limit * share), self.limit - self.size - 200)
        kept, used = 0, len(head.encode())
        while kept < len(rows) and used + len(rows[kept].encode()) + 1 <= budget:
            used += len(rows[kept].encode()) + 1
            kept += 1
        self.add("\n".join([head, *rows[:kept]]))
        if kept < len(rows):
            self.add(f"… and {len(rows) - kept} more {noun}, {self.where}.")
