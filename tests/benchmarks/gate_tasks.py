"""The tasks of simulated runs, and evidence of many runs at a time, by the gate's own code.

Twelve of right and wrong, of which 5 to 20 % of documents differ; five with real values; three ratios of sums. Legend:
N documents, G clusters, K runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffharness.regression.evidence import Evidence, Pairs, Unseen
from diffharness.regression.resampled_evidence import FEW_DIFFERING, resampled_evidence
from diffharness.statistics.bootstrap import subset_means
from diffharness.statistics.resampled import Score, Sums, mean_of_sums, resample

N_RESAMPLES = 5000
"""A check of 20 rules draws 10,000; so many runs take half as long."""


@dataclass(frozen=True)
class Task:
    """A population of documents."""

    kind: Literal["right and wrong", "real", "ratio"]
    n: int
    spread: float
    """Share of documents that differ; of real values and ratios the standard deviation of a document's difference."""
    margin: float
    n_clusters: int | None = None
    correlation: float = 0.0
    """Of the differences of two documents of one cluster."""

    @property
    def name(self) -> str:
        """For figures."""
        what = f"{self.spread:.0%} differ" if self.kind == "right and wrong" else f"sd {self.spread:g}"
        where = "" if self.n_clusters is None else f", {self.n_clusters} clusters, correlation {self.correlation:g}"
        return f"{self.kind}, n {self.n}, {what}, margin {self.margin:g}{where}"


def plain_tasks() -> list[Task]:
    """Documents by themselves."""
    sizes = (100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 1000, 1000)
    shares = (0.1, 0.2, 0.05, 0.15, 0.1, 0.2, 0.05, 0.1, 0.15, 0.2, 0.05, 0.1)
    found = [
        Task("right and wrong", n, share, 0.05 if n < 500 else 0.03) for n, share in zip(sizes, shares, strict=True)
    ]
    found += [Task("real", n, 0.15, 0.02) for n in (100, 200, 400, 700, 1000)]
    return found + [Task("ratio", n, 0.14, 0.02) for n in (200, 500, 1000)]


def clustered_tasks(n_clusters: int) -> list[Task]:
    """The same in clusters of 5 to 25 documents, 15 on average."""
    n = 15 * n_clusters
    correlations = np.linspace(0.3, 0.6, 20).round(2).tolist()
    shares = (0.05, 0.1, 0.15, 0.2) * 3
    binary = [Task("right and wrong", n, s, 0.05, n_clusters, r) for s, r in zip(shares, correlations, strict=False)]
    return binary + [Task("real", n, 0.15, 0.05, n_clusters, r) for r in correlations[12:]]


def evidence_of(
    task: Task, loss: float, n_runs: int, rng: np.random.Generator, *, ignore_clusters: bool = False
) -> tuple[list[Evidence], list[Evidence] | None]:
    """Evidence of runs whose task truly loses `loss`; beside it that of a test which ignores clusters, if asked for."""
    sizes_G = _sizes(task, rng)
    if task.kind == "ratio":
        return _from_sums(*_ratios(task, loss, n_runs, rng), task, ratio), None
    if task.kind == "right and wrong":
        up_GK, down_GK = _flips(task, loss, n_runs, sizes_G, rng)
        pairs = [_pairs(int(u), int(d), task.n) for u, d in zip(up_GK.sum(0), down_GK.sum(0), strict=True)]
        if task.n_clusters is None:
            return pairs, None
        return _means(up_GK - down_GK, sizes_G, task, rng), (pairs if ignore_clusters else None)
    own_NK = rng.normal(-loss, task.spread * (1 - task.correlation) ** 0.5, size=(task.n, n_runs))
    if task.n_clusters is None:
        return _means(own_NK, sizes_G, task, rng), None
    shared_GK = rng.normal(0.0, task.spread * task.correlation**0.5, size=(task.n_clusters, n_runs))
    value_NK = own_NK + np.repeat(shared_GK, sizes_G, axis=0)
    starts = np.concatenate([[0], np.cumsum(sizes_G)[:-1]])
    naive = _means(value_NK, np.ones(task.n, dtype=int), task, rng, clustered=False) if ignore_clusters else None
    return _means(np.add.reduceat(value_NK, starts, axis=0), sizes_G, task, rng), naive


