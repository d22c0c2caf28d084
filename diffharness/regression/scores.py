"""A finished run's scores as a check reads them: without torch, lm-eval or tables, in well under a second."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffharness.errors import RunError, UsageError
from diffharness.evaluation.scores import DocumentScore, MetricKey, TaskInfo, read_scores
from diffharness.regression.columns import Column, column
from diffharness.report.reading import read_report
from diffharness.report.schema import Report, Task

NOISE_FILE = "noise.json"
"""What an A/A run leaves, in place of a report."""
HASH_BYTES, ASKED_BYTES = 8, 3
"""Of a document, and of its prompt and target, that a baseline file keeps."""


@dataclass(frozen=True)
class TaskScores:
    """One task of one side, documents in the order of their numbers."""

    name: str
    version: str
    first: str
    """The metric that is gated where nobody says which, as `metric,filter`."""
    metrics: Mapping[str, MetricKey]
    columns: Mapping[str, Column]
    """By `metric,filter`."""
    left_out: Mapping[str, str]
    """Metrics that can not be compared document by document, and why."""
    documents: tuple[bytes, ...]
    """Hashes, `HASH_BYTES` long."""
    asked: tuple[bytes, ...]
    """Hashes of prompts and targets, `ASKED_BYTES` long."""
    cluster: str | None = None
    """Field of the documents that says which belong together."""
    clusters: tuple[str, ...] | None = None
    doc_ids: tuple[int, ...] = ()
    """The run's own numbers; none in a baseline file."""

    @property
    def n(self) -> int:
        """Documents."""
        return len(self.documents)


