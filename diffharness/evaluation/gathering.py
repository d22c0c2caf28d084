"""From lm-eval's result dictionary and the model's ledger to an `Evaluation`."""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs

from diffharness.errors import RunError
from diffharness.evaluation.clusters import document_cluster, own_cluster_key
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, TaskInfo, Value

_NOT_METRICS = {"alias", "name", "sample_len", "sample_count"}


def gather(
    model: RecordingModel,
    tasks: dict[str, Task],
    results: dict[str, Any],
    *,
    model_args: str,
    settings: dict[str, Any],
) -> Evaluation:
    """Turn lm-eval's result dictionary and the model's ledger into an `Evaluation`.

    Raises:
        RunError: the ledger is short of a request or holds one twice, or lm-eval numbered documents wrongly.
    """
    numbers = {name: _document_numbers(name, results["samples"][name]) for name in tasks}
    ledger = model.ledger().renumbered(numbers)
    ledger.check_complete(
        (name, numbers[name][int(i.doc_id or 0)], i.idx, repeat)
        for name, task in tasks.items()
        for i in task.instances
        for repeat in range(i.repeats or 1)
    )
    infos, documents = [], []
    for name, task in tasks.items():
        samples = results["samples"][name]
        infos.append(task_info(name, task, results, samples))
        stopped = _stopped(model, ledger, name, samples) if task.OUTPUT_TYPE == "generate_until" else {}
        documents.extend(document_score(name, task, s, stopped.get(int(s["doc_id"]))) for s in samples)
    return Evaluation(model_args, tuple(infos), tuple(documents), ledger, settings)


def _document_numbers(name: str, samples: list[dict[str, Any]]) -> list[int]:
    """By the order in which a task's documents were asked, the numbers that lm-eval logs them under.

    Requests count the documents that were chosen with `samples`; logged samples count all of the task's.

    Raises:
        RunError: the numbers do not rise, so `samples` was not sorted and lm-eval gave them to the wrong documents.
    """
    numbers = [int(s["doc_id"]) for s in samples if s["filter"] == samples[0]["filter"]]
    if sorted(set(numbers)) != numbers:
        raise RunError(
            f"lm-eval numbered the documents of task {name!r} wrongly, because `samples` was not sorted or names one "
            "twice; sort it and run again"
        )
    return numbers


def task_info(name: str, task: Task, results: dict[str, Any], samples: list[dict[str, Any]]) -> TaskInfo:
    """A task's metrics and scores, from lm-eval's results and its logged samples."""
    row = {
        key: value
        for key, value in results["results"][name].items()
        if "," in key and "_stderr," not in key and key.split(",")[0] not in _NOT_METRICS
    }
    better = {**task.higher_is_better(), **results.get("higher_is_better", {}).get(name, {})}
    listed = [str(m.get("metric")) for m in task.get_config("metric_list") or []]
    metrics = []
    for key in row:
        metric, filter_name = key.split(",", 1)
        metrics.append(MetricKey(metric, filter_name, better.get(metric) is not False))
    metrics.sort(key=lambda m: listed.index(m.metric) if m.metric in listed else len(listed))
    metadata = task.get_config("metadata") or {}
    category = metadata.get("category", [])
    hashes = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
    return TaskInfo(
        name=name,
        output_type=str(task.OUTPUT_TYPE),
        metrics=tuple(metrics),
        categories=(category,) if isinstance(category, str) else tuple(category),
        version=str(metadata.get("version", "")),
        hash=hashlib.sha256(hashes.encode()).hexdigest()[:16],
        scores={key: float(value) for key, value in row.items()},
        sampled=task.OUTPUT_TYPE == "generate_until" and any(_is_sampled(s["arguments"][0][1]) for s in samples),
    )


def _is_sampled(arguments: Any) -> bool:
    """Whether generation arguments draw answers at random, as lm-eval's `hf` model understands them."""
    if not isinstance(arguments, dict):
        return False
    asked = arguments.get("do_sample")
    return float(arguments.get("temperature") or 0.0) > 0 if asked is None else bool(asked)


def _stopped(model: RecordingModel, ledger: Ledger, name: str, samples: list[dict[str, Any]]) -> dict[int, bool]:
    """Of every document, whether its first answer was ended by an end token or a stop, and not by the limit."""
    readings = ledger.by_document(name)
    found = {}
    for sample in samples:
        doc_id = int(sample["doc_id"])
        if doc_id in readings and doc_id not in found:
            found[doc_id] = _stops(model, readings[doc_id][0].targets, sample["arguments"][0][1])
    return found


def _stops(model: RecordingModel, generated: Sequence[int], arguments: dict[str, Any]) -> bool:
    asked = normalize_gen_kwargs(arguments, model.max_gen_toks)
    if "max_length" not in asked and len(generated) < asked.get("max_gen_toks", 0):
        return True
    configured = getattr(model.hf_model.generation_config, "eos_token_id", None)
    ends = {model.eot_token_id, *(configured if isinstance(configured, list) else [configured])}
    text = model.tok_decode(list(generated))
    if isinstance(model.think_end_token, str):
        text = text.rpartition(model.think_end_token)[2]
    return (bool(generated) and generated[-1] in ends) or any(stop in text for stop in asked.get("until", ()) if stop)


def document_score(name: str, task: Task, sample: dict[str, Any], stopped: bool | None = None) -> DocumentScore:
    """One logged sample of a task; `stopped` says whether the model ended a generated answer by itself."""
    choices, gold = _choices(task, sample["doc"])
    first = sample["filtered_resps"][0]
    if choices:
        likelihoods = [r[0] for r in sample["filtered_resps"][: len(choices)]]
        answer = choices[int(np.argmax(likelihoods))]
        target = " | ".join(choices[g] for g in gold)
    else:
        answer = first if isinstance(first, str) else ""
        target = str(sample["target"])
    return DocumentScore(
        task=name,
        doc_id=int(sample["doc_id"]),
        filter=sample["filter"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        prompt=str(sample["arguments"][0][0]),
        target=target,
        answer=answer,
        values={m: _value(sample[m]) for m in sample["metrics"]},
        gold=gold,
        choices=choices,
        response=_response(task, sample),
        stopped=stopped,
        cluster=None if (key := own_cluster_key(task)) is None else document_cluster(name, sample["doc"], key),
    )


def _response(task: Task, sample: dict[str, Any]) -> str | None:
    """What the model wrote, before any filter."""
    first = sample["resps"][0][0] if task.OUTPUT_TYPE == "generate_until" else None
    return first if isinstance(first, str) else None


def _choices(task: Task, doc: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The choices and the right ones, read as lm-eval's `process_results` reads them."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return (), ()
    choices = tuple(str(c) for c in task.doc_to_choice(doc))
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    golds = gold if isinstance(gold, list) else [gold]
    indices = [choices.index(g) if isinstance(g, str) and g in choices else g for g in golds]
    return choices, tuple(int(g) for g in indices if isinstance(g, int) and 0 <= g < len(choices))


def _value(value: Any) -> Value:
    """A document's value as plain data: numbers as floats, except where lm-eval aggregates tuples of something."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_plain(v) for v in value)
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_plain(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value
