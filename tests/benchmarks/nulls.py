"""Nothing from nothing: what is called where signs, labels or a training's seed are all that there is.

    python -m tests.benchmarks.nulls --json FILE [--quick] [--seed N] [--plants DIR] [--nulls N] [--work DIR]

First the data of a finished run with signs or labels drawn by lot, hundreds of times, through the functions that the
report uses: per-document sign flips of score differences and of contributions, and label permutations of the category
shift. Then trained null pairs (`null_pairs.py`): the baseline trained on with its own mixture, under `--nulls` seeds,
and the planted pair's contributions set against theirs. `--plants DIR` takes the first plant.yaml in DIR in place of
the default plant; `--work DIR` keeps the runs, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from diffharness import organism
from diffharness.assembly.account import present
from diffharness.assembly.shift import THREE, TWO
from diffharness.attribution.account import TaskAccount, sum_components
from diffharness.evaluation.comparison import Aggregation, compare
from diffharness.evaluation.scores import Evaluation, MetricKey
from diffharness.latents.shift import SideLatents, category_shift
from diffharness.pipeline import Run
from diffharness.stages.explanation import task_accounts
from diffharness.stages.reading import MAIN, load_crosscoder, read_latents
from diffharness.stages.scoring import primary
from diffharness.statistics.multiple import benjamini_hochberg
from tests.benchmarks.account_truth import compared
from tests.benchmarks.null_pairs import pair_figures
from tests.benchmarks.record import Bound, write_record

LEVEL = 0.05
ENOUGH = 20
"""Documents that differ, from which on a test of signs can find its whole 5 %; with fewer, being discrete, it finds
less."""
N_ROUNDS, QUICK_ROUNDS = 400, 100


@dataclass(frozen=True)
class Rate:
    """How often something was found where nothing is, a number a round."""

    found_R: np.ndarray
    """Share of the tests of each round that found something; rounds are independent, a round's tests may not be."""

    @property
    def mean(self) -> float:
        """Over all rounds."""
        return float(self.found_R.mean())

    @property
    def allowance(self) -> float:
        """Three standard errors of the mean: what the number of rounds allows."""
        return 3 * float(self.found_R.std(ddof=1)) / len(self.found_R) ** 0.5

    def figures(self, name: str) -> dict[str, float]:
        """The rate and what the rounds allow."""
        return {name: self.mean, f"{name}, allowance": self.allowance}

    def bounds(self, name: str, *, both: bool) -> list[Bound]:
        """At most 5 %, and at least that where `both`, within the allowance."""
        upper = Bound(name, self.mean, f"<= {LEVEL + self.allowance:.5f}")
        return [upper, Bound(name, self.mean, f">= {LEVEL - self.allowance:.5f}")] if both else [upper]


def prepared(plant: Mapping[str, Any] | None, seed: int, work: Path) -> Run:
    """A run on an organism with its ancestor: scores, accounts and category shifts of a pair that differs."""
    models = organism.build(plant, seed=seed)
    return compared(models, models.candidate, seed, work / f"nulls-{seed}", ancestor=str(models.ancestor))


def score_rates(run: Run, rng: np.random.Generator, n_rounds: int) -> dict[str, Rate]:
    """Both sides exchanged on random documents of every task; all, and those with enough differing documents."""
    baseline, candidate = (_of_primary(run, run.load_evaluation(side)) for side in MAIN)
    found: dict[str, list[list[bool]]] = {"all": [], "enough": []}
    for (task, metric), base in baseline.items():
        cand = candidate[task, metric]
        aggregation = run.session.tasks.aggregation(task, metric.metric)
        n_differing = sum(
            a.values[metric.metric] != b.values[metric.metric]
            for a, b in zip(base.documents, cand.documents, strict=True)
        )
        if not n_differing:
            continue
        calls = []
        for _ in range(n_rounds):
            sides = _exchanged((base, cand), task, metric, aggregation, rng)
            result = compare(task, metric, *sides, aggregation, rng).result
            calls.append(result.p_value < LEVEL and (result.low > 0 or result.high < 0))
        found["all"].append(calls)
        if n_differing >= ENOUGH:
            found["enough"].append(calls)
    return {name: Rate(np.mean(calls, axis=0)) for name, calls in found.items() if calls}


