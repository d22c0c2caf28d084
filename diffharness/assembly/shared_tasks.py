"""Which tasks of several runs can be compared, which can be summed, and why others can not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffharness.assembly.matrix import by_unit, why_not
from diffharness.report.compare.runs import Run
from diffharness.report.schema import Task
from diffharness.report.view import is_explained, is_real, primary


@dataclass(frozen=True)
class Shared:
    """The tasks of some runs."""

    by_task: Mapping[str, Mapping[str, Task]]
    """By task and run: what at least two runs share, on the same documents and prompts."""
    common: tuple[str, ...]
    """What all runs share."""
    summable: Mapping[str, tuple[str, ...]]
    """By unit: common tasks whose accounts can be added up in every run."""
    same_documents: frozenset[str]
    """Tasks that are known to have the same documents and prompts in all their runs."""
    left_out: tuple[str, ...]
    """Sentences."""


def shared_tasks(runs: Sequence[Run]) -> Shared:
    """Sort the runs' tasks, each by its primary metric."""
    found: dict[str, dict[str, Task]] = {}
    for run in runs:
        for task in primary(run.report):
            found.setdefault(task.task, {})[run.name] = task
    by_task, left_out, same = {}, [], set()
    for name, of_run in found.items():
        hashes = {run.name: run.report.provenance.task_hashes.get(name) for run in runs if run.name in of_run}
        reason = _apart(of_run, hashes)
        if reason is not None:
            left_out.append(f"{name} is left out: {reason}")
            continue
        by_task[name] = of_run
        if None not in hashes.values():
            same.add(name)
    common = tuple(name for name, of_run in by_task.items() if len(of_run) == len(runs))
    accounted: dict[str, Task] = {}
    for name in common:
        of_run = by_task[name]
        if not any(is_real(task) for task in of_run.values()):
            continue
        reason = _unaccounted(of_run)
        if reason is None:
            accounted[name] = next(iter(of_run.values()))
        else:
            left_out.append(f"{name} is in no sum: {reason}")
    summable = {unit: tuple(task.task for task in own) for unit, own in by_unit(list(accounted.values())).items()}
    return Shared(by_task, common, summable, frozenset(same), tuple(left_out))


def _apart(of_run: Mapping[str, Task], hashes: Mapping[str, str | None]) -> str | None:
    """Why the runs' scores of a task can not stand side by side."""
    if len(of_run) == 1:
        return f"only {next(iter(of_run))} has it"
    scores = {run: f"{task.metric},{task.filter}" for run, task in of_run.items()}
    if len(set(scores.values())) > 1:
        return f"its metric is {_of_each(scores)}"
    known = {run: found for run, found in hashes.items() if found is not None}
    if len(set(known.values())) > 1:
        return f"its documents or prompts differ (hash {_of_each(known)})"
    sizes = {run: str(task.n) for run, task in of_run.items()}
    if len(set(sizes.values())) > 1:
        return f"its documents differ ({_of_each(sizes)})"
    if len({task.higher_is_better for task in of_run.values()}) > 1:
        return "higher is better in some runs only"
    return None


def _unaccounted(of_run: Mapping[str, Task]) -> str | None:
    """Why a task that moved in some run can not be added to a sum."""
    for run, task in of_run.items():
        if not task.components or task.surrogate is None or (is_real(task) and not is_explained(task)):
            return f"{why_not(task)} (in {run})"
    units = {run: task.surrogate.unit for run, task in of_run.items() if task.surrogate is not None}
    if len(set(units.values())) > 1:
        return f"its account is in {_of_each(units)}"
    return None


def _of_each(values: Mapping[str, str]) -> str:
    return ", ".join(f"{value} in {run}" for run, value in values.items())
