"""What a report of a planted pair has to show, checked from the report alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from diffharness.report.schema import Component, Report, Task

Strengths = Mapping[str, tuple[float, float]]
COMPLETE_SHARE, COMPLETE_UNITS = 0.01, 0.002
BOTH = ("written", "read")


@dataclass(frozen=True)
class Blame:
    """Whom one moved task's latents blame, by what they write and are read as together unless said otherwise."""

    task: str
    moved: str
    """The planted category."""
    leader: str
    """The category with the largest contribution of the gap's sign."""
    share: float
    """The planted category's share of all that latents contribute."""
    check_sign: float
    """+1 where the exact check has the written contribution's sign, −1 where the other, 0 where there is none."""

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


def surrogate_gap(task: Task) -> float:
    """The gap that an account splits."""
    assert task.surrogate is not None
    return task.surrogate.gap


def incomplete_tasks(report: Report) -> list[str]:
    """Tasks with a real gap whose contributions miss the surrogate's gap by more than 1 % (or 0.002)."""
    found = []
    for task in accounted(report):
        gap = surrogate_gap(task)
        off = abs(sum(c.contribution for c in task.components) - gap)
        if is_real(task) and off > max(COMPLETE_SHARE * abs(gap), COMPLETE_UNITS):
            found.append(task.task)
    return found


def moved_capabilities(strengths: Strengths) -> set[str]:
    """Capabilities whose strength differs between the sides."""
    return {name for name, (baseline, candidate) in strengths.items() if baseline != candidate}


def moved_tasks(report: Report, strengths: Strengths, n_categories: int) -> Iterator[tuple[Task, str]]:
    """Every real task of `n_categories` capabilities of which exactly one moved, and that one."""
    moved = moved_capabilities(strengths)
    for task in accounted(report):
        own = moved & set(task.categories)
        if is_real(task) and len(task.categories) == n_categories and len(own) == 1:
            yield task, own.pop()


def by_category(task: Task, origins: tuple[str, ...] = BOTH) -> dict[str, float]:
    """What each category's latents contribute by some origins."""
    sums: dict[str, float] = {}
    for part in task.components:
        if part.kind == "latents" and part.origin in origins:
            sums[str(part.category)] = sums.get(str(part.category), 0.0) + part.contribution
    return sums


def blames(report: Report, strengths: Strengths, n_categories: int, origins: tuple[str, ...] = BOTH) -> list[Blame]:
    """The blame of every real task of `n_categories` capabilities of which exactly one moved."""
    return [_blame(task, moved, origins) for task, moved in moved_tasks(report, strengths, n_categories)]


def leader_and_share(sums: Mapping[str, float], gap: float, category: str) -> tuple[str, float]:
    """The category with the largest contribution of the gap's sign, and one category's share of all."""
    total = sum(sums.values())
    leader = max(sums, key=lambda name: np.sign(gap) * sums[name])
    return leader, sums.get(category, 0.0) / total if total else 0.0


def _blame(task: Task, moved: str, origins: tuple[str, ...]) -> Blame:
    leader, share = leader_and_share(by_category(task, origins), surrogate_gap(task), moved)
    own = [c for c in task.components if c.kind == "latents" and c.category == moved and c.ablation is not None]
    return Blame(task.task, moved, leader, share, _check_sign(own[0]) if own else 0.0)


def _check_sign(part: Component) -> float:
    assert part.ablation is not None
    return float(np.sign(part.ablation.change) * np.sign(part.contribution))


def shuffled_blames(report: Report, strengths: Strengths, rng: np.random.Generator, n: int = 200) -> float:
    """How often `Blame.holds` for single-capability tasks when the latents' names are dealt out anew."""
    names = [latent.category for latent in report.latents]
    tasks = list(moved_tasks(report, strengths, 1))
    held = 0
    for _ in range(n):
        dealt = rng.permutation(names)
        for task, moved in tasks:
            sums: dict[str, float] = {}
            for name, latent in zip(dealt, report.latents, strict=True):
                sums[name] = sums.get(name, 0.0) + latent.contributions.get(task.task, 0.0)
            leader, share = leader_and_share(sums, surrogate_gap(task), moved)
            held += leader == moved and share >= 0.5
    return held / (n * len(tasks)) if tasks else 0.0
