"""How often the 95 % interval of a gap holds the true one, by simulation: `python -m tests.benchmarks.intervals`.

Right and wrong, normal, skewed and heavy-tailed differences, ratios, corpus metrics, clusters and groups, at 10 to 1000
documents. The bound is asked for where reports call no interval approximate: skewness at most 1, 200 documents and 30
clusters and more, and all of right and wrong. The other cases are recorded. Legend: N documents, G clusters, K
simulated data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from diffharness.statistics.paired import FEW_CLUSTERS, FEW_DOCUMENTS, SKEWED, paired_difference
from diffharness.statistics.resampled import Resampled, Sums, mean_of_sums, resampled_gap
from tests.benchmarks.record import Bound, write_record

LEAST = 0.93
_BATCH = 100
"""Data sets simulated at a time; they share their resamples."""
_EXCHANGES = 1999
"""Exchanges a test, here: it only decides whether an interval is widened to 0."""

Strata = list[tuple[float, Resampled]]


@dataclass(frozen=True)
class Case:
    """A population, and how many documents are drawn from it."""

    name: str
    n: int
    draw: Callable[[np.random.Generator, int, int], tuple[Strata, float]]
    """From a generator, the documents and the data sets to scores and the true gap."""
    bounded: bool
    """Whether the bound is asked for."""
    n_clusters: int | None = None


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the record is written.")
@click.option("--quick", is_flag=True, help="Fewer data sets a case.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(file: Path, quick: bool, seed: int) -> None:
    """Simulated coverage of the intervals of gaps."""
    n_sets = 500 if quick else 2000
    figures: dict[str, Any] = {"simulated data sets a case": n_sets}
    bounds: list[Bound] = []
    for name, coverage, extra, bounded in results(np.random.default_rng(seed), n_sets):
        figures[f"coverage: {name}"] = coverage
        figures |= {f"{what}: {name}": value for what, value in extra.items()}
        if bounded:
            bounds.append(Bound(f"coverage: {name}", coverage, f">= {LEAST}"))
        holds = "" if not bounded else "holds" if bounds[-1].holds else "MISSED"
        click.echo(f"{name:66s} {coverage:.3f}  {holds}", err=True)
    write_record(file, figures, bounds, seeds=[seed])
    click.echo(f"{sum(b.holds for b in bounds)} of {len(bounds)} bounds hold", err=True)


def results(rng: np.random.Generator, n_sets: int) -> Iterator[tuple[str, float, dict[str, float], bool]]:
    """By case: name, coverage, what else is to be said of it, and whether the bound is asked for."""
    for n in (10, 30, 50, 100, 200, 500, 1000):
        for up, down in ((0.01, 0.01), (0.02, 0.005), (0.06, 0.02), (0.1, 0.1), (0.2, 0.02), (0.45, 0.15)):
            coverage = _right_and_wrong(n, up, down, rng, n_sets)
            name = f"right and wrong, {up:.1%} gained and {down:.1%} lost, n {n}"
            yield name, coverage, {}, True
    for n in (50, 200):
        yield f"graded, 5 % of documents differ, n {n}", _few_differ(n, rng, n_sets // 3), {}, False
    for case in cases():
        coverage, extra = simulated(case, rng, n_sets)
        yield case.name, coverage, extra, case.bounded


def simulated(case: Case, rng: np.random.Generator, n_sets: int) -> tuple[float, dict[str, float]]:
    """Coverage, and what of it the reports would call approximate."""
    held, flagged = [], []
    for start in range(0, n_sets, _BATCH):
        strata, truth = case.draw(rng, case.n, min(_BATCH, n_sets - start))
        found = resampled_gap(strata, rng, n_exchanges=_EXCHANGES)
        held.append((found.low <= truth) & (truth <= found.high))
        few = case.n < FEW_DOCUMENTS or (case.n_clusters is not None and case.n_clusters < FEW_CLUSTERS)
        flagged.append(few | (np.abs(found.skewness) > SKEWED))
    held_K, flagged_K = np.concatenate(held), np.concatenate(flagged)
    extra = {"called approximate": float(flagged_K.mean())}
    if 0 < flagged_K.mean() < 1:
        extra["coverage where not called so"] = float(held_K[~flagged_K].mean())
    return float(held_K.mean()), extra


def _right_and_wrong(n: int, up: float, down: float, rng: np.random.Generator, n_sets: int) -> float:
    counts, often = np.unique(
        rng.multinomial(n, [up, down, 1 - up - down], size=4 * n_sets), axis=0, return_counts=True
    )
    held = 0
    for (n_up, n_down, _), times in zip(counts, often, strict=True):
        base, cand = np.zeros(n), np.zeros(n)
        cand[:n_up] = 1
        base[n_up : n_up + n_down] = 1
        found = paired_difference(base, cand, rng)
        held += times * (found.low - 1e-9 <= up - down <= found.high + 1e-9)
    return float(held / often.sum())


def _few_differ(n: int, rng: np.random.Generator, n_sets: int) -> float:
    """By the whole of `paired_difference`: few differing documents widen its interval."""
    held = 0
    for _ in range(n_sets):
        cand = (rng.random(n) < 0.05) * rng.random(n)
        found = paired_difference(np.zeros(n), cand, rng)
        held += found.low <= 0.025 <= found.high
    return held / n_sets


def cases() -> list[Case]:
    """All populations that are recomputed on resamples."""
    gammas = {0.5: 16.0, 1.0: 4.0, 2.0: 1.0, 4.0: 0.25}
    found = [Case(f"normal, n {n}", n, _normal, n >= FEW_DOCUMENTS) for n in (50, 100, 200, 500, 1000)]
    for skewness, shape in gammas.items():
        found += [
            Case(f"skewness {skewness}, n {n}", n, _gamma(shape), skewness <= SKEWED and n >= FEW_DOCUMENTS)
            for n in (50, 100, 200, 500, 1000)
        ]
    found += [Case(f"lognormal (skewness 6.2), n {n}", n, _lognormal, False) for n in (50, 200, 1000)]
    found += [Case(f"Student's t with 3 degrees of freedom, n {n}", n, _student, False) for n in (50, 200, 1000)]
    found += [Case(f"ratio (bits per byte), n {n}", n, _ratio, n >= FEW_DOCUMENTS) for n in (50, 200, 1000)]
    found += [Case(f"perplexity, n {n}", n, _perplexity, n >= FEW_DOCUMENTS) for n in (50, 200, 1000)]
    found += [Case(f"F1, n {n}", n, _f1, n >= FEW_DOCUMENTS) for n in (50, 200, 1000)]
    for n_clusters in (10, 20, 30, 60, 200):
        n, enough = 7 * n_clusters, n_clusters >= FEW_CLUSTERS
        found += [
            Case(f"normal, {n_clusters} clusters, n {n}", n, _clusters(_normal_clusters), enough, n_clusters),
            Case(f"right and wrong, {n_clusters} clusters, n {n}", n, _clusters(_binary_clusters), enough, n_clusters),
        ]
    found += [Case(f"group of 10 tasks {how}, n {n}", n, _group(by_size), n >= FEW_DOCUMENTS)
              for n in (50, 200, 1000) for how, by_size in (("by size", True), ("alike", False))]  # fmt: skip
    return found


def _means(difference_NK: np.ndarray, size_NK: np.ndarray | None = None) -> Resampled:
    sizes = np.ones_like(difference_NK) if size_NK is None else size_NK
    baseline = np.stack([np.zeros_like(difference_NK), sizes], axis=-1)
    return Sums(baseline, np.stack([difference_NK, sizes], axis=-1), mean_of_sums)


def _normal(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    truth = 2 / n**0.5
    return [(1.0, _means(rng.normal(truth, 1.0, size=(n, k))))], truth


def _gamma(shape: float) -> Callable[[np.random.Generator, int, int], tuple[Strata, float]]:
    def draw(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
        truth = 2 / n**0.5
        values = (rng.gamma(shape, size=(n, k)) - shape) / shape**0.5 + truth
        return [(1.0, _means(values))], truth

    return draw


def _lognormal(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    return [(1.0, _means(rng.lognormal(0.0, 1.0, size=(n, k))))], float(np.exp(0.5))


def _student(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    truth = 2 * (3 / n) ** 0.5
    return [(1.0, _means(rng.standard_t(3, size=(n, k)) + truth))], truth


def _ratio(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    """Texts of very different lengths; losses a byte of 1 and 0.95, with noise that both share and of their own."""
    size = rng.gamma(2.0, 100.0, size=(n, k)) + 10
    shared = rng.normal(1.0, 0.3, size=(n, k))
    base, cand = (size * (shared + mean + rng.normal(0.0, 0.1, size=(n, k))) for mean in (0.0, -0.05))
    sides = [np.stack([loss, size], axis=-1) for loss in (base, cand)]
    return [(1.0, Sums(sides[0], sides[1], lambda sums: sums[..., 0] / sums[..., 1]))], -0.05


def _perplexity(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    """exp of a mean loss of 2, and of 1.95."""
    shared = rng.gamma(4.0, 0.5, size=(n, k))
    base, cand = (shared + mean + rng.normal(0.0, 0.3, size=(n, k)) for mean in (0.0, -0.05))
    sides = [np.stack([loss, np.ones_like(loss)], axis=-1) for loss in (base, cand)]
    score = lambda sums: np.exp(sums[..., 0] / sums[..., 1])  # noqa: E731
    return [(1.0, Sums(sides[0], sides[1], score))], float(np.exp(1.95) - np.exp(2.0))


def _f1(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
    """Three of ten documents positive; both models right on most, the candidate on more."""
    gold = rng.random((n, k)) < 0.3
    luck = rng.random((n, k))
    sides, truths = [], []
    for right in (0.75, 0.85):
        answer = np.where(luck < right, gold, ~gold)
        sides.append(np.stack([gold & answer, gold != answer], axis=-1).astype(float))
        truths.append(2 * 0.3 * right / (2 * 0.3 * right + 1 - right))

    def score(sums: np.ndarray) -> np.ndarray:
        return 2 * sums[..., 0] / np.maximum(2 * sums[..., 0] + sums[..., 1], 1e-300)

    return [(1.0, Sums(sides[0], sides[1], score))], truths[1] - truths[0]


def _clusters(
    fill: Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, float]],
) -> Callable[[np.random.Generator, int, int], tuple[Strata, float]]:
    """Clusters of 1 to 13 documents."""

    def draw(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
        size_GK = rng.integers(1, 14, size=(n // 7, k)).astype(float)
        sum_GK, truth = fill(rng, size_GK)
        return [(1.0, _means(sum_GK, size_GK))], truth

    return draw


def _normal_clusters(rng: np.random.Generator, size_GK: np.ndarray) -> tuple[np.ndarray, float]:
    """Documents of a cluster share half of their variance."""
    own = rng.normal(size=size_GK.shape) * size_GK**0.5
    return size_GK * (rng.normal(size=size_GK.shape) + 0.3) + own, 0.3


def _binary_clusters(rng: np.random.Generator, size_GK: np.ndarray) -> tuple[np.ndarray, float]:
    """Of each cluster another share of documents is gained, 20 % on average, and 5 % lost."""
    gained = rng.binomial(size_GK.astype(int), rng.beta(0.8, 3.2, size=size_GK.shape))
    lost = rng.binomial(size_GK.astype(int) - gained, 0.05 / 0.8)
    return (gained - lost).astype(float), 0.15


def _group(by_size: bool) -> Callable[[np.random.Generator, int, int], tuple[Strata, float]]:
    """Tasks of sizes 1 : 2 : … : 10 with shares of documents gained and lost of their own."""

    def draw(rng: np.random.Generator, n: int, k: int) -> tuple[Strata, float]:
        strata: Strata = []
        truth = 0.0
        sizes = np.maximum(2, np.round(n * np.arange(1, 11) / 55)).astype(int)
        for i, size in enumerate(sizes):
            up, down = 0.05 + 0.02 * i, 0.15 - 0.01 * i
            luck = rng.random((size, k))
            difference = (luck < up).astype(float) - (luck > 1 - down)
            share = float(size / sizes.sum()) if by_size else 0.1
            strata.append((share, _means(difference)))
            truth += share * (up - down)
        return strata, truth

    return draw


if __name__ == "__main__":
    main()
