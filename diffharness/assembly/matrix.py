"""Many candidates' reports put together: the cells of candidates × tasks, and categories summed over tasks."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffharness.assembly.numbers import number
from diffharness.report.schema import Component, Interval, Report, Task
from diffharness.report.schema.matrix import (
    Matrix,
    MatrixCandidate,
    MatrixCell,
    MatrixPart,
    MatrixSum,
    SharedCrosscoder,
)
from diffharness.report.view import is_explained, is_real, primary

LEVEL = 0.05
"""Of the p-values that Holm corrects over all cells."""
CANCELLED = 0.5
"""Shares are given where the summed gap is at least this share of the gaps' summed sizes."""
_TOLERANCE = 1e-6
_SEED = 0
_COLUMNS = ["task", "doc_id", "weight", "kind", "category", "contribution"]

NOTES = (
    "Every candidate was evaluated once, the baseline once for all of them; all read the same texts.",
    "Where the crosscoder is cut down to a pair, the mean of the two models and what least squares add to it stand in "
    "for the activations of the absent ones, so a latent that only other candidates have may still fire; its decoders "
    "are those of the two, and the account of every candidate adds up for any code.",
    "The verdict in a cell is that of the candidate's own report; a cell that is not marked as holding among all "
    "cells has a Holm-corrected p-value above 5 % over the whole matrix.",
)


def matrix(
    reports: Mapping[str, Report], folder: Path, *, quality: Mapping[str, Any], names_from: str, command: str
) -> Matrix:
    """The matrix of some candidates' reports.

    Args:
        reports: by candidate.
        folder: where each candidate's run lies, in the folder of its name.
        quality: the shared crosscoder's `quality.json`.
        names_from: where the latents' names come from, in words.
        command: what makes the matrix.
    """
    first = next(iter(reports.values()))
    sums, parts, left_out = [], [], []
    for name, report in reports.items():
        moved = [task for task in primary(report) if is_real(task)]
        left_out += [f"{name}: {task.task} is in no sum: {_why_not(task)}" for task in moved if not is_explained(task)]
        for unit, tasks in _by_unit([task for task in moved if is_explained(task)]).items():
            found = _summed(name, unit, tasks, folder / name / "contributions.parquet")
            sums.append(found[0])
            parts += found[1]
    return Matrix(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        baseline=next(model.name for model in first.models if model.side == "baseline"),
        layer=first.run.layer,
        n_layers=first.run.n_layers,
        smallest_effect=first.run.smallest_effect,
        candidates=tuple(_candidate(name, report) for name, report in reports.items()),
        tasks=tuple(dict.fromkeys(task.task for report in reports.values() for task in primary(report))),
        cells=_cells(reports),
        sums=tuple(sums),
        parts=tuple(parts),
        left_out=tuple(left_out),
        crosscoder=SharedCrosscoder(
            n_latents=quality["n_latents"], l0=quality["l0"], explained_variance=quality["explained_variance"]
        ),
        names_from=names_from,
        notes=NOTES,
    )


def _candidate(name: str, report: Report) -> MatrixCandidate:
    withheld = report.validation.mechanism_withheld
    pair = report.quality[0] if report.quality else None
    return MatrixCandidate(
        name=name,
        model=next(model.name for model in report.models if model.side == "candidate"),
        report=f"{name}/report.html",
        withheld=withheld,
        explained_variance={} if pair is None else pair.explained_variance,
        l0=None if pair is None else pair.l0,
    )


def _cells(reports: Mapping[str, Report]) -> tuple[MatrixCell, ...]:
    """All cells, decided together."""
    from diffharness.statistics.multiple import holm

    found = [(name, task) for name, report in reports.items() for task in primary(report)]
    p_holm = holm(np.array([task.p_value for _, task in found], dtype=float))
    return tuple(
        MatrixCell(
            candidate=name,
            **{key: getattr(task, key) for key in ("task", "metric", "filter", "higher_is_better", "n", "gap")},
            baseline_score=task.baseline,
            candidate_score=task.candidate,
            interval=task.interval,
            p_value=task.p_value,
            p_holm=number(float(p)),
            verdict=task.verdict,
            is_decided=bool(is_real(task) and p <= LEVEL),
            approximate=task.approximate,
        )
        for (name, task), p in zip(found, p_holm, strict=True)
    )


