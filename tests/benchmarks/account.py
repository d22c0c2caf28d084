"""Whether the account of the gap blames what was planted, is complete, and what it costs.

    python -m tests.benchmarks.account --json FILE [--quick] [--seed N] [--seeds K] [--plants DIR] [--work DIR]

Organisms of seven plants and K seeds (2 by default), from N on, each evaluated and accounted for as `diffharness demo`
does, on as many documents (`account_truth.py`); a real pair of small models, where it is on the machine
(`account_real.py`); time against plain lm-eval, and memory (`account_speed.py`). `--plants DIR` takes every plant.yaml
in DIR in place of the built-in plants; `--quick` takes the first plant under one seed and fewer rounds; `--work DIR`
keeps the runs, so that an interrupted benchmark goes on; `--no-costs` leaves times and memory out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from tests.benchmarks.account_real import real_figures
from tests.benchmarks.account_speed import (
    MEMORY_DOCUMENTS,
    larger_pair,
    largest,
    memory_figures,
    organism_pair,
    speed_figures,
)
from tests.benchmarks.account_truth import (
    CASES,
    PlantedRun,
    planted_run,
    read_only_figures,
    shapley_figures,
    shift_figures,
    truth_figures,
)
from tests.benchmarks.record import Bound, write_record

BY_CHANCE = 0.2
"""One of nine names falls on the latents that carry most by chance: 0.11, and some room for tasks of several."""
COSTS = {
    "written an order over evaluation": "<= 6",
    "read an order over evaluation": "<= 60",
    "exact check over evaluation": "<= 3",
}


def truth(runs: Sequence[PlantedRun]) -> tuple[dict[str, Any], list[Bound]]:
    """Blame, Shapley values and completeness, with what only some plants show."""
    figures = {**truth_figures(runs), **shapley_figures(runs)}
    asked = {
        "single tasks blamed rightly": ">= 0.95",
        "single tasks blamed rightly by what is written": ">= 0.95",
        "exact checks with the sign of the contribution": ">= 0.95",
        "tasks whose contributions miss the gap": "<= 0",
        "single tasks blamed rightly, labels shuffled": f"<= {BY_CHANCE}",
        "of these, alike in sign": ">= 0.95",
        "alike in sign, where neither is exactly 0": ">= 0.95",
        "alike in sign, single categories": ">= 0.95",
        "correlation of contributions and Shapley values": ">= 0.95",
        **_complete("organisms"),
    }
    if figures["composite tasks with one capability moved"]:
        asked["composites blamed rightly"] = ">= 0.9"
        asked["composites blamed rightly by what is written"] = ">= 0.9"
    above = [found for found in runs if found.is_read_only]
    if above:
        figures |= read_only_figures(above)
        asked |= {
            "above: moved tasks": ">= 1",
            "above: largest written part or sum over the gap": "<= 0.01",
            "above: read names the capability": ">= 0.95",
        }
    shifts = [found for found in runs if found.is_shift_only]
    if shifts:
        figures |= shift_figures(shifts)
        asked |= {"bias: moved tasks": ">= 1", "bias: smallest share of the prior": ">= 0.5"}
    return figures, _bounds(figures, asked)


def cost(run: PlantedRun, n_rounds: int, seed: int, say: Callable[[str], None]) -> tuple[dict[str, Any], list[Bound]]:
    """Time and memory of path integrals, and time of exact checks."""
    figures = speed_figures(organism_pair(run.run), n_rounds, say)
    with tempfile.TemporaryDirectory() as folder:
        figures |= speed_figures(larger_pair(Path(folder), seed), n_rounds, say)
    say("memory")
    figures |= memory_figures(MEMORY_DOCUMENTS)
    bounds = [Bound(f"largest {name}", largest(figures, name), bound) for name, bound in COSTS.items()]
    return figures, [*bounds, *_bounds(figures, {"memory: growth with twice the documents": "<= 1.1"})]


def _complete(of: str) -> dict[str, str]:
    return {f"{of}: largest median residual": "<= 0.003", f"{of}: largest 99th percentile of residuals": "<= 0.02"}


def _bounds(figures: Mapping[str, Any], asked: Mapping[str, str]) -> list[Bound]:
    return [Bound(name, figures[name], bound) for name, bound in asked.items()]


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="The first plant under one seed, and fewer rounds of the times.")
@click.option("--seed", default=0)
@click.option("--seeds", "n_seeds", type=click.IntRange(1), default=2)
@click.option("--plants", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", type=click.Path(path_type=Path))
@click.option("--costs/--no-costs", default=True, help="Measure times and memory too.")
def main(file: Path, quick: bool, seed: int, n_seeds: int, plants: Path | None, work: Path | None, costs: bool) -> None:
    """Measure, and write the record."""
    cases = CASES if plants is None else {p.stem: yaml.safe_load(p.read_text()) for p in sorted(plants.glob("*.yaml"))}
    if not cases:
        raise click.UsageError(f"--plants {plants} holds no .yaml file")
    cases, seeds = (dict(list(cases.items())[:1]), [seed]) if quick else (cases, list(range(seed, seed + n_seeds)))
    say = lambda words: click.echo(words, err=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as scratch:
        folder, runs = work or Path(scratch), []
        for number in seeds:
            for name, plant in cases.items():
                say(f"{name}, seed {number}")
                runs.append(planted_run(name, plant, number, folder))
        figures, bounds = truth(runs)
        say("real pair")
        figures |= real_figures(seed, folder)
        if "real pair: tasks" in figures:
            asked = {**_complete("real pair"), "real pair: tasks whose contributions miss the gap": "<= 0"}
            bounds += _bounds(figures, asked)
        of_cost, cost_bounds = cost(runs[0], 3 if quick else 7, seed, say) if costs else ({}, [])
    write_record(file, {**figures, **of_cost}, [*bounds, *cost_bounds], seeds=seeds)


if __name__ == "__main__":
    main()
