"""Stages of the scores: lm-eval on every side, and the gaps in pairs of documents."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness import templates
from diffharness.errors import UsageError
from diffharness.report import schema
from diffharness.stages.reading import Progress, write_json

if TYPE_CHECKING:
    from diffharness.evaluation.scores import Evaluation, MetricKey, TaskInfo
    from diffharness.pipeline import Run


def evaluate(run: Run, side: str, folder: Path, progress: Progress) -> None:
    """Score one side with lm-eval, or take over what was recorded or left by plain lm-eval."""
    _ = _cluster_keys(run)  # finds what can not be, before anything is scored
    if side in run.recorded:
        _take_over(run, side, folder)
        return
    if run.shared(side) != side and templates.are_equal(run.session.architectures):
        _copy(run.evaluation(run.shared(side)).folder, folder)
        return
    from diffharness.evaluation import harness

    model = templates.model_side(side)
    with templates.own_template(run.session, side):
        evaluation, results = harness.evaluate(
            run.session.model(model),
            run.session.tasks,
            limit=run.config.limit,
            protocol=run.session.protocol,
            model_args=run.session.model_args[model],
            progress=progress,
        )
    evaluation.save(folder)
    harness.write_results(results, folder)


def _take_over(run: Run, side: str, folder: Path) -> None:
    """Copy a recording, or rebuild an evaluation from the files of plain lm-eval."""
    recorded = run.recorded[side]
    if recorded.files is None:
        _copy(recorded.folder, folder)
        return
    from diffharness.evaluation.transcript_options import load_recorded_tasks
    from diffharness.evaluation.transcripts import read_transcript

    tasks = load_recorded_tasks(recorded.files, run.config.include_path)
    model, args = run.session.model(side), run.session.model_args[side]
    read_transcript(recorded.files, model, tasks, model_args=args).save(folder)


def _copy(source: Path, folder: Path) -> None:
    """An evaluation's files, without the manifest of a recording."""
    for file in source.iterdir():
        if file.is_file() and file.name != "manifest.json":
            shutil.copyfile(file, folder / file.name)


def primary(run: Run, info: TaskInfo) -> MetricKey:
    """The metric that a task's account is of."""
    wanted = run.config.metric
    for metric in info.metrics:
        if wanted is not None and wanted in (metric.metric, str(metric)):
            return metric
    return info.metrics[0]


def _check_metric(wanted: str | None, tasks: Sequence[TaskInfo]) -> None:
    """Refuse a metric that no result has: of metrics of foreign functions the names are only known now."""
    known = list(dict.fromkeys(str(m) for info in tasks for m in info.metrics))
    if wanted is not None and not any(wanted in (name, name.split(",")[0]) for name in known):
        raise UsageError(f"--metric {wanted!r} is a metric of no task; there are: {', '.join(known)}")


def compare(run: Run, folder: Path) -> None:
    """Pair the documents of both sides; one row a metric of a task."""
    from diffharness.assembly.scores import scored_row
    from diffharness.evaluation import comparison

    evaluations = {side: load_clustered(run, side) for side in run.sides}
    baseline, candidate = evaluations["baseline"], evaluations["candidate"]
    name = run.shared("candidate")
    shared = evaluations[name] if name in evaluations else load_clustered(run, name)
    asked, read = (comparison.comparability(baseline, other) for other in (candidate, shared))
    _check_metric(run.config.metric, baseline.tasks)
    for evaluation in (baseline, shared):
        for info in evaluation.tasks:
            run.session.check_tokens(evaluation.ledger.tokens(info.name), f"task {info.name!r}")
    keys = _cluster_keys(run)
    notes = (*run.check(), *read.notes, *_not_exact(evaluations), *_not_clustered(run, baseline.tasks, keys))
    rng = np.random.default_rng(run.config.seed)
    rows = []
    for info in baseline.tasks:
        first = primary(run, info)
        for metric in sorted(info.metrics, key=lambda m: m != first):
            found = comparison.compare(
                info.name,
                metric,
                baseline,
                candidate,
                run.session.tasks.aggregation(info.name, metric.metric),
                rng,
            )
            ancestor = evaluations["ancestor"].task(info.name).scores if "ancestor" in evaluations else {}
            row = scored_row(info, found, ancestor.get(str(metric)), is_primary=metric == first)
            rows.append({**row, "cluster": keys.get(info.name)})
    rows += _group_rows(run, evaluations, rng)
    result = schema.Comparability(
        documents_equal=asked.documents_equal,
        prompts_equal=asked.prompts_equal,
        tokenizers_equal=not any("tokenizer" in note for note in notes),
        notes=notes,
    )
    body = {"rows": rows, "comparability": result.model_dump(mode="json"), "rescored": _rescored(evaluations)}
    write_json(folder / "comparison.json", body)


