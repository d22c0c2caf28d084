"""Trained null pairs: the baseline against itself trained on with its own mixture, and a claim set against them.

Their differences are tiny but real. What a planted pair's account says of a category is more than further training
makes only where it lies beyond what the account says of null pairs from the same baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from diffharness import organism
from diffharness.organism.nulls import train_nulls
from diffharness.organism.plant import Plant
from diffharness.report.schema import Report
from tests import planted
from tests.benchmarks.account_truth import compared, mean
from tests.benchmarks.record import Bound

LEVEL = 0.95
SMALLEST_SHARE = 0.05
"""A category is claimed where it has this share of a gap, and the interval of what it writes or is read as excludes
0."""


@dataclass(frozen=True)
class Spread:
    """What null pairs make of one category on one task."""

    values: tuple[float, ...]
    """Contributions, written and read together, a number a null training; 0 where no latent has the category."""

    @property
    def largest(self) -> float:
        """Of their sizes."""
        return max(map(abs, self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """Where one more null training lies with 95 %, were they normal (Student's prediction interval)."""
        n = len(self.values)
        reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(self.values, ddof=1) * np.sqrt(1 + 1 / n)
        return float(np.mean(self.values) - reach), float(np.mean(self.values) + reach)

    def is_beyond_largest(self, value: float) -> bool:
        """Whether a contribution is larger than all of them."""
        return abs(value) > self.largest

    def is_beyond_interval(self, value: float) -> bool:
        """Whether a contribution lies outside the interval."""
        low, high = self.interval
        return not low <= value <= high


def pair_figures(plant: Mapping[str, Any] | None, n: int, seed: int, work: Path) -> tuple[dict[str, Any], list[Bound]]:
    """Verdicts on null pairs, the spread of their contributions, and the planted pair's claims against it."""
    if n < 2:
        raise ValueError("a spread takes two null trainings or more")
    models = organism.build(plant, seed=seed)

    untried = {"controls": False, "shapley": "none", "random_sets": 0}

    def report(candidate: Path, name: str) -> Report:
        return compared(models, candidate, seed, work / name, **untried).report()

    claimed = report(models.candidate, f"pair-{seed}")
    trained = train_nulls(models, n)
    nulls = [report(null.folder, f"pair-{seed}-null-{null.seed}") for null in trained]
    rows = [(null.seed, t.task, t.metric, t.gap, t.verdict) for null, r in zip(trained, nulls, strict=True)
            for t in r.tasks]  # fmt: skip
    called = [row for row in rows if row[-1] in ("improved", "regressed")]
    claims = claims_against(claimed, nulls, Plant.load(models.plant).strengths)
    true, other = ([c for c in claims if c["planted"] == own] for own in (True, False))
    figures = {
        "seeds of null trainings": [null.seed for null in trained],
        "null rows": len(rows),
        "null rows called changed": len(called),
        "share of null rows called changed": len(called) / len(rows),
        "verdicts on null rows": {v: sum(row[-1] == v for row in rows) for v in sorted({row[-1] for row in rows})},
        "largest gap of a null's bounded score": max(abs(row[3]) for row in rows if row[2] in ("acc", "exact_match")),
        "planted categories claimed": len(true),
        "planted categories beyond every null training": mean(c["beyond largest"] for c in true),
        "planted categories beyond the interval of null trainings": mean(c["beyond interval"] for c in true),
        "other categories claimed": len(other),
        "other categories beyond every null training": mean(c["beyond largest"] for c in other),
        "other categories beyond the interval of null trainings": mean(c["beyond interval"] for c in other),
        "null rows called": called,
        "claims": claims,
    }
    bounds = [
        Bound("null trainings", n, ">= 10"),
        Bound("share of null rows called changed", figures["share of null rows called changed"], "<= 0.05"),
        Bound("planted categories beyond every null training",
              figures["planted categories beyond every null training"], ">= 0.95"),
        Bound("planted categories beyond the interval of null trainings",
              figures["planted categories beyond the interval of null trainings"], ">= 0.95"),
    ]  # fmt: skip
    return figures, bounds


def claims_against(claimed: Report, nulls: Sequence[Report], strengths: planted.Strengths) -> list[dict[str, Any]]:
    """Every claim about a moved task's category beside what null pairs make of it."""
    by_task = [{t.task: planted.by_category(t) for t in planted.accounted(report)} for report in nulls]
    moved = planted.moved_capabilities(strengths)
    found = []
    for task in filter(planted.is_real, planted.accounted(claimed)):
        gap = planted.surrogate_gap(task)
        clear = {c.category for c in task.components if c.kind == "latents" and _excludes_zero(c.interval)}
        for category, value in planted.by_category(task).items():
            if category not in clear or abs(value) < SMALLEST_SHARE * abs(gap):
                continue
            spread = Spread(tuple(sums.get(task.task, {}).get(category, 0.0) for sums in by_task))
            found.append(
                {
                    "task": task.task,
                    "category": category,
                    "planted": category in moved & set(task.categories),
                    "contribution": value,
                    "largest of nulls": spread.largest,
                    "interval of nulls": spread.interval,
                    "beyond largest": spread.is_beyond_largest(value),
                    "beyond interval": spread.is_beyond_interval(value),
                }
            )
    return found


def _excludes_zero(interval: Any) -> bool:
    return interval.low > 0 or interval.high < 0