def _of_primary(run: Run, evaluation: Evaluation) -> dict[tuple[str, MetricKey], Evaluation]:
    """Each task's documents under its primary metric, as an evaluation of their own."""
    found = {}
    for info in evaluation.tasks:
        metric = primary(run, info)
        own = evaluation.of(info.name, metric.filter)
        documents = tuple(own[doc_id] for doc_id in sorted(own))
        found[info.name, metric] = replace(evaluation, tasks=(info,), documents=documents)
    return found


def _exchanged(
    sides: tuple[Evaluation, Evaluation],
    task: str,
    metric: MetricKey,
    aggregation: Aggregation,
    rng: np.random.Generator,
) -> tuple[Evaluation, Evaluation]:
    """Both evaluations with their documents' values exchanged at random."""
    swap = rng.random(len(sides[0].documents)) < 0.5
    found = []
    for own, other in (sides, sides[::-1]):
        documents = tuple(
            replace(mine, values=theirs.values) if swapped else mine
            for mine, theirs, swapped in zip(own.documents, other.documents, swap, strict=True)
        )
        score = float(aggregation([d.values[metric.metric] for d in documents]))
        info = replace(own.task(task), scores={**own.task(task).scores, str(metric): score})
        found.append(replace(own, tasks=(info,), documents=documents))
    return found[0], found[1]


def contribution_rates(
    accounts: Sequence[TaskAccount], categories: Sequence[str], rng: np.random.Generator, n_rounds: int
) -> dict[str, Rate]:
    """Each document's contributions with a random sign, all of them with the same one."""
    names = present(categories)
    rounds: dict[str, list[float]] = {key: [] for key in ("tests", "intervals", "lists")}
    enough = [_has_enough(account, categories, names, rng) for account in accounts]
    for _ in range(n_rounds):
        p_values, clear = [], []
        for account, kept in zip(accounts, enough, strict=True):
            signs = rng.choice((-1.0, 1.0), len(account.scale_N))
            parts = sum_components(replace(account, scale_N=signs * account.scale_N), categories, names, rng)
            p_values += [part.p_value for part, keep in zip(parts, kept, strict=True) if keep]
            clear += [part.low > 0 or part.high < 0 for part, keep in zip(parts, kept, strict=True) if keep]
        rounds["tests"].append(float(np.mean(np.array(p_values) < LEVEL)))
        rounds["intervals"].append(float(np.mean(clear)))
        rounds["lists"].append(float((benjamini_hochberg(p_values) < LEVEL).any()))
    return {key: Rate(np.array(values)) for key, values in rounds.items()}


def _has_enough(
    account: TaskAccount, categories: Sequence[str], names: Sequence[str], rng: np.random.Generator
) -> list[bool]:
    """Which components are not 0 on enough documents, in the order of `sum_components`."""
    from diffharness.attribution.account import contributions

    values_NC = contributions(account, categories, names).values_NC
    return ((values_NC != 0).sum(axis=0) >= ENOUGH).tolist()


