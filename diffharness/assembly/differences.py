"""What a part contributes in one run minus in another, by drawing the same documents for both.

Legend: N documents of a task, K parts, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffharness.assembly.numbers import number
from diffharness.assembly.sums import (
    Key,
    TaskDocuments,
    joint_draws,
    of_origin,
    parts_of,
    why_not_drawn,
)
from diffharness.report.compare.model import Difference
from diffharness.report.schema import Component, Interval, Task
from diffharness.statistics.bootstrap import percentile_interval
from diffharness.statistics.distributions import student_cdf
from diffharness.statistics.multiple import benjamini_hochberg

GAP: Key = ("gap", None)
"""All parts together."""
LEVEL = 0.05
METHOD = "paired percentile bootstrap over the documents of both runs"
MOST_FEW = 6
"""Fewer documents than this in either run's account give no interval."""
_SEED = 0


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    tasks: Mapping[str, Task]
    documents: Mapping[str, TaskDocuments]


def differences(
    first: Side, other: Side, summable: Mapping[str, Sequence[str]], same_documents: frozenset[str]
) -> list[Difference]:
    """Every part's difference, other − first: summed over each unit's tasks, and of every such task.

    Args:
        first: the run compared with.
        other: the one compared.
        summable: tasks by unit.
        same_documents: tasks that are known to have the same documents in both.
    """
    made, rng = [], np.random.default_rng(_SEED)
    for unit, names in summable.items():
        drawn, reasons = {}, {}
        for name in names:
            reason = _why_not(first, other, name, same_documents)
            if reason is None:
                drawn[name] = _draws(first, other, name, rng)
            else:
                reasons[name] = reason
            made += _rows(first, other, unit, name, [name], drawn, reasons)
        if len(names) == 1:  # the sum over it is the task's own
            made += [row.model_copy(update={"task": None}) for row in made if row.task == names[0]]
        else:
            made += _rows(first, other, unit, None, list(names), drawn, reasons)
    return made


def decided(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """With q-values, of sums and of single tasks apart, and what is clear by them."""
    made = list(found)
    for is_sum in (True, False):
        places = [i for i, row in enumerate(made) if (row.task is None) == is_sum]
        q_values = benjamini_hochberg(np.array([made[i].p_value for i in places], dtype=float))
        for i, q in zip(places, q_values.tolist(), strict=True):
            row = made[i]
            excludes = row.interval is not None and row.interval.excludes_zero()
            clear = bool(excludes and q <= LEVEL and row.apart_by_seeds is not False)
            made[i] = row.model_copy(update={"q_value": number(q), "is_clear": clear})
    return tuple(made)


def _why_not(first: Side, other: Side, name: str, same_documents: frozenset[str]) -> str | None:
    """Why a task's documents can not be drawn for both runs."""
    if name not in same_documents:
        return f"it is not known whether the documents of {name} are the same"
    for side in (first, other):
        reason = why_not_drawn(side.documents.get(name), side.tasks[name])
        if reason is not None:
            return f"{name} in {side.name}: {reason}"
        if len(side.documents[name].doc_ids) < MOST_FEW:
            return f"{name} in {side.name}: its account is of fewer than {MOST_FEW} documents"
    return None


def _draws(first: Side, other: Side, name: str, rng: np.random.Generator) -> dict[Key, Float[np.ndarray, " R"]]:
    """Draws of every part's difference in one task; a part that one run does not have is 0 there."""
    pair = first.documents[name], other.documents[name]
    keys = list(dict.fromkeys([*pair[0].keys, *pair[1].keys]))
    before_RK, after_RK = joint_draws([documents.parts(keys) for documents in pair], rng)
    difference_RK = after_RK - before_RK
    return {**{key: difference_RK[:, k] for k, key in enumerate(keys)}, GAP: difference_RK.sum(axis=1)}


def _rows(
    first: Side,
    other: Side,
    unit: str,
    task: str | None,
    names: Sequence[str],
    drawn: Mapping[str, Mapping[Key, np.ndarray]],
    reasons: Mapping[str, str],
) -> list[Difference]:
    """One row a part, and one of all parts together."""
    sides = [[c for name in names for c in side.tasks[name].components] for side in (first, other)]
    before, after = (parts_of(components) for components in sides)
    n = min(side.tasks[name].n_accounted for side in (first, other) for name in names)
    reason = next((reasons[name] for name in names if name in reasons), None)
    rows = []
    for key in [*dict.fromkeys([*before, *after]), GAP]:
        own = sides if key == GAP else [before.get(key, []), after.get(key, [])]
        values = [sum(c.contribution for c in members) for members in own]
        draws = [drawn[name][key] for name in names if name in drawn and key in drawn[name]]
        spread = None if reason else _spread(sum(draws, np.zeros(1)), values[1] - values[0], n)
        rows.append(
            Difference(
                run=other.name,
                against=first.name,
                unit=unit,
                task=task,
                kind=key[0],
                category=key[1],
                difference=values[1] - values[0],
                written=_of_origin(own, "written"),
                read=_of_origin(own, "read"),
                interval=spread and spread[0],
                reason=reason or (None if spread else "too few of its documents are in both accounts"),
                p_value=spread and spread[1],
                q_value=None,
                apart_by_seeds=_apart_by_seeds(*own) if key[0] == "latents" else None,
                is_clear=False,
            )
        )
    return rows


def _spread(draws_R: Float[np.ndarray, " R"], difference: float, n: int) -> tuple[Interval, float | None] | None:
    """The interval of a difference, and its p-value by Student's t with the bootstrap's standard error.

    Without an error there is no p-value but that of no difference at all.
    """
    if not np.isfinite(draws_R).all():
        return None
    found = percentile_interval(draws_R, n=n)
    error = float(np.std(draws_R) * np.sqrt(n / (n - 1)))
    p_value = 1.0 if difference == 0 else None
    if error > 0:
        p_value = 2 * float(student_cdf(-abs(difference) / error, n - 1))
    return Interval(low=float(found.low), high=float(found.high), method=METHOD), p_value


def _of_origin(sides: Sequence[Sequence[Component]], origin: str) -> float | None:
    before, after = (of_origin(members, origin) for members in sides)
    return None if before is None and after is None else (after or 0.0) - (before or 0.0)


def _apart_by_seeds(before: Sequence[Component], after: Sequence[Component]) -> bool | None:
    """Whether the ranges over crosscoder seeds do not overlap; `None` where a run has one seed."""
    ranges = []
    for members in (before, after):
        n_seeds = min((len(c.seeds) for c in members), default=0)
        if n_seeds == 0:
            return None
        sums = [sum(c.contribution for c in members), *(sum(c.seeds[s] for c in members) for s in range(n_seeds))]
        ranges.append((min(sums), max(sums)))
    (low, high), (other_low, other_high) = ranges
    return high < other_low or other_high < low
