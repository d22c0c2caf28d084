"""Where a falling function crosses a value: intervals are found by inverting score tests."""

from __future__ import annotations

from collections.abc import Callable


def falling_root(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """The x in [low, high] at which a non-increasing function falls to `target`, by bisection.

    To float precision. The function may be infinite. Where it stays on one side of `target`: the nearer end.
    """
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
