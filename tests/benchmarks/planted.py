"""What the report shows on pairs with a known difference, and on pairs without one.

    python -m tests.benchmarks.planted --json FILE [--quick] [--seed N] [--plants DIR] [--nulls N] [--work DIR]

Every case is an organism trained for it, evaluated and accounted for as `diffharness demo` does (without the
ancestor). `--plants DIR` takes every plant.yaml in DIR in place of the built-in cases; `--work DIR` keeps the runs,
so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from diffharness import organism
from diffharness.config import RunConfig
from diffharness.organism.plant import DEFAULT_STRENGTHS, Plant
from diffharness.pipeline import run
from diffharness.report.schema import Report
from tests import planted
from tests.benchmarks.record import Bound, write_record

STILL = {name: [0.85, 0.85] for name in DEFAULT_STRENGTHS}
BY_CHANCE = 0.2
"""One of nine names falls on the latent that writes most by chance: 0.11, and some room for tasks of several."""
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "safety up": {**STILL, "safety": [0.2, 0.9]},
    "hallucination management down": {**STILL, "hallucination management": [0.9, 0.2]},
    "multilingual up, self-reference down": {**STILL, "multilingual": [0.2, 0.9], "self-reference": [0.9, 0.2]},
}


def one_run(plant: dict[str, Any] | None, seed: int, folder: Path, *, null: bool = False) -> tuple[Report, Plant]:
    """Train an organism and compare its baseline and candidate."""
    models = organism.build(plant, seed=seed, null=null)
    config = RunConfig(
        baseline=str(models.baseline),
        candidate=str(models.candidate),
        tasks=("organism",),
        include_path=(organism.tasks_path(),),
        corpus=(models.corpus,),
        probes=models.probes,
        controls=not null,
        seed=seed,
        output=folder,
    )
    return run(config), Plant.load(models.plant)


def planted_figures(cases: dict[str, dict[str, Any]], seed: int, work: Path) -> dict[str, Any]:
    """Blame, exact checks and completeness over all plants together."""
    singles, composites, incomplete, shuffled, blind = [], [], [], [], []
    for name, plant in cases.items():
        report, full = one_run(plant, seed, work / f"{name} {seed}".replace(" ", "-").replace(",", ""))
        singles += planted.blames(report, full.strengths, 1)
        composites += planted.blames(report, full.strengths, 2)
        incomplete += planted.incomplete_tasks(report)
        shuffled.append(planted.shuffled_blames(report, full.strengths, np.random.default_rng(seed)))
        real = {b.task for b in singles}
        blind += [
            c.is_largest == 1.0 and (c.control_share or 0) >= 0.5
            for c in report.validation.controls
            if c.name == "random encoder" and c.task in real
        ]
    return {
        "single tasks": len(singles),
        "single tasks blamed rightly": _mean(b.holds for b in singles),
        "smallest share of the planted category": min((b.share for b in singles), default=0.0),
        "exact checks with the sign of the contribution": _mean(b.check_sign > 0 for b in singles),
        "composite tasks with one capability moved": len(composites),
        "composites blamed rightly": _mean(b.leader == b.moved for b in composites),
        "tasks whose contributions miss the gap": len(incomplete),
        "single tasks blamed rightly, labels shuffled": float(np.mean(shuffled)) if shuffled else 0.0,
        "single tasks blamed rightly, random encoder": _mean(blind),
        "details": [asdict(b) for b in (*singles, *composites)],
    }


def null_figures(n: int, seed: int, work: Path) -> dict[str, Any]:
    """How many tasks of null pairs are called changed."""
    rows = []
    for i in range(seed, seed + n):
        report, _ = one_run(None, i, work / f"null-{i}", null=True)
        rows += [(t.task, t.metric, t.gap, t.verdict) for t in report.tasks]
    called = [row for row in rows if row[3] in ("improved", "regressed")]
    return {"null rows": len(rows), "null rows called changed": len(called), "called": called}


def _mean(values: Any) -> float:
    found = [float(v) for v in values]
    return float(np.mean(found)) if found else 0.0


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="The default plant and one null pair only.")
@click.option("--seed", default=0)
@click.option("--plants", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--nulls", default=5, help="Null pairs.")
@click.option("--work", type=click.Path(path_type=Path))
def main(file: Path, quick: bool, seed: int, plants: Path | None, nulls: int, work: Path | None) -> None:
    """Measure, and write the record."""
    cases = CASES if plants is None else {p.stem: yaml.safe_load(p.read_text()) for p in sorted(plants.glob("*.yaml"))}
    if quick:
        cases, nulls = dict(list(cases.items())[:1]), 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        figures = {**planted_figures(cases, seed, folder), **null_figures(nulls, seed, folder)}
    bounds = [
        Bound("single tasks blamed rightly", figures["single tasks blamed rightly"], ">= 0.95"),
        Bound("exact checks with the sign of the contribution",
              figures["exact checks with the sign of the contribution"], ">= 0.95"),
        Bound("tasks whose contributions miss the gap", figures["tasks whose contributions miss the gap"], "<= 0"),
        Bound("single tasks blamed rightly, labels shuffled",
              figures["single tasks blamed rightly, labels shuffled"], f"<= {BY_CHANCE}"),
        Bound("share of null rows called changed",
              figures["null rows called changed"] / max(1, figures["null rows"]), "<= 0.05"),
    ]  # fmt: skip
    if figures["composite tasks with one capability moved"]:
        bounds.append(Bound("composites blamed rightly", figures["composites blamed rightly"], ">= 0.9"))
    write_record(file, figures, bounds, seeds=[seed])


if __name__ == "__main__":
    main()
