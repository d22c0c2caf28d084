"""What documents say of a score's change: bounds at any level, and how surely it lies beyond a value.

Here from counts; `resampled_evidence.py` has the scores that are recomputed on resamples. The intervals are those of
reports (`statistics/paired.py`), at the levels that a decision asks for. A gap is candidate − baseline, turned so that
higher is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from diffharness.statistics.discordant import mcnemar_mid_p, tango_interval, tango_score
from diffharness.statistics.distributions import normal_cdf
from diffharness.statistics.paired import FEW_CLUSTERS, FEW_PAIRS


class Evidence(Protocol):
    """A gap and what is known of its error."""

    @property
    def gap(self) -> float:
        """Candidate − baseline, higher is better."""
        ...

    @property
    def standard_error(self) -> float | None:
        """Of the gap; `None` where nothing tells."""
        ...

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error."""
        ...

    @property
    def method(self) -> str:
        """Interval and test, in words."""
        ...

    @property
    def approximate(self) -> str | None:
        """Why error rates may be larger than they are said to be."""
        ...

    def bounds(self, level: float) -> tuple[float, float]:
        """A two-sided interval."""
        ...

    def errors_at(self, loss: float) -> tuple[float, float]:
        """Standard errors of the gap were the true one −`loss`: as the test of no loss sees it, and the gap's own."""
        ...

    def p_below(self, value: float) -> float:
        """One-sided, of a true gap of `value` or more: the smallest alpha whose interval lies below it."""
        ...

    def p_above(self, value: float) -> float:
        """One-sided, of a true gap of `value` or less."""
        ...


@dataclass(frozen=True)
class Pairs:
    """Right and wrong on the same documents: Tango's score interval and McNemar's mid-p test, from counts."""

    n_up: int
    n_down: int
    n: int
    freedom: float = math.inf
    method: str = "Tango score interval, McNemar mid-p test"

    @property
    def gap(self) -> float:
        """Share gained less share lost."""
        return (self.n_up - self.n_down) / self.n

    @property
    def standard_error(self) -> float | None:
        """By the documents that differ; 0 where none does."""
        share = (self.n_up + self.n_down) / self.n
        return math.sqrt(max(share - self.gap**2, 0.0) / self.n)

    @property
    def approximate(self) -> str | None:
        """Where Tango's interval was not tried."""
        return f"fewer than {FEW_PAIRS} documents" if self.n < FEW_PAIRS else None

    def bounds(self, level: float) -> tuple[float, float]:
        """Tango's, widened to 0 where McNemar's test does not reject."""
        low, high = tango_interval(self.n_up, self.n_down, self.n, level)
        if mcnemar_mid_p(self.n_up, self.n_down) >= 1 - level:
            return min(low, 0.0), max(high, 0.0)
        return low, high

    def errors_at(self, loss: float) -> tuple[float, float]:
        """As many documents go up and down by chance as now; those of the loss come on top."""
        share = min(2 * min(self.n_up, self.n_down) / self.n + loss, 1.0)
        return math.sqrt(share / self.n), math.sqrt(max(share - loss**2, 0.0) / self.n)

    def p_below(self, value: float) -> float:
        """By Tango's score, and McNemar's test where `value` is not above 0."""
        p = float(normal_cdf(tango_score(self.n_up, self.n_down, self.n, value)))
        return max(p, self._one_sided(-1)) if value <= 0 else p

    def p_above(self, value: float) -> float:
        """By Tango's score, and McNemar's test where `value` is not below 0."""
        p = float(normal_cdf(-tango_score(self.n_up, self.n_down, self.n, value)))
        return max(p, self._one_sided(1)) if value >= 0 else p

    def _one_sided(self, sign: int) -> float:
        return one_sided(mcnemar_mid_p(self.n_up, self.n_down), sign * self.gap)


@dataclass(frozen=True)
class Unseen:
    """No document's score differs: what that leaves open, by Tango's interval of as many units."""

    n_units: int
    span: float | None
    """The most that one document's score can change; `None` where a score has no bounds, and nothing tells."""
    n_clusters: int | None = None
    gap: float = 0.0
    freedom: float = math.inf
    method: str = "no document's score differs; the interval is what that leaves open (Tango)"

    @property
    def standard_error(self) -> float | None:
        """0 of a bounded score."""
        return None if self.span is None else 0.0

    @property
    def approximate(self) -> str | None:
        """Few units, or a score without bounds."""
        if self.span is None:
            return "a score without bounds, of which no document differs, tells nothing of how it varies"
        if self.n_clusters is not None and self.n_clusters < FEW_CLUSTERS:
            return f"fewer than {FEW_CLUSTERS} clusters"
        return f"fewer than {FEW_PAIRS} documents" if self.n_units < FEW_PAIRS else None

    def bounds(self, level: float) -> tuple[float, float]:
        """± span z² / (G + z²)."""
        if self.span is None:
            return 0.0, 0.0
        high = self.span * tango_interval(0, 0, self.n_units, level)[1]
        return -high, high

    def errors_at(self, loss: float) -> tuple[float, float]:
        """Every document that differs would be lost, by the whole span."""
        if self.span is None:
            return math.inf, math.inf
        share = min(loss / self.span, 1.0)
        scale = self.span / math.sqrt(self.n_units)
        return scale * math.sqrt(share), scale * math.sqrt(max(share - share**2, 0.0))

    def p_below(self, value: float) -> float:
        """By Tango's score; 0.5 at most where the gap is not below `value`."""
        if self.span is None:
            return 0.0 if value > 0 else 1.0
        share = min(max(value / self.span, -1.0), 1.0)
        return float(normal_cdf(tango_score(0, 0, self.n_units, share)))

    def p_above(self, value: float) -> float:
        """As `p_below`, mirrored."""
        return self.p_below(-value)


def one_sided(p_value: float, towards: float) -> float:
    """A two-sided p-value's half on the side that the gap lies on (`towards` > 0), else the rest of it."""
    return p_value / 2 if towards > 0 else 1 - p_value / 2
