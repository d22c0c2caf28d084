"""Which documents belong together (one passage, one subject), so that tests and intervals draw them whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lm_eval.api.task import Task
from lm_eval.utils import handle_non_serializable, hash_string

from diffharness.errors import RunError, UsageError
from diffharness.evaluation.scores import Evaluation


def own_cluster_key(task: Task) -> str | None:
    """The field of documents that the task's YAML names as `metadata.cluster`."""
    key = (task.get_config("metadata") or {}).get("cluster")
    return None if key is None else str(key)


def cluster_keys(tasks: Mapping[str, Task], asked: str | None) -> dict[str, str]:
    """By task, the field whose value a document's cluster is; tasks without one are left out.

    Args:
        tasks: as loaded.
        asked: what `--cluster` names; it comes before a task's own.

    Raises:
        UsageError: no task's documents have the field that is asked for, or a task's not the one of its YAML.
    """
    keys: dict[str, str] = {}
    fields: dict[str, list[str]] = {}
    for name, task in tasks.items():
        document = next(iter(task.eval_docs), None)
        fields[name] = [str(field) for field in document] if isinstance(document, Mapping) else []
        own = own_cluster_key(task)
        if asked is not None and asked in fields[name]:
            keys[name] = asked
        elif own is not None:
            if own not in fields[name]:
                raise UsageError(
                    f"task {name!r}: metadata.cluster {own!r} is no field of its documents; they have: "
                    f"{_listed(fields[name])}"
                )
            keys[name] = own
    if asked is not None and asked not in keys.values():
        shown = "; ".join(f"those of {name!r} have: {_listed(known)}" for name, known in list(fields.items())[:3])
        raise UsageError(f"--cluster {asked!r} is a field of no task's documents; {shown}")
    return keys


def document_cluster(task: str, document: Any, key: str) -> str:
    """The cluster of one document.

    Raises:
        UsageError: it has no such field, or nothing there.
    """
    value = document.get(key) if isinstance(document, Mapping) else None
    if value is None:
        fields = _listed([str(field) for field in document]) if isinstance(document, Mapping) else "none"
        raise UsageError(
            f"a document of task {task!r} has no {key!r} to tell its cluster from; its fields: {fields}; name another "
            "with --cluster"
        )
    return value if isinstance(value, str) else json.dumps(value, default=handle_non_serializable, sort_keys=True)


def with_clusters(evaluation: Evaluation, tasks: Mapping[str, Task], keys: Mapping[str, str]) -> Evaluation:
    """The evaluation with every document's cluster, read from the tasks' documents as they are here.

    Args:
        evaluation: of these tasks.
        tasks: as loaded.
        keys: by task, the field (see `cluster_keys`); documents of other tasks are by themselves.

    Raises:
        RunError: a task's documents are not those that were evaluated.
    """
    asked = {(d.task, d.doc_id) for d in evaluation.documents if d.task in keys}
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for name, key in keys.items():
        for i, document in enumerate(tasks[name].eval_docs):
            if (name, i) in asked:
                found[name, i] = _hash(document), document_cluster(name, document, key)
    documents = []
    for score in evaluation.documents:
        if score.task not in keys:
            documents.append(replace(score, cluster=None))
            continue
        doc_hash, cluster = found.get((score.task, score.doc_id), ("", ""))
        if doc_hash != score.doc_hash:
            raise RunError(
                f"document {score.doc_id} of task {score.task!r} is another here than the one that was evaluated, so "
                "its cluster is not known; use the task's version that was run, or leave --cluster out"
            )
        documents.append(replace(score, cluster=cluster))
    return replace(evaluation, documents=tuple(documents))


def _hash(document: Any) -> str:
    """lm-eval's `doc_hash`."""
    return hash_string(json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False))


def _listed(fields: list[str]) -> str:
    return ", ".join(fields) or "none"
