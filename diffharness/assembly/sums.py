"""Categories summed over a run's tasks, with intervals by drawing documents anew: of one run, or of several together.

Legend: N documents of a task, K parts (a category's latents, bias, error, prior, prompt; written and read together), R
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from diffharness.errors import UsageError
from diffharness.report.schema import Component, Interval, Task
from diffharness.report.schema.matrix import MatrixPart, MatrixSum
from diffharness.statistics.bootstrap import bootstrap_means, percentile_interval

Key = tuple[str, str | None]
"""A part's kind and, of latents, category."""
CANCELLED = 0.5
"""Shares are given where the summed gap is at least this share of the gaps' summed sizes."""
METHOD = "percentile bootstrap over each task's documents"
_TOLERANCE = 1e-6
_SEED = 0
_COLUMNS = ("task", "doc_id", "weight", "kind", "category", "contribution")


@dataclass(frozen=True)
class TaskDocuments:
    """What every accounted document of a task contributes, in one run."""

    doc_ids: Int[np.ndarray, " N"]
    """Ascending."""
    weight_N: Float[np.ndarray, " N"]
    """How many of the task's documents each stands for."""
    keys: tuple[Key, ...]
    values_NK: Float[np.ndarray, "N K"]
    """In the surrogate's unit."""

    @property
    def mean_K(self) -> Float[np.ndarray, " K"]:
        """What the task's account says of every part."""
        return self.weight_N @ self.values_NK / self.weight_N.sum()

    def parts(self, keys: Sequence[Key]) -> TaskDocuments:
        """The same with these parts; one that the task does not have is 0."""
        column = {key: c for c, key in enumerate(self.keys)}
        values_KN = [self.values_NK[:, column[k]] if k in column else np.zeros(len(self.weight_N)) for k in keys]
        values_NK = np.array(values_KN, dtype=np.float64).reshape(len(keys), len(self.weight_N)).T
        return TaskDocuments(self.doc_ids, self.weight_N, tuple(keys), values_NK)


