"""What could have been seen: the smallest detectable gap, and how many documents would settle one."""

from __future__ import annotations

import math

import numpy as np

from diffharness.statistics.distributions import normal_quantile, student_quantile

POWER = 0.8
_TOLERANCE = 1e-12


def smallest_detectable(
    standard_error: float, level: float = 0.95, power: float = POWER, freedom: float = math.inf
) -> float:
    """The gap that a two-sided test at 1 − `level` finds with this power: (t_level + t_power) · standard error.

    2.80 standard errors for many documents: 2.8 √(share of documents that differ / n) for right and wrong
    (Miller 2024, "Adding Error Bars to Evals"; McNemar's variance without a gap), 2.8 sd / √n for other scores.
    """
    return float((student_quantile((1 + level) / 2, freedom) + student_quantile(power, freedom)) * standard_error)


def documents_to_settle(
    gap: float,
    low: float,
    high: float,
    n: int,
    smallest_effect: float,
    *,
    standard_error: float | None,
    level: float = 0.95,
) -> int | None:
    """The fewest documents at which the interval would decide, were gap and variance to stay as they are.

    It decides where it excludes 0 while |gap| ≥ `smallest_effect`, or lies inside ± `smallest_effect`. Its half-width
    shrinks with √n; where no document differed (`standard_error` 0) with n, as Tango's z² / (n + z²).

    Returns:
        More than `n`; `None` where the gap is exactly at the edge, or nothing tells how the scores vary.
    """
    if standard_error is None or n < 1 or not np.isfinite([low, high]).all():
        return None
    z = float(normal_quantile((1 + level) / 2))
    size = abs(gap)
    if standard_error == 0:
        if size > 0 or high <= 0 or smallest_effect <= 0:
            return None
        return max(n + 1, math.ceil((n + z**2) * max(high, -low) / smallest_effect - z**2 - 1e-6))
    half = z * standard_error
    if size >= smallest_effect - _TOLERANCE and size > 0:
        towards_zero = max(half, (gap - low) if gap > 0 else (high - gap))
        share = towards_zero / size
    else:
        above, below = smallest_effect - gap, smallest_effect + gap
        if min(above, below) <= _TOLERANCE:
            return None
        share = max(max(half, high - gap) / above, max(half, gap - low) / below)
    return max(n + 1, math.ceil(n * share**2))
