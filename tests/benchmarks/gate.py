"""How often the gate is wrong, and how often it finds a loss: `python -m tests.benchmarks.gate`.

Simulated runs of 20 tasks, decided by `diffharness/regression/decision.py`: nothing changed; a true loss of half the
margin, of the margin and of twice the margin; the same in clusters of documents, beside a test that ignores them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from diffharness.regression.comparison import Terms
from diffharness.regression.decision import Decision, decisions
from diffharness.regression.evidence import Evidence
from diffharness.regression.power import detectable_loss
from tests.benchmarks.gate_tasks import N_RESAMPLES, Task, clustered_tasks, evidence_of, plain_tasks
from tests.benchmarks.record import Bound, write_record

ALPHA, POWER = 0.05, 0.8
_BATCH = 50
"""Runs simulated at a time; they share their resamples."""
_ALARMS = ("regression", "likely regression")


class Tally:
    """What was found in the runs of one setting."""

    def __init__(self, tasks: Sequence[Task], alpha: float = ALPHA, margin: float | None = None) -> None:
        self.tasks = tasks
        self.n_runs = 0
        self.runs: Counter[str] = Counter()
        """Runs with at least one such verdict."""
        self.verdicts: list[Counter[str]] = [Counter() for _ in tasks]
        self._terms = [Terms(task.margin if margin is None else margin, alpha) for task in tasks]
        self._alone = [Terms(terms.margin, alpha / len(tasks), "none") for terms in self._terms]
        self.alone: Counter[int] = Counter()
        """By task, alarms at the alpha of the first of Holm's steps: were it the only one to lose."""

    def add(self, evidence: Sequence[Sequence[Evidence]]) -> None:
        """Decide runs; by task, their evidence."""
        for run in zip(*evidence, strict=True):
            found = decisions(self._terms, run)
            self.n_runs += 1
            self.runs.update(_kinds(found))
            for task, (counter, one) in enumerate(zip(self.verdicts, found, strict=True)):
                counter[one.verdict] += 1
                self.alone[task] += decisions([self._alone[task]], [run[task]])[0].verdict in _ALARMS

    def rate(self, kind: str) -> float:
        """Share of runs with at least one."""
        return self.runs[kind] / self.n_runs

    def share(self, task: int, *kinds: str) -> float:
        """Share of one task's verdicts."""
        return sum(self.verdicts[task][kind] for kind in kinds) / self.n_runs


def _kinds(found: Sequence[Decision]) -> set[str]:
    verdicts = {one.verdict for one in found}
    passes = verdicts <= {"pass", "improved"}
    return {*verdicts, *(["alarm"] if verdicts & set(_ALARMS) else []), *(["all pass"] if passes else [])}


def simulated(
    tasks: Sequence[Task],
    times: float,
    n_runs: int,
    rng: np.random.Generator,
    *,
    naive: bool = False,
    margin: float | None = None,
) -> tuple[Tally, Tally | None, Tally | None, list[float | None]]:
    """Runs whose tasks all lose `times` their margin.

    Returns:
        What the gate made of them; what it would ignoring clusters (`naive`); what it would with another `margin`; and
        by task the median of the losses beyond the margin that the gate promises to find.
    """
    tally, ignoring, other = Tally(tasks), Tally(tasks), Tally(tasks, margin=margin)
    promised: list[list[float]] = [[] for _ in tasks]
    for start in range(0, n_runs, _BATCH):
        size = min(_BATCH, n_runs - start)
        made = [evidence_of(task, times * task.margin, size, rng, ignore_clusters=naive) for task in tasks]
        tally.add([own for own, _ in made])
        if naive:
            ignoring.add([beside if beside is not None else own for own, beside in made])
        if margin is not None:
            other.add([own for own, _ in made])
        for values, (own, _), task in zip(promised, made, tasks, strict=True):
            found = (detectable_loss(one, task.margin, ALPHA / len(tasks)) for one in own)
            values += [np.inf if loss is None else loss for loss in found]
    medians = [float(np.median(values)) for values in promised]
    return tally, ignoring if naive else None, other if margin is not None else None, [
        median if np.isfinite(median) else None for median in medians
    ]  # fmt: skip


