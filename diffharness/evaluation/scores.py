"""What an evaluation left: per-document scores of every metric, and what is needed to score a document again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffharness.errors import RunError
from diffharness.evaluation.ledger import Ledger

Value = float | tuple[Any, ...]
"""A document's value of a metric: a number, or what lm-eval aggregates: log-likelihood and bytes, gold and answer, …"""


@dataclass(frozen=True)
class MetricKey:
    """One column of lm-eval's table."""

    metric: str
    filter: str
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.metric},{self.filter}"


@dataclass(frozen=True)
class TaskInfo:
    """A task as lm-eval ran it."""

    name: str
    output_type: str
    metrics: tuple[MetricKey, ...]
    """In the order of the task's YAML; the first is the primary one."""
    categories: tuple[str, ...]
    version: str
    hash: str
    """SHA-256 (16 hex digits) over the task's documents, prompts and targets as lm-eval hashed them."""
    scores: Mapping[str, float]
    """lm-eval's aggregates by `metric,filter`."""


@dataclass(frozen=True)
class DocumentScore:
    """One document under one filter."""

    task: str
    doc_id: int
    filter: str
    doc_hash: str
    prompt_hash: str
    prompt: str
    target: str
    answer: str
    """The filtered response, or the choice that won."""
    values: Mapping[str, Value]
    """By metric."""
    gold: tuple[int, ...] = ()
    """Right choices (`multiple_choice`)."""
    choices: tuple[str, ...] = ()

    def scalar(self, metric: str) -> float | None:
        """The value as one number, or `None` where the metric aggregates more than one."""
        value = self.values.get(metric)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Evaluation:
    """One model's answers to all tasks."""

    model_args: str
    tasks: tuple[TaskInfo, ...]
    documents: tuple[DocumentScore, ...]
    ledger: Ledger
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What has to agree between two evaluations: limit, shots, templates, layer of a recording."""

    def task(self, name: str) -> TaskInfo:
        """The task of that name."""
        return next(t for t in self.tasks if t.name == name)

    def of(self, task: str, filter_name: str) -> dict[int, DocumentScore]:
        """The task's documents under a filter, by `doc_id`."""
        return {d.doc_id: d for d in self.documents if d.task == task and d.filter == filter_name}

    def save(self, folder: Path) -> list[Path]:
        """Write `evaluation.json` and `ledger.parquet` into an existing folder."""
        body = {
            "model_args": self.model_args,
            "settings": dict(self.settings),
            "tasks": [asdict(t) for t in self.tasks],
            "documents": [{**asdict(d), "values": _finite(dict(d.values))} for d in self.documents],
        }
        scores = folder / "evaluation.json"
        scores.write_text(json.dumps(body, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        ledger = folder / "ledger.parquet"
        self.ledger.save(ledger)
        return [scores, ledger]

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            RunError: files are absent or of another shape.
        """
        try:
            body = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
            return cls(
                model_args=body["model_args"],
                settings=body["settings"],
                tasks=tuple(_task(t) for t in body["tasks"]),
                documents=tuple(_document(d) for d in body["documents"]),
                ledger=Ledger.load(folder / "ledger.parquet"),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder} does not hold a recorded evaluation ({error}); make one with "
                f"`diffharness lm-eval run --model diffharness --model_args pretrained=...,record_to={folder}`"
            ) from error


def _finite(value: Any) -> Any:
    """JSON of values: what is not a number becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _restored(value: Any) -> Any:
    """The values of which `_finite` made JSON."""
    if isinstance(value, list):
        return tuple(_restored(v) for v in value)
    return math.nan if value is None else value


def _task(body: dict[str, Any]) -> TaskInfo:
    metrics = tuple(MetricKey(**m) for m in body.pop("metrics"))
    return TaskInfo(metrics=metrics, categories=tuple(body.pop("categories")), **body)


def _document(body: dict[str, Any]) -> DocumentScore:
    values = {k: _restored(v) for k, v in body.pop("values").items()}
    return DocumentScore(values=values, gold=tuple(body.pop("gold")), choices=tuple(body.pop("choices")), **body)