@dataclass(frozen=True)
class SideScores:
    """All tasks of one side, and how it was asked."""

    tasks: Mapping[str, TaskScores]
    settings: Mapping[str, Any]
    """`limit` and what else has to agree."""
    texts: Mapping[tuple[str, str], Mapping[int, DocumentScore]] = field(default_factory=dict)
    """By task and filter, the documents with their texts; none of a baseline file."""


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run that is done."""

    folder: Path
    report: Report

    @classmethod
    def open(cls, folder: Path) -> FinishedRun:
        """Read its report.

        Raises:
            UsageError: there is no such folder, or nothing of a comparison in it.
            RunError: the run was not finished, or its report can not be read.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; give the --output folder of a finished run")
        if not (folder / "report.json").is_file():
            if (folder / NOISE_FILE).is_file():
                raise UsageError(
                    f"{folder} holds an A/A run, which compares no two models; give the --output folder of a finished "
                    "run, and this one to `diffharness bless --noise`"
                )
            if not (folder / "manifest.json").is_file() and not (folder / "evaluation").is_dir():
                raise UsageError(f"{folder} holds no run; give the --output folder of a finished run")
            raise RunError(
                f"{folder} holds a run that was not finished: it has no report.json; the same `diffharness run` goes "
                "on with it"
            )
        try:
            return cls(folder, read_report(folder))
        except UsageError as error:
            raise RunError(str(error)) from error

    @cached_property
    def rows(self) -> Mapping[str, Task]:
        """By task, the row of its first metric."""
        return {t.task: t for t in self.report.tasks if t.is_primary and not t.is_group}

    @property
    def has_own_templates(self) -> bool:
        """Whether its candidate was asked in a chat template of its own."""
        return bool(self.report.provenance.config.get("own_templates"))

    def side(self, side: str) -> SideScores:
        """The scores of one side, document by document.

        Raises:
            RunError: they are absent or damaged.
        """
        folder = self.folder / "evaluation" / side
        try:
            found = read_scores(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            raise RunError(
                f"{folder / 'evaluation.json'} is absent or damaged ({what}); the same `diffharness run` evaluates "
                "again"
            ) from error
        texts = _by_filter(found["documents"])
        tasks = {info.name: self._task(info, texts, side) for info in found["tasks"]}
        if not tasks:
            raise RunError(f"{folder / 'evaluation.json'} holds no tasks; run the comparison again")
        return SideScores(tasks, found["settings"], texts)

    def _task(
        self, info: TaskInfo, texts: Mapping[tuple[str, str], Mapping[int, DocumentScore]], side: str
    ) -> TaskScores:
        filters = {metric.filter for metric in info.metrics}
        ids = sorted(texts.get((info.name, info.metrics[0].filter), {})) if info.metrics else []
        if not ids or any(sorted(texts.get((info.name, name), {})) != ids for name in filters):
            raise RunError(
                f"{self.folder}: task {info.name!r} has no documents on the {side}'s side, or not all of them; run the "
                "comparison again"
            )
        first = texts[info.name, info.metrics[0].filter]
        columns, left_out = _columns(info, texts, ids)
        row = self.rows.get(info.name)
        key = row.cluster if row is not None else None
        own = tuple(first[i].cluster for i in ids)
        named = key is not None and self.report.provenance.config.get("cluster") is None
        clusters = tuple(c for c in own if c is not None) if named else ()
        return TaskScores(
            name=info.name,
            version=info.version,
            first=f"{row.metric},{row.filter}" if row is not None else str(info.metrics[0]),
            metrics={str(metric): metric for metric in info.metrics},
            columns=columns,
            left_out=left_out,
            documents=tuple(_shortened(first[i].doc_hash, HASH_BYTES) for i in ids),
            asked=tuple(_asked(first[i]) for i in ids),
            cluster=key,
            clusters=clusters if len(clusters) == len(ids) else self._field(info.name, key, ids, side) if key else None,
            doc_ids=tuple(ids),
        )

    def clusters(self, task: TaskScores, key: str, side: str) -> tuple[str, ...]:
        """The clusters that a field of the documents says, in the order of the task's documents.

        Raises:
            UsageError: the documents do not have it, or were not kept.
        """
        found = self._field(task.name, key, task.doc_ids, side)
        if found is None:
            raise UsageError(
                f"task {task.name!r}: the run kept no documents with a field {key!r} to tell clusters from; name "
                "another field, or leave `cluster` out of the policy"
            )
        return found

    def _field(self, task: str, key: str, ids: Sequence[int], side: str) -> tuple[str, ...] | None:
        """A field of the documents, from the samples that lm-eval wrote; `None` where there are none."""
        file = self.folder / "evaluation" / side / f"samples_{task.replace('/', '_')}.jsonl"
        if not file.is_file():
            return None
        values: dict[int, str] = {}
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                sample = json.loads(line)
                value = sample["doc"].get(key) if isinstance(sample.get("doc"), dict) else None
                if value is not None:
                    values[int(sample["doc_id"])] = (
                        value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                    )
        return tuple(values[i] for i in ids) if all(i in values for i in ids) else None


def metric_columns(
    tasks: Sequence[TaskInfo], documents: Sequence[DocumentScore]
) -> dict[str, tuple[dict[str, Column], dict[str, str]]]:
    """By task, the columns of an evaluation's metrics, and why others have none."""
    texts = _by_filter(documents)
    return {info.name: _columns(info, texts, sorted(texts[info.name, info.metrics[0].filter])) for info in tasks}


def _by_filter(documents: Sequence[DocumentScore]) -> dict[tuple[str, str], dict[int, DocumentScore]]:
    found: dict[tuple[str, str], dict[int, DocumentScore]] = {}
    for document in documents:
        found.setdefault((document.task, document.filter), {})[document.doc_id] = document
    return found


def _columns(
    info: TaskInfo, texts: Mapping[tuple[str, str], Mapping[int, DocumentScore]], ids: Sequence[int]
) -> tuple[dict[str, Column], dict[str, str]]:
    columns: dict[str, Column] = {}
    left_out: dict[str, str] = {}
    for metric in info.metrics:
        made = _column(info, metric, [texts[info.name, metric.filter][i] for i in ids])
        if isinstance(made, str):
            left_out[str(metric)] = made
        else:
            columns[str(metric)] = made
    return columns, left_out


def _column(info: TaskInfo, metric: MetricKey, documents: Sequence[DocumentScore]) -> Column | str:
    """A metric's column, or why there is none."""
    score = info.scores.get(str(metric))
    if score is None or not math.isfinite(score):
        return f"its score is {score}, no number"
    for document in documents:
        value = document.values.get(metric.metric)
        if value is None or not _is_whole(value):
            return f"document {document.doc_id} has no number"
    return column(metric, documents, score)


def _is_whole(value: Any) -> bool:
    """Whether a value has no NaN anywhere."""
    if isinstance(value, tuple):
        return all(_is_whole(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def _shortened(hash_hex: str, n_bytes: int) -> bytes:
    """The first bytes of a hash as lm-eval writes it; of what is none, those of its own hash."""
    try:
        found = bytes.fromhex(hash_hex)[:n_bytes]
    except ValueError:
        found = b""
    return found if len(found) == n_bytes else hashlib.sha256(hash_hex.encode()).digest()[:n_bytes]


def _asked(document: DocumentScore) -> bytes:
    """What tells a document's prompt, target and choices from others."""
    parts = [document.prompt_hash, document.target, list(document.choices), list(document.gold)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()[:ASKED_BYTES]


def crosscoder_fingerprint(folder: Path) -> str | None:
    """What tells the crosscoder of a run from another, trained or loaded: its weights; `None` where there is none.

    16 hex digits of their SHA-256, which is the same in the run that trained them and in those that load them.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["artifacts"]["crosscoder/model.safetensors"]["sha256"])[:16]
    except (OSError, ValueError, KeyError, TypeError):
        return None
