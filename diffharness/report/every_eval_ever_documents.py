"""The documents of a run, a line a document and score, in the format of Every Eval Ever, schema 0.3.0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffharness.errors import RunError
from diffharness.evaluation.scores import DocumentScore, read_scores
from diffharness.report.schema import Task

VERSION = "0.3.0"
RIGHT_OR_WRONG = ("acc", "acc_norm", "acc_mutual_info", "exact_match")
"""Metrics whose value of a document says whether the answer is right, which the format asks of every line."""


def result_id(task: Task) -> str:
    """What a document's line names its score by."""
    return f"{task.task}/{task.metric},{task.filter}"


def evaluation_name(task: Task) -> str:
    """The task, and its filter where it has one."""
    return task.task if task.filter == "none" else f"{task.task}/{task.filter}"


@dataclass(frozen=True)
class Documents:
    """One model's documents by task and filter; empty where the run's folder has none."""

    by_task: Mapping[tuple[str, str], Sequence[DocumentScore]] = field(default_factory=dict)

    def of(self, task: Task) -> Sequence[DocumentScore]:
        """The documents that a row of the report is made of."""
        return self.by_task.get((task.task, task.filter), ())

    def values(self, task: Task) -> list[float]:
        """The documents' values of a metric; empty where one of them is no number."""
        values = [document.scalar(task.metric) for document in self.of(task)]
        return [v for v in values if v is not None] if None not in values else []

    def lines(self, tasks: Sequence[Task], key: str, model_id: str) -> list[dict[str, Any]]:
        """A line a document and score, of the scores that say of every document whether it is right."""
        return [
            _line(document, task, value, key, model_id)
            for task in tasks
            if _has_lines(task, self.values(task))
            for document, value in zip(self.of(task), self.values(task), strict=True)
        ]

    def left_out(self, tasks: Sequence[Task]) -> str:
        """The scores without lines, and why, in a sentence."""
        names = [f"{t.task} {t.metric}" for t in tasks if not t.is_group and not _has_lines(t, self.values(t))]
        why = "their values of a document do not say whether it is right"
        return f"{'; '.join(names)}: {why}" if names else "none"


def _has_lines(task: Task, values: Sequence[float]) -> bool:
    return task.metric in RIGHT_OR_WRONG and set(values) <= {0.0, 1.0}


def read_documents(folder: Path | None, side: str) -> Documents:
    """What a run's folder holds of one side.

    Raises:
        RunError: `evaluation.json` is damaged.
    """
    home = None if folder is None else folder / "evaluation" / side
    if home is None or not (home / "evaluation.json").is_file():
        return Documents()
    try:
        found = read_scores(home)["documents"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{home} does not hold a recorded evaluation ({error}); run it again") from error
    by_task: dict[tuple[str, str], list[DocumentScore]] = {}
    for document in found:
        by_task.setdefault((document.task, document.filter), []).append(document)
    return Documents(by_task)


def _line(document: DocumentScore, task: Task, value: float, key: str, model_id: str) -> dict[str, Any]:
    given = {"raw": document.prompt, "reference": [document.target]}
    return {
        "schema_version": VERSION,
        "evaluation_id": key,
        "model_id": model_id,
        "evaluation_name": evaluation_name(task),
        "evaluation_result_id": result_id(task),
        "sample_id": str(document.doc_id),
        "sample_hash": _hash(given),
        "interaction_type": "single_turn",
        "input": {**given, "choices": list(document.choices) or None},
        "output": {"raw": [document.answer if document.response is None else document.response]},
        "messages": None,
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": document.answer,
                "extraction_method": document.filter,
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": value, "is_correct": value == 1.0},
        "metadata": {"metric": task.metric, "doc_hash": document.doc_hash, "prompt_hash": document.prompt_hash},
    }


def _hash(given: Mapping[str, Any]) -> str:
    """SHA-256 over question and reference, in the format's own spelling, so that the same question is known again."""
    text = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
