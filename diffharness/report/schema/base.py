"""What all parts of the report are made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Side = Literal["baseline", "candidate", "ancestor"]
TaskVerdict = Literal["improved", "regressed", "no change", "inconclusive"]
LatentStatus = Literal["baseline-specific", "candidate-specific", "ancestor-specific", "shared", "other", "dead"]


class Model(BaseModel):
    """Base of all parts: unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Interval(Model):
    """A two-sided interval."""

    low: float
    high: float
    level: float = 0.95
    method: str = "paired percentile bootstrap over documents"

    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


class Histogram(Model):
    """Counts between edges; `len(edges) == len(counts) + 1`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
