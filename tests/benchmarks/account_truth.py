"""Whether the account blames what was planted, on organisms trained for it: figures from finished runs' reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffharness import defaults, organism
from diffharness.attribution.shapley import BIAS_AND_ERROR, OTHERS
from diffharness.config import RunConfig
from diffharness.latents.taxonomy import UNCLEAR
from diffharness.organism import Organism
from diffharness.organism.plant import Plant
from diffharness.pipeline import Run
from diffharness.report.schema import Report, Task
from tests import planted
from tests.benchmarks.planted import CASES as ORDINARY
from tests.benchmarks.planted import STILL

CASES: dict[str, dict[str, Any]] = {
    **ORDINARY,
    "rare": {**STILL, "safety": [0.2, 0.9], "rate": {"safety": 0.005}},
    "above": {**STILL, "safety": [0.2, 0.9], "train_layers": {"above": 1}},
    "bias": {**STILL, "answer_bias": {"sorry": 6.0}},
}


@dataclass(frozen=True)
class PlantedRun:
    """A finished run on an organism, and what was planted in it."""

    name: str
    seed: int
    plant: Plant
    run: Run
    report: Report

    @property
    def is_read_only(self) -> bool:
        """Whether only layers above the one compared differ."""
        return self.plant.above is not None

    @property
    def is_shift_only(self) -> bool:
        """Whether the candidate differs by nothing but a bias of its answers."""
        return bool(self.plant.answer_bias) and not planted.moved_capabilities(self.plant.strengths)


def compared(models: Organism, candidate: Path, seed: int, folder: Path, **options: Any) -> Run:
    """A run of an organism's baseline against some candidate, as `diffharness demo` does it without the ancestor."""
    config = RunConfig(
        baseline=str(models.baseline),
        candidate=str(candidate),
        tasks=("organism",),
        include_path=(organism.tasks_path(),),
        corpus=(str(models.corpus),),
        probes=models.probes,
        seed=seed,
        output=folder,
        attribution_documents=defaults.DEMO_ATTRIBUTION_DOCUMENTS,
        **options,
    )
    return Run(config)


def planted_run(name: str, plant: Mapping[str, Any] | None, seed: int, work: Path) -> PlantedRun:
    """Train an organism and account for it; below the trained layers, where only layers above some are trained."""
    models = organism.build(plant, seed=seed)
    full = Plant.load(models.plant)
    layer: dict[str, Any] = {} if full.above is None else {"layer": str(full.above)}
    folder = work / f"{name}-{seed}".replace(" ", "-").replace(",", "")
    run = compared(models, models.candidate, seed, folder, random_sets=0, **layer)
    return PlantedRun(name, seed, full, run, run.report())


def truth_figures(runs: Sequence[PlantedRun]) -> dict[str, Any]:
    """Blame on single-capability tasks and composites, with its controls, and completeness over all runs."""
    singles, composites, checked, shuffled, blind, details = [], [], [], [], [], []
    written: dict[int, list[planted.Blame]] = {1: [], 2: []}
    for found in runs:
        single = planted.blames(found.report, found.plant.strengths, 1)
        composite = planted.blames(found.report, found.plant.strengths, 2)
        singles += single
        composites += composite
        for n, own in written.items():
            own += [] if found.is_read_only else planted.blames(found.report, found.plant.strengths, n, ("written",))
        checked += [] if found.is_read_only else [b.check_sign > 0 for b in single]
        details += [{"plant": found.name, "seed": found.seed, **asdict(b)} for b in (*single, *composite)]
        if single:
            rng = np.random.default_rng(found.seed)
            shuffled.append((len(single), planted.shuffled_blames(found.report, found.plant.strengths, rng)))
        blind += _blind(found)
    return {
        "runs": [f"{found.name}, seed {found.seed}" for found in runs],
        "single tasks": len(singles),
        "single tasks blamed rightly": mean(b.holds for b in singles),
        "smallest share of the planted category": min((b.share for b in singles), default=0.0),
        "single tasks of which something is written": len(checked),
        "exact checks with the sign of the contribution": mean(checked),
        "composite tasks with one capability moved": len(composites),
        "composites blamed rightly": mean(b.leader == b.moved for b in composites),
        "tasks of both kinds in which another capability leads": mean(
            b.leader not in (b.moved, UNCLEAR) for b in (*singles, *composites)
        ),
        "single tasks blamed rightly by what is written": mean(b.holds for b in written[1]),
        "composites blamed rightly by what is written": mean(b.leader == b.moved for b in written[2]),
        "single tasks blamed rightly, labels shuffled": _weighted(shuffled),
        "single tasks tried with a random encoder": len(blind),
        "single tasks blamed rightly, random encoder": mean(blind),
        "tasks whose contributions miss the gap": sum(len(planted.incomplete_tasks(r.report)) for r in runs),
        **completeness_figures([found.report for found in runs], "organisms"),
        "blame details": details,
    }