def load_clustered(run: Run, side: str) -> Evaluation:
    """A side's evaluation, every document with its cluster."""
    return clustered(run, run.load_evaluation(side))


def clustered(run: Run, evaluation: Evaluation) -> Evaluation:
    """Every document with its cluster where tasks have such (`--cluster`, `metadata.cluster`)."""
    from diffharness.evaluation.clusters import with_clusters

    keys = _cluster_keys(run)
    return with_clusters(evaluation, run.session.tasks.tasks, keys) if keys else evaluation


def _cluster_keys(run: Run) -> dict[str, str]:
    """By task, the field of documents that names their cluster."""
    from diffharness.evaluation.clusters import cluster_keys

    return cluster_keys(run.session.tasks.tasks, run.config.cluster)


def _not_clustered(run: Run, tasks: Sequence[TaskInfo], keys: Mapping[str, str]) -> list[str]:
    """Tasks that `--cluster` does not reach."""
    asked = run.config.cluster
    others = [info.name for info in tasks if asked is not None and info.name not in keys]
    return [f"documents of {', '.join(others)} have no {asked!r}, so each counts by itself"] if others else []


def _group_rows(run: Run, evaluations: Mapping[str, Evaluation], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of lm-eval's groups that have a score of their own."""
    from diffharness.assembly.scores import scored_row
    from diffharness.evaluation.groups import compare_group, group_info, group_metrics

    baseline, candidate = evaluations["baseline"], evaluations["candidate"]
    rows = []
    for group in group_metrics(run.session.tasks, run.config.tasks, baseline.tasks):
        found = compare_group(group, baseline, candidate, run.session.tasks, rng)
        ancestor = group.score(evaluations["ancestor"]) if "ancestor" in evaluations else None
        row = scored_row(group_info(group, baseline.tasks), found, ancestor, is_primary=False)
        rows.append({**row, "is_group": True})
    return rows


def document_worth(run: Run, info: TaskInfo) -> Callable[[Any], float | None]:
    """What one document's value of its task's primary metric is worth by itself."""
    from diffharness.evaluation.comparison import document_value

    return document_value(run.session.tasks.aggregation(info.name, primary(run, info).metric))


def outcomes(run: Run, keys: Sequence[tuple[str, int]]) -> np.ndarray:
    """Candidate − baseline of documents' own values of their tasks' primary metrics, higher being better.

    Args:
        run: whose evaluations.
        keys: task and number of every document.

    Returns:
        One number a document; NaN where the metric has none for a single document.
    """
    from diffharness.evaluation.comparison import document_metric

    evaluations = [run.load_evaluation(run.shared(side)) for side in ("baseline", "candidate")]
    found: dict[tuple[str, int], float] = {}
    for info in evaluations[0].tasks:
        metric = primary(run, info)
        worth = document_worth(run, info)
        base, cand = (evaluation.of(info.name, metric.filter) for evaluation in evaluations)
        sign = 1.0 if metric.higher_is_better else -1.0
        for doc_id in base.keys() & cand.keys():
            scores = [document_metric(side[doc_id], metric, worth) for side in (base, cand)]
            if scores[0] is not None and scores[1] is not None:
                found[info.name, doc_id] = sign * (scores[1] - scores[0])
    return np.array([found.get(key, np.nan) for key in keys])


def _not_exact(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """What is not as lm-eval saw it in runs that were recorded elsewhere."""
    return [
        f"{side}: {note}" for side, evaluation in evaluations.items() for note in evaluation.settings.get("notes", ())
    ]


def _rescored(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """Documents that lm-eval's grouping of requests got wrong, by task and side."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for side, evaluation in evaluations.items():
        for r in evaluation.ledger.rescored():
            if r.plain_log_likelihood is not None and r.log_likelihood is not None:
                documents = found.setdefault((r.task, side), {})
                difference = abs(r.plain_log_likelihood - r.log_likelihood)
                documents[r.doc_id] = max(difference, documents.get(r.doc_id, 0.0))
    return [
        {"task": task, "side": side, "n": len(documents), "largest": max(documents.values())}
        for (task, side), documents in found.items()
    ]
