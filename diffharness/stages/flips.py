"""The stage that sorts the documents whose score changed by what their answers show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness.stages.reading import Progress, read_rows, write_json
from diffharness.stages.scoring import primary

if TYPE_CHECKING:
    from diffharness.assembly.flips import Scored
    from diffharness.evaluation.scores import Evaluation, TaskInfo
    from diffharness.pipeline import Run


def flips(run: Run, folder: Path, progress: Progress) -> None:
    """Sort every task's flips, and set them beside the account where there is one."""
    from diffharness.assembly.flips import Contributions, flip_kinds

    tasks = scored_tasks(run, progress)
    account = Contributions({}, {})
    if run.withheld is None:
        account = Contributions.load(run.account().folder / "contributions.parquet")
    found = flip_kinds(tasks, account, np.random.default_rng(run.config.seed))
    write_json(folder / "flips.json", [row.model_dump(mode="json") for row in found])


def scored_tasks(run: Run, progress: Progress, candidate: str = "candidate") -> list[Scored]:
    """All tasks' documents with their scores on the primary metric.

    Args:
        run: whose.
        progress: tasks done.
        candidate: which of its evaluations; its scores' by default, else the one that both models were asked alike in.
    """
    evaluations = run.load_evaluation("baseline"), run.load_evaluation(candidate)
    gaps = {row["task"]: row["gap"] for row in read_rows(run) if row["is_primary"]}
    tasks = []
    for done, info in enumerate(evaluations[0].tasks):
        tasks.append(_scored(run, info, evaluations, gaps[info.name]))
        progress(done + 1, len(evaluations[0].tasks))
    return tasks


def _scored(run: Run, info: TaskInfo, evaluations: tuple[Evaluation, Evaluation], gap: float) -> Scored:
    """One task's documents with their scores on the primary metric."""
    from diffharness.assembly.flips import Scored
    from diffharness.evaluation.comparison import document_metric, document_value

    metric = primary(run, info)
    worth = document_value(run.session.tasks.aggregation(info.name, metric.metric))
    base, cand = (evaluation.of(info.name, metric.filter) for evaluation in evaluations)
    values = {}
    for i in sorted(base.keys() & cand.keys()):
        before, after = document_metric(base[i], metric, worth), document_metric(cand[i], metric, worth)
        if before is not None and after is not None:
            values[i] = before, after
    return Scored(
        info.name, info.output_type, metric, gap, base, cand, values,
        is_repeated=info.output_type == "generate_until" and _is_repeated(evaluations[0], info.name),
        places=_places(info, metric.metric, evaluations) if info.output_type == "multiple_choice" else {},
    )  # fmt: skip


def _is_repeated(evaluation: Evaluation, task: str) -> bool:
    return any(len(readings) > 1 for readings in evaluation.ledger.by_document(task).values())


def _places(info: TaskInfo, metric: str, evaluations: tuple[Evaluation, Evaluation]) -> dict[int, tuple[int, int]]:
    """Which choice each side took, where the metric takes the likeliest."""
    from diffharness.evaluation.positions import METRICS, chosen

    if metric not in METRICS:
        return {}
    sides = []
    for evaluation in evaluations:
        documents = {d.doc_id: d for d in evaluation.documents if d.task == info.name}
        readings = evaluation.ledger.by_document(info.name)
        sides.append({i: chosen(d, readings.get(i, []), metric) for i, d in documents.items()})
    pairs = {i: (sides[0][i], sides[1].get(i)) for i in sides[0]}
    return {i: (before, after) for i, (before, after) in pairs.items() if before is not None and after is not None}