def power_figures(name: str, tally: Tally, promised: Sequence[float | None]) -> tuple[dict[str, Any], list[float]]:
    """How often a loss of twice the margin is caught, by task; and of the tasks whose promise covers it."""
    figures: dict[str, Any] = {}
    kept = []
    for i, (task, extra) in enumerate(zip(tally.tasks, promised, strict=True)):
        alone = tally.alone[i] / tally.n_runs
        covered = extra is not None and extra <= task.margin
        kept += [alone] if covered else []
        figures[f"{name}: {task.name}"] = {
            "caught": tally.share(i, *_ALARMS),
            "caught, the only one to lose": alone,
            "called a regression": tally.share(i, "regression"),
            "passed": tally.share(i, "pass", "improved"),
            "loss beyond the margin that is promised": extra,
            "promised": covered,
        }
    return figures, kept


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the record is written.")
@click.option("--quick", is_flag=True, help="Fewer runs.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(file: Path, quick: bool, seed: int) -> None:
    """Simulated errors and power of the gate."""
    n_runs = 100 if quick else 1000
    rng = np.random.default_rng(seed)
    allowance = 2 * (ALPHA * (1 - ALPHA) / n_runs) ** 0.5
    figures: dict[str, Any] = {
        "runs a setting": n_runs,
        "tasks a run": 20,
        "resamples a score": N_RESAMPLES,
        "allowance: two standard errors of a rate of 5 % in so many runs": allowance,
    }
    bounds: list[Bound] = []

    def at_most(name: str, value: float) -> None:
        bounds.append(Bound(name, value, f"<= {ALPHA + allowance:.4f}"))
        click.echo(f"{name:90s} {value:.3f}  {'holds' if bounds[-1].holds else 'MISSED'}", err=True)

    def at_least(name: str, kept: list[float]) -> None:
        figures[f"{name}, tasks promised"] = len(kept)
        if kept:
            slack = 2 * (POWER * (1 - POWER) / n_runs) ** 0.5
            bounds.append(Bound(f"{name}, mean of tasks promised", float(np.mean(kept)), f">= {POWER}"))
            bounds.append(Bound(f"{name}, least of tasks promised", min(kept), f">= {POWER - slack:.4f}"))
            click.echo(f"{name:90s} {np.mean(kept):.3f}, least {min(kept):.3f} of {len(kept)}", err=True)

    def note(name: str, value: float) -> None:
        figures[name] = value
        click.echo(f"{name:90s} {value:.3f}", err=True)

    _plain(n_runs, rng, figures, at_most, at_least, note)
    for n_clusters in (40, 15):
        _clustered(n_clusters, n_runs, rng, figures, at_most, at_least, note)
    write_record(file, figures, bounds, seeds=[seed])
    click.echo(f"{sum(b.holds for b in bounds)} of {len(bounds)} bounds hold", err=True)


def _plain(
    n_runs: int, rng: np.random.Generator, figures: dict[str, Any], at_most: Any, at_least: Any, note: Any
) -> None:
    tasks = plain_tasks()
    null, _, zero, _ = simulated(tasks, 0.0, n_runs, rng, margin=0.0)
    at_most("no change: runs with a false alarm", null.rate("alarm"))
    at_most("no change: runs with a false improvement", null.rate("improved"))
    assert zero is not None
    at_most("no change, margins of 0: runs with a false alarm", zero.rate("alarm"))
    note("no change: runs in which every task passes", null.rate("all pass"))
    note("no change: share of tasks that pass", float(np.mean([null.share(i, "pass", "improved") for i in range(20)])))
    half, _, _, _ = simulated(tasks, 0.5, n_runs, rng)
    note("half the margin lost by every task: runs with an alarm", half.rate("alarm"))
    note("half the margin lost by every task: share of tasks with an alarm",
         float(np.mean([half.share(i, *_ALARMS) for i in range(20)])))  # fmt: skip
    at_most("half the margin lost by every task: runs with a regression", half.rate("regression"))
    whole, _, _, _ = simulated(tasks, 1.0, n_runs, rng)
    at_most("the margin lost by every task: runs with a regression", whole.rate("regression"))
    at_most("the margin lost by every task: runs in which every task passes", whole.rate("all pass"))
    note(
        "the margin lost: share of tasks that pass",
        float(np.mean([whole.share(i, "pass", "improved") for i in range(20)])),
    )
    twice, _, _, promised = simulated(tasks, 2.0, n_runs, rng)
    more, kept = power_figures("twice the margin lost", twice, promised)
    figures |= more
    at_least("twice the margin lost: caught, the only one to lose", kept)


def _clustered(
    n_clusters: int, n_runs: int, rng: np.random.Generator, figures: dict[str, Any],
    at_most: Any, at_least: Any, note: Any,
) -> None:  # fmt: skip
    tasks, where = clustered_tasks(n_clusters), f"{n_clusters} clusters"
    null, naive, zero, _ = simulated(tasks, 0.0, n_runs, rng, naive=True, margin=0.0)
    assert naive is not None
    assert zero is not None
    at_most(f"{where}, no change: runs with a false alarm", null.rate("alarm"))
    at_most(f"{where}, no change: runs with a false improvement", null.rate("improved"))
    at_most(f"{where}, no change, margins of 0: runs with a false alarm", zero.rate("alarm"))
    note(f"{where}, no change: runs with a false alarm by a test that ignores clusters", naive.rate("alarm"))
    note(f"{where}, no change: runs in which every task passes", null.rate("all pass"))
    twice, _, _, promised = simulated(tasks, 2.0, n_runs, rng)
    more, kept = power_figures(f"{where}, twice the margin lost", twice, promised)
    figures |= more
    at_least(f"{where}, twice the margin lost: caught, the only one to lose", kept)


if __name__ == "__main__":
    main()
