"""Exact checks and controls: what is checked, and how it reads in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.assembly.scores import moved_tasks
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.attribution.account import TaskAccount

SMALLEST_SHARE = 0.1
"""A category is checked where it accounts for at least this share of the gap and its interval excludes 0."""


def clear_contributions(
    rows: Sequence[Mapping[str, Any]], tasks: Mapping[str, Mapping[str, Any]], smallest_effect: float
) -> dict[str, dict[str, list[str]]]:
    """By origin and category, the tasks with a real gap to which it clearly contributes."""
    wanted: dict[str, dict[str, list[str]]] = {"written": {}, "read": {}}
    moved = moved_tasks(rows, smallest_effect)
    for name, task in tasks.items():
        gap = task["surrogate"]["gap"]
        for part in task["components"]:
            clear = part["low"] > 0 or part["high"] < 0
            if (
                name in moved
                and part["kind"] == "latents"
                and clear
                and abs(part["contribution"]) >= SMALLEST_SHARE * abs(gap)
            ):
                wanted[part["origin"]].setdefault(part["category"], []).append(name)
    return wanted


def no_check_reason(part: Mapping[str, Any], gap: float, *, moved: bool) -> str:
    """Why a component has no exact check."""
    if part["kind"] not in ("latents", "prompt"):
        return "only latents can be put back"
    if not moved:
        return "no gap to explain"
    if part["low"] <= 0 <= part["high"]:
        return "its contribution is not clear"
    if abs(part["contribution"]) < SMALLEST_SHARE * abs(gap):
        return f"it accounts for less than {SMALLEST_SHARE:.0%} of the gap"
    return "not checked"


def ablation(row: Mapping[str, Any]) -> schema.Ablation:
    """An exact check, from a row of `checks.json`."""
    return schema.Ablation(
        score=row["score"],
        change=row["change"],
        interval=schema.Interval(**{key: row[key] for key in ("low", "high", "level", "method")}),
        n=row["n"],
    )


def controls(
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    categories: Sequence[str],
    moved: Sequence[str],
    blind_accounts: Sequence[TaskAccount],
    blind_categories: Sequence[str],
    rng: np.random.Generator,
) -> list[schema.Control]:
    """For each moved task: its leading category's share, with shuffled labels, and with a random encoder.

    Args:
        tasks: the real accounts, as the account stage left them.
        categories: the real latents' names.
        moved: the tasks whose scores changed.
        blind_accounts: these tasks' accounts under the random encoder; none where it was left out.
        blind_categories: its latents' names.
        rng: deals the labels.
    """
    from diffharness.assembly.account import present
    from diffharness.attribution.controls import Carried, leader, share_of, shuffled_labels

    found = []
    names = present([*categories, *blind_categories])
    by_task = {blind.task: blind for blind in blind_accounts}
    for name in moved:
        task, blind = tasks[name], by_task.get(name)
        real = Carried(task["surrogate"]["gap"], np.sum(list(task["latents"].values()), axis=0))
        first = leader(real, categories, names)
        share, leads = shuffled_labels(real, categories, names, first.category, rng)
        found.append(_control("shuffled labels", name, first.category, first.share, share, leads))
        if blind is None:
            continue
        other = Carried(blind.gap, blind.latents_L("written") + blind.latents_L("read"))
        share = share_of(other, blind_categories, first.category)
        leads = float(leader(other, blind_categories, names).category == first.category)
        found.append(_control("random encoder", name, first.category, first.share, share, leads))
    return found


def by_seeds(found: Sequence[tuple[Sequence[TaskAccount], Sequence[str]]]) -> dict[str, list[dict[str, Any]]]:
    """What crosscoders trained with other seeds make of the gaps.

    Args:
        found: each one's accounts and its latents' names.

    Returns:
        By task, a row a component: kind, origin, category and its contribution by each of them.
    """
    from diffharness.assembly.account import present
    from diffharness.attribution.account import contributions

    sums: dict[str, dict[tuple[str, str | None, str | None], list[float]]] = {}
    every = present([name for _, names in found for name in names])
    for accounts, names in found:
        for account in accounts:
            parts = contributions(account, names, every)
            for key, value in zip(parts.keys, account.mean(parts.values_NC).tolist(), strict=True):
                rows = sums.setdefault(account.task, {})
                rows.setdefault((key.kind, key.origin, key.category), []).append(value)
    return {
        task: [
            dict(zip(("kind", "origin", "category", "seeds"), (*key, values), strict=True))
            for key, values in rows.items()
        ]
        for task, rows in sums.items()
    }


def _control(
    name: str, task: str, category: str, share: float | None, control_share: float | None, is_largest: float
) -> schema.Control:
    return schema.Control(
        name=name,  # pyright: ignore[reportArgumentType]
        task=task,
        category=category,
        share=share,
        control_share=control_share,
        is_largest=is_largest,
    )
