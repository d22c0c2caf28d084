"""The baseline file: an accepted model's scores and account, small enough to commit, written by `bless` alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from diffharness.errors import UsageError
from diffharness.evaluation.scores import MetricKey
from diffharness.regression.columns import Column, Kind
from diffharness.regression.packing import unpack_hashes, unpack_numbers
from diffharness.regression.scores import ASKED_BYTES, HASH_BYTES, SideScores, TaskScores
from diffharness.report.files import put
from diffharness.report.schema.base import Model

BASELINE_SCHEMA_VERSION = "1.0"
FORMAT = "diffharness-baseline"
AGAIN = "make it again with `diffharness bless RUN --output FILE`"
SETTINGS = ("limit", "protocol")
"""What of a side's settings has to agree."""


class StoredMetric(Model):
    """One metric of one task."""

    metric: str
    filter: str
    higher_is_better: bool
    score: float
    """lm-eval's."""
    kind: Kind
    span: float | None
    """The most that one document's score can change."""
    columns: tuple[str, ...]
    """Packed (`regression/packing.py`)."""


class StoredContribution(Model):
    """What one category's latents contributed to the task's gap in the blessed run, written and read together."""

    category: str
    values: tuple[float, float, float, float]
    """The contribution, the ends of its interval, and the interval's level."""


class StoredTask(Model):
    """One task: what was asked, and what every document scored."""

    task: str
    version: str
    hash: str
    """lm-eval's, over documents, prompts and targets."""
    first: str
    n: int
    documents: str
    """Hashes of the documents, packed."""
    asked: str
    """Hashes of their prompts and targets, packed."""
    cluster: str | None
    clusters: str | None
    """Which documents are of one cluster, packed."""
    metrics: tuple[StoredMetric, ...]
    left_out: dict[str, str]
    """Metrics that can not be compared document by document, and why."""
    unit: str | None
    """Of the contributions; `None` where there is no account."""
    contributions: tuple[StoredContribution, ...]


class StoredCrosscoder(Model):
    """The crosscoder that the categories are of."""

    fingerprint: str
    """16 hex digits of the weights' SHA-256."""
    location: str
    """Where it was when the run was blessed; a hint."""
    layer: int
    n_latents: int
    explained_variance: dict[str, float]
    n_specific: dict[str, dict[str, int]]
    """By category and side, how many latents are specific to it."""
    names: str
    """A hash of which latent has which category."""


class NoiseFloor(Model):
    """How far two evaluations of the same model lay apart on one metric of one task (ISO 5725)."""

    task: str
    metric: str
    """`metric,filter`."""
    difference: float
    """Of the two scores."""
    n_changed: int
    """Documents whose score differs."""
    floor: float = Field(ge=0)


class Baseline(Model):
    """The file."""

    format: str = FORMAT
    schema_version: str = BASELINE_SCHEMA_VERSION
    created: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    run: str
    side: str
    model: str
    model_fingerprint: str
    settings: dict[str, Any]
    tasks: tuple[StoredTask, ...]
    crosscoder: StoredCrosscoder | None
    noise: tuple[NoiseFloor, ...] = ()
    noise_rule: str | None = None
    """How the floors were found; `None` without an A/A run."""
    checksum: str = ""
    """SHA-256 over everything else."""

    def scores(self) -> SideScores:
        """The scores as a run has them, without texts.

        Raises:
            UsageError: the packed documents are not whole.
        """
        try:
            return SideScores({task.task: _unpacked(task) for task in self.tasks}, self.settings)
        except ValueError as error:
            raise UsageError(f"the baseline file is damaged: {error}; {AGAIN}") from error

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        body = self.model_dump(mode="json") | {"checksum": ""}
        put(path, _text({**body, "checksum": _checksum(body)}).encode())

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read what `save` wrote.

        Raises:
            UsageError: there is no such file, or it is empty, cut off, of a newer version, or altered by hand.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"baseline file {path} can not be read ({error.strerror}); {AGAIN}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is no baseline file; {AGAIN}") from error
        if not text.strip():
            raise UsageError(f"baseline file {path} is empty; {AGAIN}")
        try:
            body = json.loads(text)
        except ValueError as error:
            raise UsageError(f"baseline file {path} was cut off or is not JSON; {AGAIN}") from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise UsageError(f"{path} is no baseline file; {AGAIN}")
        _check_version(str(body.get("schema_version", "")), path)
        if body.get("checksum") != _checksum({**body, "checksum": ""}):
            raise UsageError(
                f"baseline file {path} was altered after it was written (its checksum differs); restore it, or {AGAIN}"
            )
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise UsageError(
                f"baseline file {path} is of another layout ({error.errors()[0]['msg']}); {AGAIN}"
            ) from error


def _unpacked(task: StoredTask) -> TaskScores:
    keys = {f"{m.metric},{m.filter}": MetricKey(m.metric, m.filter, m.higher_is_better) for m in task.metrics}
    columns = {
        f"{m.metric},{m.filter}": Column(m.kind, unpack_numbers(m.columns, task.n), m.score, m.span)
        for m in task.metrics
    }
    codes = None if task.clusters is None else unpack_numbers((task.clusters,), task.n)[:, 0]
    return TaskScores(
        name=task.task,
        version=task.version,
        first=task.first,
        metrics=keys,
        columns=columns,
        left_out=task.left_out,
        documents=unpack_hashes(task.documents, task.n, HASH_BYTES),
        asked=unpack_hashes(task.asked, task.n, ASKED_BYTES),
        cluster=task.cluster,
        clusters=None if codes is None else tuple(str(int(code)) for code in codes),
    )


def _text(body: dict[str, Any]) -> str:
    """A line a task, so that a change of one shows as such."""
    lines = [f"{json.dumps(key)}: {_compact(value)}" for key, value in body.items() if key != "tasks"]
    tasks = ",\n".join(_compact(task) for task in body["tasks"])
    return "{\n" + ",\n".join([*lines, f'"tasks": [\n{tasks}\n]']) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _checksum(body: dict[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _check_version(found: str, path: Path) -> None:
    """Refuse a newer layout: what it says could be misread."""
    own = tuple(map(int, BASELINE_SCHEMA_VERSION.split(".")))
    try:
        version = tuple(map(int, found.split(".")))
    except ValueError as error:
        raise UsageError(f"baseline file {path} says no schema version; {AGAIN}") from error
    if version > own:
        raise UsageError(
            f"baseline file {path} has schema {found}, newer than {BASELINE_SCHEMA_VERSION}, which this diffharness "
            f"reads; upgrade diffharness, or {AGAIN}"
        )
