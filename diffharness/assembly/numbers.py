"""Numbers on their way into JSON."""

from __future__ import annotations

import math


def number(value: float | None) -> float | None:
    """The value, or `None` where it is absent or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