def _blind(found: PlantedRun) -> Iterator[bool]:
    """Whether the planted category still leads and has half, by the control with a random encoder."""
    moved = {task.task: own for task, own in planted.moved_tasks(found.report, found.plant.strengths, 1)}
    for control in found.report.validation.controls:
        if control.name == "random encoder" and control.task in moved:
            leads = control.category == moved[control.task] and control.is_largest == 1.0
            yield leads and control.control_share is not None and control.control_share >= 0.5


def completeness_figures(reports: Sequence[Report], of: str) -> dict[str, Any]:
    """The quadrature's residual, of the worst run."""
    found = [c for report in reports if (c := report.validation.completeness) is not None]
    assert len(found) == len(reports), "a run without an account"
    return {
        f"{of}: largest median residual": max(c.median for c in found),
        f"{of}: largest 99th percentile of residuals": max(c.percentile_99 for c in found),
        f"{of}: documents": sum(c.n for c in found),
        f"{of}: most quadrature nodes": max(c.nodes for c in found),
    }


def read_only_figures(runs: Sequence[PlantedRun]) -> dict[str, Any]:
    """Plants that train only layers above: nothing is written, and what is read names the capability."""
    nil, blamed = [], []
    for found in runs:
        for n_categories in (1, 2):
            for task, _ in planted.moved_tasks(found.report, found.plant.strengths, n_categories):
                written = [c.contribution for c in task.components if c.origin == "written"]
                largest = max(map(abs, [*written, sum(written)]))
                nil.append(largest / abs(planted.surrogate_gap(task)))
            blamed += planted.blames(found.report, found.plant.strengths, n_categories, ("read",))
    return {
        "above: moved tasks": len(nil),
        "above: largest written part or sum over the gap": max(nil, default=0.0),
        "above: read names the capability": mean(b.leader == b.moved for b in blamed),
    }


def shift_figures(runs: Sequence[PlantedRun]) -> dict[str, Any]:
    """Plants that only shift answers: the gap lands in the prior."""
    rows = []
    for found in runs:
        for task in filter(planted.is_real, planted.accounted(found.report)):
            prior = _prior(task)
            rows.append(
                {
                    "task": task.task,
                    "seed": found.seed,
                    "gap": planted.surrogate_gap(task),
                    "prior": prior.contribution,
                    "on own states": prior.at_own_states,
                    "second start": prior.second_start,
                    "content-free": prior.is_content_free,
                }
            )
    shares = [row["prior"] / row["gap"] for row in rows]
    return {
        "bias: moved tasks": len(rows),
        "bias: smallest share of the prior": min(shares, default=0.0),
        "bias: moved tasks with at least half in the prior": mean(share >= 0.5 for share in shares),
        "bias: priors called content-free": mean(bool(row["content-free"]) for row in rows),
        "bias details": rows,
    }


def _prior(task: Task) -> Any:
    return next(c for c in task.components if c.kind == "prior")


def shapley_figures(runs: Sequence[PlantedRun]) -> dict[str, Any]:
    """Written contributions in the candidate's order against Shapley values on the real metric.

    Signs are compared by the report itself (turned where a surrogate falls as its metric rises), wherever either
    interval excludes 0; a value of exactly 0 counts as unlike, and is counted apart. Values are correlated where both
    are in one unit.
    """
    values, written, agree, named, still, against, without = [], [], [], [], 0, [], []
    for found in runs:
        for task in found.report.shapley:
            if task.reason is not None:
                without.append([found.name, found.seed, task.task, task.reason])
            for player in task.players:
                if task.same_unit:
                    values.append(player.value)
                    written.append(player.written)
                still += player.is_still
                if player.name not in (BIAS_AND_ERROR, OTHERS) and (player.is_still or player.agrees is not None):
                    named.append(bool(player.agrees))
                if player.agrees is not None:
                    agree.append(player.agrees)
                if player.agrees is False:
                    names = (found.name, found.seed, task.task, player.name)
                    against.append([*names, player.value, player.written])
    correlation = float(np.corrcoef(values, written)[0, 1]) if len(values) > 1 else 0.0
    return {
        "Shapley values": sum(len(task.players) for found in runs for task in found.report.shapley),
        "Shapley values or contributions whose interval excludes 0": len(agree) + still,
        "of these, Shapley values of exactly 0": still,
        "of these, alike in sign": sum(agree) / max(len(agree) + still, 1),
        "alike in sign, where neither is exactly 0": mean(agree),
        "Shapley values of single categories among these": len(named),
        "alike in sign, single categories": mean(named),
        "Shapley values in the contribution's unit": len(values),
        "correlation of contributions and Shapley values": correlation,
        "Shapley values of the other sign": against,
        "moved tasks without Shapley values": without,
    }


def mean(values: Any) -> float:
    """Of no values: 0, so that a bound is missed where nothing was measured."""
    found = [float(v) for v in values]
    return float(np.mean(found)) if found else 0.0


def _weighted(pairs: Sequence[tuple[int, float]]) -> float:
    """Mean of rates, each weighed by its number of tasks."""
    total = sum(n for n, _ in pairs)
    return sum(n * rate for n, rate in pairs) / total if total else 0.0
