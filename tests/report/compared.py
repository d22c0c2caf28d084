"""Runs made of planted contributions, document by document, to be compared."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffharness.report.files import to_json
from diffharness.report.schema import Component, Interval, Report, Surrogate, Task
from tests.report.example import example_report

Values = Mapping[str, np.ndarray]
"""By task: (documents, 3), of `KEYS`."""
KEYS = (("latents", "written", "safety"), ("latents", "read", "safety"), ("error", "written", None))


def planted_run(
    folder: Path,
    values: Values,
    *,
    doc_ids: Mapping[str, Sequence[int]] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    candidate: str = "candidate",
    hashes: Mapping[str, str] | None = None,
    seeds: float | None = None,
    with_documents: bool = True,
) -> Path:
    """A run's folder whose account of every task is the weighted mean of these documents.

    `seeds` is what a second crosscoder makes of every contribution, over this one's.
    """
    base = _example()
    rows: list[dict[str, object]] = []
    tasks = []
    for name, own in values.items():
        weight = np.ones(len(own)) if weights is None else weights[name]
        ids = range(len(own)) if doc_ids is None else doc_ids[name]
        means = weight @ own / weight.sum()
        tasks.append(_task(base.tasks[0], name, means, len(own), seeds))
        rows += [
            {"task": name, "doc_id": int(i), "weight": float(w), "kind": kind, "origin": origin, "category": category,
             "contribution": float(v)}
            for i, w, line in zip(ids, weight, own, strict=True)
            for (kind, origin, category), v in zip(KEYS, line, strict=True)
        ]  # fmt: skip
    models = tuple(
        m.model_copy(update={"name": candidate, "fingerprint": candidate}) if m.side == "candidate" else m
        for m in base.models
    )
    known = dict.fromkeys(values, "0f448c5b758a3fa6") | dict(hashes or {})
    provenance = base.provenance.model_copy(update={"task_hashes": known})
    write(folder, base.model_copy(update={"tasks": tuple(tasks), "models": models, "provenance": provenance}))
    if with_documents:
        pq.write_table(pa.Table.from_pylist(rows), folder / "contributions.parquet")
    return folder


@functools.cache
def _example() -> Report:
    return example_report(n_tasks=1, n_latents=2)


def write(folder: Path, report: Report) -> None:
    """A report into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(to_json(report), encoding="utf-8")


def _task(like: Task, name: str, means: np.ndarray, n: int, seeds: float | None) -> Task:
    gap = float(means.sum())
    parts = tuple(
        Component(
            kind=kind, origin=origin, category=category, contribution=float(value), contribution_raw=float(value),
            interval=Interval(low=float(value) - 0.1, high=float(value) + 0.1), share=None, p_value=None, q_value=None,
            seeds=() if seeds is None else (float(value) * seeds,),
        )
        for (kind, origin, category), value in zip(KEYS, means, strict=True)
    )  # fmt: skip
    surrogate = Surrogate(
        name="s", unit="probability", baseline=0, candidate=gap, gap=gap, rank_correlation=1, tracks=True,
        tracks_reason="",
    )  # fmt: skip
    update = {"task": name, "surrogate": surrogate, "components": parts, "n": n, "n_accounted": n, "gap": gap}
    return like.model_copy(update={**update, "verdict": "improved", "documents": (), "n_clusters": None})
