"""What a report of a planted pair has to show, checked from the report alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from diffharness.report.schema import Component, Report, Task

Strengths = Mapping[str, tuple[float, float]]
COMPLETE_SHARE, COMPLETE_UNITS = 0.01, 0.002


@dataclass(frozen=True)
class Blame:
    """Whom one moved task's written contributions blame."""

    task: str
    moved: str
    """The planted category."""
    leader: str
    """The category with the largest written contribution of the gap's sign."""
    share: float
    """The planted category's share of all that latents write."""
    check_sign: float
    """+1 where the exact check has the contribution's sign, −1 where the other, 0 where there is none."""

    @property
    def holds(self) -> bool:
        """Largest, and at least half."""
        return self.leader == self.moved and self.share >= 0.5


def accounted(report: Report) -> Iterator[Task]:
    """Tasks with an account."""
    return (t for t in report.tasks if t.components)


def is_real(task: Task) -> bool:
    """Whether the report calls the gap a change."""
    return task.verdict in ("improved", "regressed")


def incomplete_tasks(report: Report) -> list[str]:
    """Tasks with a real gap whose contributions miss the surrogate's gap by more than 1 % (or 0.002)."""
    found = []
    for task in accounted(report):
        assert task.surrogate is not None
        off = abs(sum(c.contribution for c in task.components) - task.surrogate.gap)
        if is_real(task) and off > max(COMPLETE_SHARE * abs(task.surrogate.gap), COMPLETE_UNITS):
            found.append(task.task)
    return found


def moved_capabilities(strengths: Strengths) -> set[str]:
    """Capabilities whose strength differs between the sides."""
    return {name for name, (baseline, candidate) in strengths.items() if baseline != candidate}


def blames(report: Report, strengths: Strengths, n_categories: int) -> list[Blame]:
    """The blame of every real task of `n_categories` capabilities of which exactly one moved."""
    moved = moved_capabilities(strengths)
    found = []
    for task in accounted(report):
        own = moved & set(task.categories)
        if is_real(task) and len(task.categories) == n_categories and len(own) == 1:
            found.append(_blame(task, own.pop()))
    return found


def _blame(task: Task, moved: str) -> Blame:
    assert task.surrogate is not None
    latents = {c.category: c for c in task.components if c.kind == "latents" and c.origin == "written"}
    sign = np.sign(task.surrogate.gap)
    leader = max(latents.values(), key=lambda c: sign * c.contribution)
    total = sum(c.contribution for c in latents.values())
    own = latents.get(moved)
    share = own.contribution / total if own is not None and total else 0.0
    return Blame(task.task, moved, str(leader.category), share, _check_sign(own))


def _check_sign(part: Component | None) -> float:
    if part is None or part.ablation is None:
        return 0.0
    return float(np.sign(part.ablation.change) * np.sign(part.contribution))


def shuffled_blames(report: Report, strengths: Strengths, rng: np.random.Generator, n: int = 200) -> float:
    """How often `Blame.holds` for single-capability tasks when the latents' names are dealt out anew."""
    names = [latent.category for latent in report.latents]
    moved = moved_capabilities(strengths)
    tasks = [t for t in accounted(report) if is_real(t) and len(t.categories) == 1 and set(t.categories) & moved]
    held = 0
    for _ in range(n):
        dealt = rng.permutation(names)
        for task in tasks:
            sums: dict[str, float] = {}
            for name, latent in zip(dealt, report.latents, strict=True):
                sums[name] = sums.get(name, 0.0) + latent.contributions.get(task.task, 0.0)
            assert task.surrogate is not None
            sign = np.sign(task.surrogate.gap)
            own = sums.get(task.categories[0], 0.0)
            leads = max(sums, key=lambda name: sign * sums[name]) == task.categories[0]
            held += leads and own / sum(sums.values()) >= 0.5
    return held / (n * len(tasks)) if tasks else 0.0
