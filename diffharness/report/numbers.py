"""How numbers look: signed with a real minus, the same digits within a column, never a bare NaN."""

from __future__ import annotations

from diffharness.report.schema import Interval

MINUS = "−"
ABSENT = "–"
"""What stands where there is no number; the reason stands beside it."""


def plain(value: float | None, digits: int = 3) -> str:
    """`0.500`, `−1.250`; `–` where there is no number."""
    if value is None:
        return ABSENT
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.210`, `−0.032`; zero at these digits has no sign."""
    text = plain(value, digits)
    if value is None or text.startswith(MINUS) or not any(c in "123456789" for c in text):
        return text
    return f"+{text}"


def percent(value: float | None, digits: int = 0, *, sign: bool = False) -> str:
    """A share as percent: 0.46 → `46 %`, with a space that does not break."""
    if value is None:
        return ABSENT
    return f"{(signed if sign else plain)(100 * value, digits)}\u00a0%"


def interval(value: Interval | None, digits: int = 3) -> str:
    """`[+0.380, +0.540]`."""
    if value is None:
        return ABSENT
    return f"[{signed(value.low, digits)}, {signed(value.high, digits)}]"


def span(value: Interval | None, digits: int = 3) -> str:
    """`[0.08, 0.15]`: the interval of a number that is not a difference."""
    if value is None:
        return ABSENT
    return f"[{plain(value.low, digits)}, {plain(value.high, digits)}]"


def points(value: Interval | None, digits: int = 2) -> str:
    """The interval of a difference of shares, in points: `[+0.38, +0.54]` of 0.0038 to 0.0054."""
    if value is None:
        return ABSENT
    return f"[{signed(100 * value.low, digits)}, {signed(100 * value.high, digits)}]"


def p_value(value: float | None) -> str:
    """`< 0.001`, `0.012`."""
    if value is None:
        return ABSENT
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def p_words(value: float) -> str:
    """In a sentence: `p < 0.001`, `p = 0.012`."""
    said = p_value(value)
    return f"p {said}" if said.startswith("<") else f"p = {said}"


def small(value: float | None) -> str:
    """A number whose size is what matters, for example a residual: `3.1e−05`, `0.0042`, `0`."""
    if value is None:
        return ABSENT
    return f"{value:.2g}".replace("-", MINUS)


def count(value: int) -> str:
    """`400,000`."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """`47 s`, `5 min 12 s`, `2 h 03 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