def _sizes(task: Task, rng: np.random.Generator) -> np.ndarray:
    """Documents a cluster; they add up to n."""
    if task.n_clusters is None:
        return np.ones(task.n, dtype=int)
    extra = rng.multinomial(task.n - 5 * task.n_clusters, np.full(task.n_clusters, 1 / task.n_clusters))
    return 5 + extra


def _flips(
    task: Task, loss: float, n_runs: int, sizes_G: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Documents gained and lost; a loss comes on top of what goes both ways.

    A document takes its cluster's own difference with chance √correlation, else one of its own.
    """
    chance = [task.spread / 2, task.spread / 2 + loss, 1 - task.spread - loss]
    if task.n_clusters is None:
        found_K3 = rng.multinomial(task.n, chance, size=n_runs)
        return found_K3[None, :, 0], found_K3[None, :, 1]
    shape = (task.n_clusters, n_runs)
    copies_GK = rng.binomial(sizes_G[:, None], task.correlation**0.5, size=shape)
    shared_GK3 = rng.multinomial(1, chance, size=shape)
    own_GK3 = rng.multinomial(sizes_G[:, None] - copies_GK, chance)
    total = own_GK3 + copies_GK[..., None] * shared_GK3
    return total[..., 0], total[..., 1]


def _ratios(task: Task, loss: float, n_runs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bits a byte of texts of very different lengths; lower is better, so the sides come exchanged."""
    size = rng.gamma(2.0, 100.0, size=(task.n, n_runs)) + 10
    shared = rng.normal(1.0, 0.3, size=size.shape)
    own = task.spread / 2**0.5
    base, cand = (size * (shared + more + rng.normal(0.0, own, size=size.shape)) for more in (0.0, loss))
    return np.stack([cand, size], axis=-1), np.stack([base, size], axis=-1)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Σ numerator / Σ denominator."""
    return sums[..., 0] / sums[..., 1]


def _pairs(up: int, down: int, n: int) -> Evidence:
    return Pairs(up, down, n) if up + down else Unseen(n, 1.0)


def _means(
    sum_GK: np.ndarray, sizes_G: np.ndarray, task: Task, rng: np.random.Generator, *, clustered: bool = True
) -> list[Evidence]:
    sizes_GK = np.broadcast_to(sizes_G[:, None].astype(float), sum_GK.shape)
    base_GKC = np.stack([np.zeros(sum_GK.shape), sizes_GK], axis=-1)
    cand_GKC = np.stack([sum_GK.astype(float), sizes_GK], axis=-1)
    few_K = np.count_nonzero(sum_GK, axis=0) < FEW_DIFFERING
    means: list[np.ndarray | None] = [None] * len(few_K)
    if few_K.any():
        by_document = np.repeat(sum_GK[:, few_K] / sizes_G[:, None], sizes_G, axis=0)
        names_N = np.repeat(np.arange(len(sizes_G)), sizes_G)
        drawn = subset_means(by_document, rng, n_subsets=N_RESAMPLES - 1, clusters=names_N)
        for place, k in enumerate(np.flatnonzero(few_K)):
            means[k] = drawn[:, place]
    return _from_sums(base_GKC, cand_GKC, task, mean_of_sums, means, clustered=clustered, rng=rng)


def _from_sums(
    base_GKC: np.ndarray,
    cand_GKC: np.ndarray,
    task: Task,
    score: Score,
    means: Sequence[np.ndarray | None] | None = None,
    *,
    clustered: bool = True,
    rng: np.random.Generator | None = None,
) -> list[Evidence]:
    rng = rng or np.random.default_rng(len(base_GKC))
    draws = resample(
        [(1.0, Sums(base_GKC, cand_GKC, score))], rng, n_resamples=N_RESAMPLES, n_exchanges=N_RESAMPLES - 1
    )
    n_runs = base_GKC.shape[1]
    found = resampled_evidence(
        draws, n=task.n, n_clusters=task.n_clusters if clustered else None,
        subset_means_RK=means or [None] * n_runs, words="exchanges",
    )  # fmt: skip
    return [
        one if np.any(base_GKC[:, k] != cand_GKC[:, k]) else Unseen(task.n, 1.0, task.n_clusters)
        for k, one in enumerate(found)
    ]