def _why_not(task: Task) -> str:
    if not task.components:
        return task.account_reason or "it has no account"
    return task.surrogate.tracks_reason if task.surrogate is not None else "it has no surrogate"


def _by_unit(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Tasks whose gaps can be added up: of one unit and one direction."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        assert task.surrogate is not None
        unit = task.surrogate.unit + ("" if task.higher_is_better else " (lower is better)")
        found.setdefault(unit, []).append(task)
    return found


def _summed(name: str, unit: str, tasks: Sequence[Task], file: Path) -> tuple[MatrixSum, list[MatrixPart]]:
    """One candidate's tasks of a unit: their summed gap, and each category's part of it."""
    gaps = [task.surrogate.gap for task in tasks if task.surrogate is not None]
    gap, size = sum(gaps), sum(map(abs, gaps))
    cancels = abs(gap) < CANCELLED * size
    reason = "the tasks' gaps have both signs and nearly cancel, so there is little to share out" if cancels else None
    groups: dict[tuple[str, str | None], list[Component]] = {}
    for task in tasks:
        for component in task.components:
            groups.setdefault((component.kind, component.category), []).append(component)
    intervals = _intervals(file, tasks, groups)
    parts = [
        MatrixPart(
            candidate=name,
            unit=unit,
            kind=kind,
            category=category,
            contribution=sum(c.contribution for c in members),
            written=_of(members, "written"),
            read=_of(members, "read"),
            interval=intervals.get((kind, category)),
            share=None if cancels else sum(c.contribution for c in members) / gap,
        )
        for (kind, category), members in groups.items()
    ]
    whole = MatrixSum(candidate=name, unit=unit, gap=gap, tasks=tuple(task.task for task in tasks), share_reason=reason)
    return whole, parts


def _of(members: Sequence[Component], origin: str) -> float | None:
    own = [c.contribution for c in members if c.origin == origin]
    return sum(own) if own else None


def _intervals(
    file: Path, tasks: Sequence[Task], groups: Mapping[tuple[str, str | None], Sequence[Component]]
) -> dict[tuple[str, str | None], Interval]:
    """Intervals of the sums: every task's documents are drawn anew, tasks apart, as for a task's own components.

    None where a task's documents weigh differently (bits per byte): the file does not say how.
    """
    import pyarrow.parquet as pq

    from diffharness.statistics.bootstrap import bootstrap_means, percentile_interval

    if not file.is_file():
        return {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(file, columns=_COLUMNS).to_pylist():
        rows.setdefault(row["task"], []).append(row)
    rng, keys, total = np.random.default_rng(_SEED), list(groups), 0.0
    for task in tasks:
        values_NK, weight_N = _documents(rows.get(task.task, ()), keys)
        sampled_NK = weight_N[:, None] * values_NK
        known = [sum(c.contribution for c in task.components if (c.kind, c.category) == key) for key in keys]
        if not len(weight_N) or not np.allclose(
            sampled_NK.sum(axis=0) / weight_N.sum(), known, rtol=_TOLERANCE, atol=_TOLERANCE
        ):
            return {}
        draws_RX = bootstrap_means(np.hstack([sampled_NK, weight_N[:, None]]), rng)
        total = total + draws_RX[:, :-1] / draws_RX[:, -1:]
    found = percentile_interval(np.asarray(total), n=min(task.n_accounted for task in tasks))
    method = "percentile bootstrap over each task's documents"
    return {
        key: Interval(low=float(low), high=float(high), method=method)
        for key, low, high in zip(keys, found.low, found.high, strict=True)
    }


def _documents(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[tuple[str, str | None]]
) -> tuple[np.ndarray, np.ndarray]:
    """Every document's parts (N, K), written and read together, and how many documents it stands for (N)."""
    place = {doc_id: i for i, doc_id in enumerate(sorted({row["doc_id"] for row in rows}))}
    column = {key: c for c, key in enumerate(keys)}
    values_NK, weight_N = np.zeros((len(place), len(column))), np.zeros(len(place))
    for row in rows:
        i = place[row["doc_id"]]
        values_NK[i, column[row["kind"], row["category"]]] += row["contribution"]
        weight_N[i] = row["weight"]
    return values_NK, weight_N
