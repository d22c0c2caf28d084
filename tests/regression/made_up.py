"""Finished runs made of planted scores: the folders that a check reads, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffharness.report.schema import Report
from tests.report.example import example_report


@dataclass(frozen=True)
class MadeUpTask:
    """One task with a score a document and side."""

    name: str
    baseline: Sequence[Any]
    candidate: Sequence[Any]
    metric: str = "acc"
    higher_is_better: bool = True
    version: str = "1.0"
    prompts: str = "question"
    documents: Sequence[int] | None = None
    """Which documents these are; 0 to N − 1 by default."""
    subjects: Sequence[str] | None = None
    """Values of the documents' field `subject`."""
    scores: tuple[float, float] | None = None
    """lm-eval's; the means by default."""


def right(n: int, n_right: int, seed: int = 0) -> list[float]:
    """Scores of 0 and 1, as many right."""
    values = np.zeros(n)
    values[np.random.default_rng(seed).permutation(n)[:n_right]] = 1.0
    return values.tolist()


def lost(before: Sequence[float], n_lost: int) -> list[float]:
    """The same with some that were right now wrong."""
    after = list(before)
    for i in [i for i, value in enumerate(before) if value == 1.0][:n_lost]:
        after[i] = 0.0
    return after


def made_up_run(
    folder: Path, tasks: Sequence[MadeUpTask], *, weights: str = "ab" * 32, protocol: Mapping[str, Any] | None = None
) -> Path:
    """Write a run's folder: evaluations, report and manifest."""
    for side in ("baseline", "candidate"):
        place = folder / "evaluation" / side
        place.mkdir(parents=True)
        body = {
            "model_args": side,
            "settings": {"limit": None, "protocol": dict(protocol or {})},
            "tasks": [_info(task, side) for task in tasks],
            "documents": [row for task in tasks for row in _documents(task, side)],
        }
        (place / "evaluation.json").write_text(json.dumps(body), encoding="utf-8")
        for task in tasks:
            if task.subjects is not None:
                lines = [
                    json.dumps({"doc_id": i, "doc": {"subject": subject}}) for i, subject in enumerate(task.subjects)
                ]
                (place / f"samples_{task.name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "report.json").write_text(made_up_report(tasks).model_dump_json(), encoding="utf-8")
    artifacts = {"crosscoder/model.safetensors": {"sha256": weights}}
    (folder / "manifest.json").write_text(json.dumps({"stages": {}, "artifacts": artifacts}), encoding="utf-8")
    return folder


def made_up_report(tasks: Sequence[MadeUpTask]) -> Report:
    """The example report, its first tasks renamed to these."""
    report = example_report(n_tasks=max(len(tasks), 1), n_latents=8)
    rows = []
    for row, task in zip(report.tasks, tasks, strict=False):
        scores = _scores(task)
        changed = {
            "task": task.name, "metric": task.metric, "filter": "none", "higher_is_better": task.higher_is_better,
            "n": len(task.baseline), "baseline": scores[0], "candidate": scores[1], "gap": scores[1] - scores[0],
            "documents": (),
        }  # fmt: skip
        rows.append(row.model_copy(update=changed))
    return report.model_copy(update={"tasks": tuple(rows), "depth": (), "shapley": (), "claims": (), "flips": ()})


def _scores(task: MadeUpTask) -> tuple[float, float]:
    if task.scores is not None:
        return task.scores
    return float(np.mean(task.baseline)), float(np.mean(task.candidate))


def _info(task: MadeUpTask, side: str) -> dict[str, Any]:
    return {
        "name": task.name, "output_type": "multiple_choice", "categories": [], "version": task.version, "hash": "",
        "metrics": [{"metric": task.metric, "filter": "none", "higher_is_better": task.higher_is_better}],
        "scores": {f"{task.metric},none": _scores(task)[side == "candidate"]},
    }  # fmt: skip


def _documents(task: MadeUpTask, side: str) -> list[dict[str, Any]]:
    values = task.candidate if side == "candidate" else task.baseline
    numbers = task.documents if task.documents is not None else range(len(values))
    return [
        {
            "task": task.name, "doc_id": i, "filter": "none", "doc_hash": _hash(f"{task.name} {number}"),
            "prompt_hash": _hash(f"{task.prompts} {number}"), "prompt": f"{task.prompts} {number} ?",
            "target": "yes", "answer": "yes" if value == 1.0 else "no", "values": {task.metric: value}, "gold": [0],
            "choices": ["yes", "no"],
        }
        for i, (number, value) in enumerate(zip(numbers, values, strict=True))
    ]  # fmt: skip


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
