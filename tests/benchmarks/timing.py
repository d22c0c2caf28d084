"""Wall and processor time of a call, and medians of ratios with their intervals."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import binom

T = TypeVar("T")


@dataclass(frozen=True)
class Spent:
    """Seconds that some work took."""

    wall_s: float
    cpu_s: float
    """Of this process, all its threads: what other processes do to a shared machine is hardly in it."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


def timed(work: Callable[[], T]) -> tuple[T, Spent]:
    """What some work returns, and what it took; garbage of earlier work is collected before."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its interval by the sign test: the narrowest pair of order statistics of at least 95 % coverage.

    With fewer than 6 values no pair covers so much; the interval is then the range.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    outside = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return float(np.median(ordered)), float(ordered[outside]), float(ordered[-1 - outside])


def ratio_figures(name: str, over: Sequence[Spent], under: Sequence[Spent]) -> dict[str, float]:
    """`name` and its interval in wall time, and the same in processor time; a ratio a pair, then medians."""
    figures = {}
    for suffix, field in (("", "wall_s"), ("_cpu", "cpu_s")):
        ratios = [getattr(a, field) / getattr(b, field) for a, b in zip(over, under, strict=True)]
        median, low, high = median_interval(ratios)
        figures |= {f"{name}{suffix}": median, f"{name}{suffix}_low": low, f"{name}{suffix}_high": high}
    return figures
