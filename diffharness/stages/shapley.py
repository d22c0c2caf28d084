"""The stage of Shapley values: categories on the task's real metric, where there is a gap to explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.report import schema
from diffharness.stages.explanation import model_pair
from diffharness.stages.forms import forms_of
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    read_account,
    read_categories,
    read_rows,
    write_json,
)
from diffharness.stages.scoring import load_clustered, primary
from diffharness.stages.shapley_values import NoShapleyError, generated_values, likelihood_values

if TYPE_CHECKING:
    from diffharness.assembly.shapley import Written
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.set_scores import Aggregation
    from diffharness.attribution.shapley import Player, Resampled
    from diffharness.attribution.states import ModelPair
    from diffharness.evaluation.scores import MetricKey
    from diffharness.pipeline import Run


@dataclass(frozen=True)
class _Task:
    """A task with a gap to explain, and what its account says."""

    name: str
    metric: MetricKey
    output_type: str
    forms: TaskForms
    written: Written
    same_unit: bool


def shapley(run: Run, folder: Path, progress: Progress) -> None:
    """Share out every real gap's written bracket over categories, on the task's own metric."""
    from diffharness.assembly.scores import moved_tasks
    from diffharness.assembly.shapley import agreement

    account = read_account(run)["tasks"]
    moved = moved_tasks(read_rows(run), run.config.smallest_effect)
    tasks = _tasks(run, {name: task for name, task in account.items() if name in moved})
    rows: list[schema.Shapley] = []
    crosscoder = load_crosscoder(run, MAIN) if tasks else None
    for position, task in enumerate(tasks):
        assert crosscoder is not None
        report = partial(_report, progress, position, len(tasks))
        try:
            rows.append(_row(run, task, model_pair(run, crosscoder), report))
        except NoShapleyError as reason:
            rows.append(schema.Shapley(task=task.name, metric=task.metric.metric, reason=str(reason)))
    found = agreement(rows)
    body = {
        "rows": [row.model_dump(mode="json") for row in rows],
        "agreement": None if found is None else found.model_dump(mode="json"),
    }
    write_json(folder / "shapley.json", body)


def _report(progress: Progress, position: int, n_tasks: int, done: int, total: int) -> None:
    progress(position * total + done, n_tasks * total)


def _tasks(run: Run, account: Mapping[str, Any]) -> list[_Task]:
    from diffharness.assembly.shapley import read_written

    written = read_written(run.account().folder / "contributions.parquet")
    forms, _ = forms_of(run, account)
    found = []
    for info in run.load_evaluation("baseline").tasks:
        if info.name in forms:
            same_unit = account[info.name]["not_tracked"] is not None
            row = forms[info.name], written[info.name], same_unit
            found.append(_Task(info.name, primary(run, info), info.output_type, *row))
    return found


def _row(run: Run, task: _Task, pair: ModelPair, progress: Progress) -> schema.Shapley:
    from diffharness.assembly.shapley import Scored, row
    from diffharness.attribution.real_metric import is_same
    from diffharness.attribution.shapley import plan_for, players_of, shapley_values
    from diffharness.evaluation.comparison import clusters

    rng = np.random.default_rng(run.config.seed)
    of_task = load_clustered(run, run.shared("candidate")).of(task.name, task.metric.filter)
    documents = [of_task[doc_id] for doc_id in task.written.doc_ids]
    weight_N = np.array([task.forms.weights[d.doc_id] for d in documents]) / np.mean(list(task.forms.weights.values()))
    categories = read_categories(run)
    sums = {name: value for name, value in task.written.sums(weight_N).items() if name in categories}
    players = players_of(sums)
    plan = plan_for(len(players), rng)
    values_of = generated_values if task.output_type == "generate_until" else likelihood_values
    values_SN = values_of(run, task.metric, documents, pair, members(players, categories), plan.member_SP, progress)

    recorded = [document.values[task.metric.metric] for document in documents]
    aggregation = run.session.tasks.aggregation(task.name, task.metric.metric)
    score_S, resampled = _scores(task, [*values_SN, recorded], aggregation)
    own_clusters = clusters(documents)
    values = shapley_values(plan, score_S[:-1], resampled, len(recorded), rng, clusters=own_clusters)
    found = Scored(
        task=task.name,
        metric=task.metric.metric,
        score_S=score_S[:-1],
        recorded=float(score_S[-1]),
        n_changed=sum(not is_same(a, b) for a, b in zip(values_SN[-1], recorded, strict=True)),
        exact=plan.exact,
        same_unit=task.same_unit,
        direction=1 if task.forms.higher_is_better == task.metric.higher_is_better else -1,
        weight_N=weight_N,
        clusters=own_clusters,
    )
    return row(found, players, values, task.written, rng)


def members(players: Sequence[Player], categories: Sequence[str]) -> np.ndarray:
    """Which latents each player but bias and error is, (P − 1, L)."""
    return np.array([[own in player.categories for own in categories] for player in players if player.categories])


def _scores(
    task: _Task, values_SN: Sequence[Sequence[Any]], aggregation: Aggregation
) -> tuple[np.ndarray, Resampled | None]:
    """The task's score of every set, and how it follows from the documents drawn; the last row is only scored."""
    from diffharness.attribution.set_scores import resampling, set_scores

    score_S = set_scores(values_SN, aggregation)
    sample_N = task.written.sample_N
    found = resampling(task.metric.metric, values_SN, score_S, aggregation)
    is_drawn = bool(np.any(sample_N != sample_N[0]))
    if found is None and is_drawn:
        raise NoShapleyError(
            f"{task.metric.metric} can not be weighted by what each drawn document stands for; give "
            "--attribution-documents as many as the task has"
        )
    if found is None:
        return score_S, None
    if is_drawn:
        score_S = found(sample_N[None])[0]
    return score_S, lambda w_RN: found(w_RN * sample_N)[:, :-1]