def shift_rates(run: Run, rng: np.random.Generator, n_rounds: int) -> dict[str, Rate]:
    """Categories dealt out anew to the latents of all dictionaries that a shift is of, by both measures."""
    found = {}
    for protocol, sides in (
        (TWO, [("ancestor", "baseline"), ("ancestor", "candidate")]),
        (THREE, [("ancestor", *MAIN)] * 2),
    ):
        bodies = [run.read_json(run.latents(own), "latents.json") for own in sides]
        calls: dict[str, list[float]] = {"counts": [], "mass": []}
        for _ in range(n_rounds):
            both = _dealt(bodies, rng, one_dictionary=protocol == THREE)
            rows = category_shift(*both, rng, one_dictionary=protocol == THREE, n_draws=400)
            for measure, p_values in (
                ("counts", [row.p_value for row in rows if row.p_value is not None]),
                ("mass", [row.mass_p_value for row in rows if row.mass_p_value is not None]),
            ):
                calls[measure].append(float(np.mean([p < LEVEL for p in p_values])) if p_values else 0.0)
        found |= {f"{protocol}, {measure}": Rate(np.array(values)) for measure, values in calls.items()}
    return found


def _dealt(bodies: Sequence[Any], rng: np.random.Generator, *, one_dictionary: bool) -> list[SideLatents]:
    if one_dictionary:
        dealt = rng.permutation(bodies[0]["categories"]).tolist()
        names = [dealt, dealt]
    else:
        dealt = rng.permutation([*bodies[0]["categories"], *bodies[1]["categories"]]).tolist()
        n = len(bodies[0]["categories"])
        names = [dealt[:n], dealt[n:]]
    return [
        SideLatents(own, np.array(body["tuned"][side]["is_specific"]), np.array(body["tuned"][side]["acquired"]))
        for own, body, side in zip(names, bodies, MAIN, strict=True)
    ]


def drawn_figures(run: Run, seed: int, n_rounds: int) -> tuple[dict[str, Any], list[Bound]]:
    """All rates with signs and labels drawn, and their bounds."""
    run.report()
    rng = np.random.default_rng([seed, 5])
    scores = score_rates(run, rng, n_rounds)
    accounts, _ = task_accounts(run, load_crosscoder(run, MAIN), lambda *_: None)
    parts = contribution_rates(accounts, [latent.category for latent in read_latents(run, MAIN)], rng, n_rounds)
    shifts = shift_rates(run, rng, n_rounds)
    rates = {
        "gaps called, signs of score differences drawn": (scores["all"], False),
        f"gaps with {ENOUGH} differing documents called, signs drawn": (scores["enough"], True),
        f"contributions of {ENOUGH} documents called, signs drawn": (parts["tests"], True),
        "lists with a contribution called at q < 5 %, signs drawn": (parts["lists"], False),
        **{f"categories called, labels drawn: {name}": (rate, "mass" in name) for name, rate in shifts.items()},
    }
    figures: dict[str, Any] = {"rounds": n_rounds, "level": LEVEL}
    bounds = []
    for name, (rate, both) in rates.items():
        figures |= rate.figures(name)
        bounds += rate.bounds(name, both=both)
    figures |= parts["intervals"].figures("contributions whose interval excludes 0, signs drawn")
    return figures, bounds


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="Fewer rounds, and two null pairs.")
@click.option("--seed", default=0)
@click.option("--plants", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--nulls", default=10, help="Null trainings.")
@click.option("--work", type=click.Path(path_type=Path))
def main(file: Path, quick: bool, seed: int, plants: Path | None, nulls: int, work: Path | None) -> None:
    """Measure, and write the record."""
    files = sorted(plants.glob("*.yaml")) if plants is not None else []
    if plants is not None and not files:
        raise click.UsageError(f"--plants {plants} holds no .yaml file")
    plant = yaml.safe_load(files[0].read_text(encoding="utf-8")) if files else None
    nulls, n_rounds = (2, QUICK_ROUNDS) if quick else (nulls, N_ROUNDS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        figures, bounds = drawn_figures(prepared(plant, seed, folder), seed, n_rounds)
        pairs, of_pairs = pair_figures(plant, nulls, seed, folder)
    write_record(file, {**figures, **pairs}, [*bounds, *of_pairs], seeds=[seed, *pairs["seeds of null trainings"]])


if __name__ == "__main__":
    main()
