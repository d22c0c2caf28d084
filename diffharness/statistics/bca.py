"""Bias-corrected and accelerated bootstrap intervals, for one statistic or many at once.

Legend: R resamples, U units (documents, or whole clusters of them); trailing axes are statistics of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffharness.statistics.distributions import normal_cdf, normal_quantile, student_quantile

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

_TIE = 1e-12
"""Draws this close to the estimate, in shares of the largest draw, equal it but for rounding."""


@dataclass(frozen=True)
class Width:
    """How far an interval reaches where units are few: Student's width in place of the normal one."""

    factor: NDArray[np.float64] | float = 1.0
    """Unbiased standard error over the bootstrap's, √(n / (n − 1)) for one sample."""
    freedom: NDArray[np.float64] | float = np.inf
    """Degrees of freedom."""


@dataclass(frozen=True)
class BcaIntervals:
    """Two-sided intervals, and where they could be made."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    defined: Bool[np.ndarray, " ..."]
    """False where all draws lie on one side of the estimate or no unit matters: percentiles stand there."""


@dataclass(frozen=True)
class Bca:
    """What bias and acceleration make of bootstrap draws, at any level."""

    sorted_R: Float[np.ndarray, "R ..."]
    bias: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    defined: Bool[np.ndarray, " ..."]
    width: Width

    @classmethod
    def of(
        cls,
        estimate: Float[np.ndarray, " ..."],
        draws_R: Float[np.ndarray, "R ..."],
        influence_U: Float[np.ndarray, "U ..."],
        width: Width | None = None,
    ) -> Bca:
        """As `bca_intervals`."""
        estimate, draws_R = np.asarray(estimate, dtype=np.float64), np.asarray(draws_R, dtype=np.float64)
        room = _TIE * np.maximum(np.abs(draws_R).max(axis=0), np.abs(estimate))
        below = (draws_R < estimate - room).mean(axis=0) + 0.5 * (np.abs(draws_R - estimate) <= room).mean(axis=0)
        square = (influence_U**2).sum(axis=0)
        a = np.divide((influence_U**3).sum(axis=0), 6 * square**1.5, out=np.zeros_like(square), where=square > 0)
        defined = (square > 0) & (below > 0) & (below < 1)
        bias = normal_quantile(np.where(defined, below, 0.5))
        return cls(np.sort(draws_R, axis=0), bias, a, defined, width or Width())

    def interval(self, level: float = 0.95) -> BcaIntervals:
        """Two-sided."""
        tail = np.asarray(self.width.factor * student_quantile((1 - level) / 2, self.width.freedom))
        defined, ends = self.defined, []
        for z in (tail, -tail):
            room_left = 1 - self.acceleration * (self.bias + z)
            defined = defined & (room_left > 0)
            moved = self.bias + (self.bias + z) / np.where(room_left > 0, room_left, 1)
            ends.append(_quantile(self.sorted_R, normal_cdf(np.where(defined, moved, z))))
        shape = np.shape(self.bias)
        plain = [_quantile(self.sorted_R, np.broadcast_to(normal_cdf(z), shape)) for z in (tail, -tail)]
        low, high = (np.where(defined, end, other) for end, other in zip(ends, plain, strict=True))
        return BcaIntervals(low, high, defined)

    def deviate(self, value: float) -> NDArray[np.float64]:
        """The t at which an end of the interval comes to lie on `value`: negative for a low end.

        Student's distribution with the width's degrees of freedom has the end's one-sided level beyond it. No draw
        lies further than half of one beyond the outermost, so that the level is never below about 1 / R.
        """
        n = len(self.sorted_R)
        rank = 0.5 * ((self.sorted_R < value).sum(axis=0) + (self.sorted_R <= value).sum(axis=0))
        z = normal_quantile(np.clip(rank / n, 0.5 / n, 1 - 0.5 / n))
        room_left = 1 + self.acceleration * (z - self.bias)
        inside = np.where(room_left > 0, room_left, 1)
        beyond = np.where(room_left > 0, (z - self.bias) / inside - self.bias, np.copysign(np.inf, z - self.bias))
        return np.where(self.defined, beyond, z) / self.width.factor


def bca_intervals(
    estimate: Float[np.ndarray, " ..."],
    draws_R: Float[np.ndarray, "R ..."],
    influence_U: Float[np.ndarray, "U ..."],
    level: float = 0.95,
    width: Width | None = None,
) -> BcaIntervals:
    """Efron 1987, "Better Bootstrap Confidence Intervals": percentiles moved by bias and acceleration.

    Bias z₀ is that share of the draws below the estimate (ties half), acceleration a = Σ l³ / (6 (Σ l²)^1.5) with the
    influence l of each unit, the jackknife's mean less the value without it. With `width` the nominal tails are
    moved outwards before, so that for a mean of normal values the interval has Student's width (Hesterberg 2015, the
    expanded percentile interval). Without, it is `scipy.stats.bootstrap(method="BCa")`'s.

    Args:
        estimate: the statistics.
        draws_R: their bootstrap draws.
        influence_U: any multiple of what each unit adds.
        level: of the interval.
        width: for few units.
    """
    return Bca.of(estimate, draws_R, influence_U, width).interval(level)


def skewness(influence_U: Float[np.ndarray, "U ..."]) -> Float[np.ndarray, " ..."]:
    """Of the units' influences; 0 where they do not vary."""
    centred_U = influence_U - influence_U.mean(axis=0)
    square = (centred_U**2).mean(axis=0)
    largest = np.abs(influence_U).max(axis=0)
    return np.divide(
        (centred_U**3).mean(axis=0), square**1.5, out=np.zeros_like(square), where=square > (_TIE * largest) ** 2
    )


def _quantile(sorted_R: Float[np.ndarray, "R ..."], share: Float[np.ndarray, " ..."]) -> Float[np.ndarray, " ..."]:
    """A quantile of its own for each statistic, between order statistics as `np.quantile`."""
    position = np.clip(share, 0, 1) * (len(sorted_R) - 1)
    first = np.floor(position).astype(np.intp)
    second = np.minimum(first + 1, len(sorted_R) - 1)
    low, high = (np.take_along_axis(sorted_R, index[None], axis=0)[0] for index in (first, second))
    return low + (position - first) * (high - low)