def read_documents(file: Path) -> dict[str, TaskDocuments]:
    """A run's `contributions.parquet` by task; empty where there is none. Older files weigh all documents alike.

    Raises:
        UsageError: it can not be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        return {}
    try:
        there = pq.read_schema(file).names
        table = pq.read_table(file, columns=[name for name in _COLUMNS if name in there])
        tasks, kinds, categories = (table[name].to_numpy(zero_copy_only=False) for name in ("task", "kind", "category"))
        doc_ids, values = table["doc_id"].to_numpy(), table["contribution"].to_numpy().astype(np.float64)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UsageError(f"{file} can not be read ({str(error).splitlines()[0][:200]}); run it again") from error
    weights = table["weight"].to_numpy() if "weight" in there else np.ones(len(values))
    found: dict[str, TaskDocuments] = {}
    names, code = np.unique(tasks.astype(str), return_inverse=True)
    for t, name in enumerate(names.tolist()):
        rows = np.flatnonzero(code == t)
        own_ids, place = np.unique(doc_ids[rows], return_inverse=True)
        pairs = list(zip(kinds[rows].tolist(), categories[rows].tolist(), strict=True))
        column = {key: c for c, key in enumerate(dict.fromkeys(pairs))}
        weight_N, values_NK = np.ones(len(own_ids)), np.zeros((len(own_ids), len(column)))
        weight_N[place] = weights[rows]
        np.add.at(values_NK, (place, np.array([column[key] for key in pairs])), values[rows])
        found[name] = TaskDocuments(own_ids, weight_N, tuple(column), values_NK)
    return found


def why_not_drawn(documents: TaskDocuments | None, task: Task) -> str | None:
    """Why a task's parts can not be drawn anew document by document; `None` where they can."""
    if documents is None:
        return "the run holds no contributions of single documents"
    if task.n_clusters is not None:
        return "whole clusters of its documents belong together, and the run's files do not say which"
    known = parts_of(task.components)
    drawn = documents.parts(list(known))
    expected = [sum(c.contribution for c in members) for members in known.values()]
    if not np.allclose(drawn.mean_K, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        return "its documents weigh differently, and the run's files do not say how"
    return None


def parts_of(components: Sequence[Component]) -> dict[Key, list[Component]]:
    """Components by what they belong to, written and read together."""
    groups: dict[Key, list[Component]] = {}
    for component in components:
        groups.setdefault((component.kind, component.category), []).append(component)
    return groups


def joint_draws(runs: Sequence[TaskDocuments], rng: np.random.Generator) -> list[Float[np.ndarray, "R K"]]:
    """Bootstrap draws of a task's parts, a run each, on one and the same draw of documents.

    All documents that any run accounts for are drawn, and every run's mean is over those of them that it accounts for,
    with its own weights: documents that two runs share move them together, others each by itself. A draw that leaves a
    run without documents is NaN.
    """
    ids = np.unique(np.concatenate([run.doc_ids for run in runs]))
    blocks = []
    for run in runs:
        block = np.zeros((len(ids), len(run.keys) + 1))
        at = np.searchsorted(ids, run.doc_ids)
        block[at, :-1] = run.weight_N[:, None] * run.values_NK
        block[at, -1] = run.weight_N
        blocks.append(block)
    drawn = np.split(bootstrap_means(np.hstack(blocks), rng), np.cumsum([b.shape[1] for b in blocks])[:-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return [own_RX[:, :-1] / own_RX[:, -1:] for own_RX in drawn]


def summed(
    name: str, unit: str, tasks: Sequence[Task], documents: Mapping[str, TaskDocuments]
) -> tuple[MatrixSum, list[MatrixPart]]:
    """One run's tasks of a unit: their summed gap, and each part of it."""
    gaps = [task.surrogate.gap for task in tasks if task.surrogate is not None]
    gap, size = sum(gaps), sum(map(abs, gaps))
    cancels = abs(gap) < CANCELLED * size
    reason = "the tasks' gaps have both signs and nearly cancel, so there is little to share out" if cancels else None
    groups = parts_of([component for task in tasks for component in task.components])
    intervals = _intervals(documents, tasks, list(groups))
    parts = [
        MatrixPart(
            candidate=name,
            unit=unit,
            kind=kind,
            category=category,
            contribution=sum(c.contribution for c in members),
            written=of_origin(members, "written"),
            read=of_origin(members, "read"),
            interval=intervals.get((kind, category)),
            share=None if cancels or gap == 0 else sum(c.contribution for c in members) / gap,
        )
        for (kind, category), members in groups.items()
    ]
    whole = MatrixSum(candidate=name, unit=unit, gap=gap, tasks=tuple(task.task for task in tasks), share_reason=reason)
    return whole, parts


def of_origin(members: Sequence[Component], origin: str) -> float | None:
    """The sum of what is written, or read; `None` where there is no such part."""
    own = [c.contribution for c in members if c.origin == origin]
    return sum(own) if own else None


def _intervals(
    documents: Mapping[str, TaskDocuments], tasks: Sequence[Task], keys: Sequence[Key]
) -> dict[Key, Interval]:
    """Intervals of the sums: every task's documents are drawn anew, tasks apart, as for a task's own components.

    None where a task's documents can not be drawn.
    """
    rng, total = np.random.default_rng(_SEED), np.zeros(1)
    for task in tasks:
        own = documents.get(task.task)
        if own is None or why_not_drawn(own, task) is not None:
            return {}
        total = total + joint_draws([own.parts(keys)], rng)[0]
    found = percentile_interval(np.asarray(total), n=min(task.n_accounted for task in tasks))
    return {
        key: Interval(low=float(low), high=float(high), method=METHOD)
        for key, low, high in zip(keys, found.low, found.high, strict=True)
    }
