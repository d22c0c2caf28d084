"""What is kept of a finished run whose model is accepted."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from diffharness import __version__
from diffharness.errors import UsageError
from diffharness.regression.baseline import (
    SETTINGS,
    Baseline,
    NoiseFloor,
    StoredContribution,
    StoredCrosscoder,
    StoredMetric,
    StoredTask,
)
from diffharness.regression.noise import Noise
from diffharness.regression.packing import pack_hashes, pack_numbers
from diffharness.regression.scores import FinishedRun, TaskScores, crosscoder_fingerprint
from diffharness.regression.why import contribution_of
from diffharness.report.schema.base import Interval


def bless(run: FinishedRun, side: str, noise: tuple[str, tuple[NoiseFloor, ...]] | None = None) -> Baseline:
    """What is to be kept of a run whose model of that side is accepted.

    Args:
        run: finished.
        side: `candidate` or `baseline`.
        noise: the rule and the floors of an A/A run.
    """
    report, scores = run.report, run.side(side)
    model = next(m for m in report.models if m.side == side)
    hashes = report.provenance.task_hashes
    return Baseline(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"diffharness": __version__, "lm-eval": report.provenance.versions.get("lm-eval", "")},
        run=report.run.name,
        side=side,
        model=model.name,
        model_fingerprint=model.fingerprint,
        settings={key: scores.settings.get(key) for key in SETTINGS},
        tasks=tuple(_stored(run, task, hashes.get(name, "")) for name, task in scores.tasks.items()),
        crosscoder=_crosscoder(run),
        noise=noise[1] if noise is not None else (),
        noise_rule=noise[0] if noise is not None else None,
    )


def bless_run(folder: Path, output: Path, side: str, noise: Path | None) -> str:
    """Write the baseline file of a run.

    Returns:
        What was kept, in a line.

    Raises:
        UsageError: the run, the A/A run or the file can not be used.
        RunError: the run is not finished or damaged.
    """
    run = FinishedRun.open(folder)
    found = Noise.load(noise) if noise is not None else None
    kept = bless(run, side, None if found is None else (found.rule, found.floors))
    floors = "" if noise is None or found is None else _noise_words(kept, noise, found)
    try:
        kept.save(output)
    except OSError as error:
        raise UsageError(f"--output {output} can not be written ({error.strerror}); name another file") from error
    n = sum(task.n for task in kept.tasks)
    lost = [f"{task.task} {metric} ({why})" for task in kept.tasks for metric, why in task.left_out.items()]
    said = f"; not held, so no check can compare it: {', '.join(lost)}" if lost else ""
    size = output.stat().st_size / 1024
    of = f"{len(kept.tasks)} tasks, {n} documents"
    return f"wrote {output} ({size:.0f} KiB): the {side} {kept.model}, {of}{floors}{said}"


def _noise_words(kept: Baseline, path: Path, noise: Noise) -> str:
    """Whose noise floors are kept, and which scores have none.

    Raises:
        UsageError: the A/A run holds none of the run's scores.
    """
    scores = [(task.task, f"{metric.metric},{metric.filter}") for task in kept.tasks for metric in task.metrics]
    held = {(floor.task, floor.metric) for floor in noise.floors}
    without = [f"{task} {metric}" for task, metric in scores if (task, metric) not in held]
    if len(without) == len(scores):
        there, here = (", ".join(dict.fromkeys(task for task, _ in found)) for found in (sorted(held), scores))
        raise UsageError(
            f"--noise {path} is of other tasks ({there or 'none'}) than the run ({here}); make one with `diffharness "
            "run --aa` and the run's --tasks"
        )
    missing = f", none of {', '.join(without)}" if without else ""
    return f", with the noise floors of {path} (an A/A run of {noise.model}{missing})"


def category_contributions(run: FinishedRun, task: str) -> dict[str, tuple[float, Interval]]:
    """By category, what its latents contribute to a task's gap, written and read together.

    The interval is that of `regression/why.py`.
    """
    row = run.rows.get(task)
    if row is None:
        return {}
    names = dict.fromkeys(c.category for c in row.components if c.kind == "latents" and c.category is not None)
    found = {name: contribution_of(row, name) for name in names}
    return {name: part for name, part in found.items() if part is not None}


def label_hash(run: FinishedRun) -> str:
    """A hash of which latent has which category."""
    labels = sorted((latent.index, latent.category) for latent in run.report.latents)
    return hashlib.sha256(json.dumps(labels, ensure_ascii=False).encode()).hexdigest()[:16]


def specific_counts(run: FinishedRun) -> dict[str, dict[str, int]]:
    """By category and side, how many latents are specific to it."""
    found: dict[str, dict[str, int]] = {}
    for latent in run.report.latents:
        counts = found.setdefault(latent.category, {"baseline": 0, "candidate": 0})
        for side in counts:
            counts[side] += latent.status == f"{side}-specific"
    return found


def _crosscoder(run: FinishedRun) -> StoredCrosscoder | None:
    found = crosscoder_fingerprint(run.folder)
    if found is None or not run.report.quality:
        return None
    quality = run.report.quality[0]
    return StoredCrosscoder(
        fingerprint=found,
        location=str(run.folder / "crosscoder"),
        layer=run.report.run.layer,
        n_latents=quality.n_latents,
        explained_variance=quality.explained_variance,
        n_specific=specific_counts(run),
        names=label_hash(run),
    )


def _stored(run: FinishedRun, task: TaskScores, task_hash: str) -> StoredTask:
    row = run.rows.get(task.name)
    contributions = category_contributions(run, task.name)
    left_out = dict(task.left_out)
    metrics = []
    for name, found in task.columns.items():
        if found.kind == "texts":
            left_out[name] = "it is made of texts, which a baseline file does not hold"
            continue
        key = task.metrics[name]
        metrics.append(
            StoredMetric(
                metric=key.metric, filter=key.filter, higher_is_better=key.higher_is_better, score=found.score,
                kind=found.kind, span=found.span, columns=tuple(pack_numbers(found.values_NC)),
            )
        )  # fmt: skip
    return StoredTask(
        task=task.name, version=task.version, hash=task_hash, first=task.first, n=task.n,
        documents=pack_hashes(task.documents), asked=pack_hashes(task.asked), cluster=task.cluster,
        clusters=None if task.clusters is None else pack_numbers(_codes(task.clusters))[0],
        metrics=tuple(metrics), left_out=left_out,
        unit=row.surrogate.unit if row is not None and row.surrogate is not None else None,
        contributions=tuple(
            StoredContribution(category=name, values=(value, interval.low, interval.high, interval.level))
            for name, (value, interval) in contributions.items()
        ),
    )  # fmt: skip


def _codes(clusters: tuple[str, ...]) -> np.ndarray:
    """A number a cluster, in order of first use."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    return np.array([[numbers[name]] for name in clusters], dtype=np.float64)
