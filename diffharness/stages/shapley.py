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
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    read_account,
    read_latents,
    read_rows,
    write_json,
)
from diffharness.stages.scoring import primary

if TYPE_CHECKING:
    from diffharness.assembly.shapley import Written
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.real_metric import Answer, DocumentScorer
    from diffharness.attribution.set_scores import Aggregation
    from diffharness.attribution.shapley import Player, Resampled
    from diffharness.attribution.states import ModelPair
    from diffharness.evaluation.ledger import Reading
    from diffharness.evaluation.scores import MetricKey
    from diffharness.pipeline import Run


class NoShapleyError(Exception):
    """Why a task has no Shapley values; shown in the report in their place."""


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
    tasks = [task for task in _tasks(run, account) if task.name in moved]
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
    from diffharness.attribution.forms import task_forms
    from diffharness.evaluation.comparison import document_value

    written = read_written(run.account().folder / "contributions.parquet")
    evaluations = run.load_evaluation("baseline"), run.load_evaluation("candidate")
    found = []
    for info in evaluations[0].tasks:
        if info.name not in account:
            continue
        metric = primary(run, info)
        worth = document_value(run.session.tasks.aggregation(info.name, metric.metric))
        forms = task_forms(info.name, metric, *evaluations, document_value=worth)
        same_unit = account[info.name]["not_tracked"] is not None
        found.append(_Task(info.name, metric, info.output_type, forms, written[info.name], same_unit))
    return found


def _row(run: Run, task: _Task, pair: ModelPair, progress: Progress) -> schema.Shapley:
    from diffharness.assembly.shapley import Scored, row
    from diffharness.attribution.real_metric import DocumentScorer, SetScores, is_same
    from diffharness.attribution.shapley import plan_for, players_of, shapley_values
    from diffharness.evaluation.comparison import clusters

    if task.output_type == "generate_until":
        raise NoShapleyError("its answers are generated")
    rng = np.random.default_rng(run.config.seed)
    candidate = run.load_evaluation("candidate")
    readings = candidate.ledger.by_document(task.name)
    readings = {doc_id: readings.get(doc_id, []) for doc_id in task.written.doc_ids}
    rolling = task.output_type == "loglikelihood_rolling"
    scorer = DocumentScorer(run.session.tasks.tasks[task.name], task.metric.metric, rolling=rolling)
    documents = candidate.of(task.name, task.metric.filter)
    recorded = [documents[d].values[task.metric.metric] for d in readings]
    own_clusters = clusters([documents[d] for d in readings])
    _check_scoring(scorer, readings, recorded)

    categories = [latent.category for latent in read_latents(run, MAIN)]
    weight_N = np.array([task.forms.weights[d] for d in readings]) / np.mean(list(task.forms.weights.values()))
    sums = {name: value for name, value in task.written.sums(weight_N).items() if name in categories}
    players = players_of(sums)
    plan = plan_for(len(players), rng)
    sets = SetScores(pair, readings, members(players, categories))
    scored = sets.score(scorer, plan.member_SP, progress)
    _check_replay(run, scored.whole_N, list(readings.values()))

    aggregation = run.session.tasks.aggregation(task.name, task.metric.metric)
    score_S, resampled = _scores(task, [*scored.values_SN, recorded], aggregation)
    values = shapley_values(plan, score_S[:-1], resampled, len(recorded), rng, clusters=own_clusters)
    found = Scored(
        task=task.name,
        metric=task.metric.metric,
        score_S=score_S[:-1],
        recorded=float(score_S[-1]),
        n_changed=sum(not is_same(a, b) for a, b in zip(scored.values_SN[-1], recorded, strict=True)),
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


def _check_scoring(scorer: DocumentScorer, readings: Mapping[int, Sequence[Reading]], recorded: Sequence[Any]) -> None:
    """Refuse a task whose values do not follow from its log-likelihoods by its own function."""
    from diffharness.attribution.real_metric import is_same

    for (doc_id, own), value in zip(readings.items(), recorded, strict=True):
        answers = [(r.log_likelihood, r.greedy is not False) for r in own if r.log_likelihood is not None]
        if len(answers) == len(own) and not is_same(scorer.value(doc_id, own, answers), value):
            raise NoShapleyError(
                f"the task's own function does not give document {doc_id}'s recorded {scorer.metric} again from its "
                "log-likelihoods"
            )


def _check_replay(run: Run, whole_N: Sequence[Sequence[Answer]], readings: Sequence[Sequence[Reading]]) -> None:
    """Refuse a task on which the candidate's own state does not give its recorded answers, as the validity gate does.

    Raises:
        NoShapleyError: log-likelihoods or decisions are further off than replay may be.
    """
    from diffharness.activations.validity import Agreement, tolerance_of

    model = run.session.model("candidate").hf_model
    quantised = getattr(model.config, "quantization_config", None) is not None
    rows = [pair for own, answers in zip(readings, whole_N, strict=True) for pair in zip(own, answers, strict=True)]
    off = [abs(a[0] - r.log_likelihood) / len(r.targets) for r, a in rows if r.log_likelihood is not None]
    decisions = [r.greedy == a[1] for r, a in rows if r.greedy is not None]
    found = Agreement(
        n_sequences=len(rows),
        n_requests=len(off),
        median=float(np.median(off)) if off else None,
        maximum=max(off, default=None),
        n_decisions=len(decisions),
        n_changed=decisions.count(False),
        tolerance=tolerance_of([str(model.dtype)], quantised=quantised),
    )
    if not found.holds:
        raise NoShapleyError(
            f"the candidate's own state does not give its recorded answers: {found.n_changed} of {found.n_decisions} "
            f"decisions changed, log-likelihoods are off by up to {found.maximum or 0:.3g} nats a token"
        )
