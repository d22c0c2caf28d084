"""Many candidates' reports put together: the cells of candidates × tasks, and categories summed over tasks."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffharness.assembly.numbers import number
from diffharness.assembly.sums import read_documents, summed
from diffharness.report.schema import Report, Task
from diffharness.report.schema.matrix import Matrix, MatrixCandidate, MatrixCell, SharedCrosscoder
from diffharness.report.view import is_explained, is_real, primary

LEVEL = 0.05
"""Of the p-values that Holm corrects over all cells."""

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
        left_out += [f"{name}: {task.task} is in no sum: {why_not(task)}" for task in moved if not is_explained(task)]
        documents = read_documents(folder / name / "contributions.parquet")
        for unit, tasks in by_unit([task for task in moved if is_explained(task)]).items():
            found = summed(name, unit, tasks, documents)
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
        cells=cells(reports),
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


def cells(reports: Mapping[str, Report]) -> tuple[MatrixCell, ...]:
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


def why_not(task: Task) -> str:
    """Why a task's account is in no sum."""
    if not task.components:
        return task.account_reason or "it has no account"
    return task.surrogate.tracks_reason if task.surrogate is not None else "it has no surrogate"


def by_unit(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Tasks whose gaps can be added up: of one unit and one direction."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        assert task.surrogate is not None
        better = task.surrogate.higher_is_better
        rises = task.higher_is_better if better is None else better
        unit = task.surrogate.unit + ("" if rises else " (lower is better)")
        found.setdefault(unit, []).append(task)
    return found
