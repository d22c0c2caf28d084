"""Finished runs put side by side: their scores, what their categories carry, and how they differ from the first."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffharness.assembly.differences import Side, decided, differences
from diffharness.assembly.matrix import cells
from diffharness.assembly.shared_tasks import Shared, shared_tasks
from diffharness.assembly.sums import TaskDocuments, read_documents, summed
from diffharness.errors import UsageError
from diffharness.report.compare.model import ComparedRun, Comparison, TaskPart
from diffharness.report.compare.runs import Run
from diffharness.report.numbers import count, percent, plain
from diffharness.report.schema import ModelInfo, Report

MOST_NAMED = 4
"""Tasks that an error names."""

NOTES = (
    "An interval of a difference holds the error of the documents. It does not hold that of the crosscoder: one "
    "trained anew on the same two models shares a gap out somewhat differently (runs with --seeds show by how much).",
)


def comparison(runs: Sequence[Run], command: str, output: Path | None = None) -> Comparison:
    """The comparison of finished runs; the first is what the others are compared with.

    Args:
        runs: two or more.
        command: what makes the comparison.
        output: the folder that it is written to, for links to the runs' own pages.

    Raises:
        UsageError: no task can be compared, or a run's contributions can not be read.
    """
    shared = shared_tasks(runs)
    if not shared.by_task:
        raise UsageError(_nothing_shared(runs, shared))
    documents = {run.name: read_documents(run.folder / "contributions.parquet") for run in runs}
    sums, parts = [], []
    for run in runs:
        for unit, names in shared.summable.items():
            whole, own = summed(run.name, unit, [shared.by_task[name][run.name] for name in names], documents[run.name])
            sums.append(whole)
            parts += own
    sides = [_side(run, shared, documents[run.name]) for run in runs]
    found = [d for side in sides[1:] for d in differences(sides[0], side, shared.summable, shared.same_documents)]
    return Comparison(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        runs=tuple(_compared(run, documents[run.name], output) for run in runs),
        tasks=tuple(shared.by_task),
        common=shared.common,
        cells=cells({run.name: _only(run.report, shared) for run in runs}),
        sums=tuple(sums),
        parts=tuple(parts),
        accounts=tuple(_accounts(runs, shared)),
        differences=decided(found),
        left_out=shared.left_out,
        notes=(*_notes(runs, shared), *NOTES),
    )


def _nothing_shared(runs: Sequence[Run], shared: Shared) -> str:
    said = "; ".join(shared.left_out[:MOST_NAMED])
    more = f"; and {len(shared.left_out) - MOST_NAMED} more" if len(shared.left_out) > MOST_NAMED else ""
    names = ", ".join(run.name for run in runs)
    return (
        f"{names} have no task that can be compared ({said or 'none was evaluated'}{more}); "
        "compare runs of the same tasks, with the same --limit and prompts"
    )


def _only(report: Report, shared: Shared) -> Report:
    """The report with the tasks that are compared."""
    return report.model_copy(update={"tasks": tuple(task for task in report.tasks if task.task in shared.by_task)})


def _side(run: Run, shared: Shared, documents: Mapping[str, TaskDocuments]) -> Side:
    tasks = {name: of_run[run.name] for name, of_run in shared.by_task.items() if run.name in of_run}
    return Side(run.name, tasks, documents)


def _accounts(runs: Sequence[Run], shared: Shared) -> list[TaskPart]:
    """Every run's components of the tasks that are summed."""
    return [
        TaskPart(
            run=run.name, task=name, unit=unit, kind=part.kind, origin=part.origin, category=part.category,
            contribution=part.contribution, interval=part.interval,
        )
        for unit, names in shared.summable.items()
        for name in names
        for run in runs
        for part in shared.by_task[name][run.name].components
    ]  # fmt: skip


def _model(report: Report, side: str) -> ModelInfo:
    return next(model for model in report.models if model.side == side)


def _compared(run: Run, documents: Mapping[str, TaskDocuments], output: Path | None) -> ComparedRun:
    baseline, candidate = (_model(run.report, side) for side in ("baseline", "candidate"))
    return ComparedRun(
        name=run.name,
        folder=str(run.given),
        schema_version=run.report.schema_version,
        created=run.report.run.created,
        baseline=baseline.name,
        candidate=candidate.name,
        baseline_fingerprint=baseline.fingerprint,
        candidate_fingerprint=candidate.fingerprint,
        layer=run.report.run.layer,
        n_layers=run.report.run.n_layers,
        crosscoder=_crosscoder(run.report),
        has_documents=bool(documents),
        page=None if output is None else _page(run, output),
    )


def _crosscoder(report: Report) -> str | None:
    """How well the crosscoder reads its pair, in words."""
    if report.validation.mechanism_withheld is not None:
        return f"scores only: {report.validation.mechanism_withheld}"
    if not report.quality:
        return None
    pair = report.quality[0]
    shares = ", ".join(f"{side} {percent(value, 1)}" for side, value in pair.explained_variance.items())
    stale = f"; stale: {pair.stale}" if pair.stale is not None else ""
    return f"{count(pair.n_latents)} latents, L0 {plain(pair.l0, 1)}, explained variance {shares}{stale}"


def _notes(runs: Sequence[Run], shared: Shared) -> list[str]:
    """What the runs do not have in common."""
    said = []
    baselines = {run.name: _model(run.report, "baseline") for run in runs}
    if len({model.fingerprint for model in baselines.values()}) > 1:
        each = ", ".join(f"{model.name} ({model.fingerprint[:8]}) in {run}" for run, model in baselines.items())
        said.append(
            f"The baselines differ: {each}. A gap is each run's own candidate − its own baseline, so a difference of "
            "gaps is not one of candidates."
        )
    pairs: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        pair = baselines[run.name].fingerprint, _model(run.report, "candidate").fingerprint
        pairs.setdefault(pair, []).append(run.name)
    said += [f"{', '.join(own)} compare the same two models." for own in pairs.values() if len(own) > 1]
    if not _one_crosscoder(runs):
        said.append("The crosscoders differ: a category's sums are comparable by its name only, not latent by latent.")
    said += _unlike(runs)
    unknown = [name for name in shared.by_task if name not in shared.same_documents]
    if unknown:
        named = ", ".join(unknown[:MOST_NAMED]) + (" …" if len(unknown) > MOST_NAMED else "")
        said.append(
            f"It is not known whether the documents of {named} are the same: a report does not hold their hash. No "
            "difference is claimed for them."
        )
    return said


def _one_crosscoder(runs: Sequence[Run]) -> bool:
    """Whether all accounts rest on the same crosscoder; where no checksum says it, on equal measurements of it."""
    checksums = {run.crosscoder for run in runs}
    if None not in checksums:
        return len(checksums) == 1
    measured = [run.report.quality[0] if run.report.quality else None for run in runs]
    return measured[0] is not None and all(one == measured[0] for one in measured)


def _unlike(runs: Sequence[Run]) -> list[str]:
    """Settings that differ and bear on what is compared."""
    reports = [run.report for run in runs]
    annotators = [report.annotation.annotator if report.annotation else "nobody" for report in reports]
    settings = {
        "The layer compared differs": [f"{r.run.layer} of {r.run.n_layers}" for r in reports],
        "The latents were named by": annotators,
        "The taxonomies differ": [str(r.provenance.config.get("taxonomy") or "the default") for r in reports],
        "A change is called one from different sizes on": [plain(r.run.smallest_effect) for r in reports],
        "Accounts take different orders": [r.run.order for r in reports],
        "The reports are of different schema versions": [r.schema_version for r in reports],
    }
    said = [
        f"{words}: {', '.join(f'{value} in {run.name}' for run, value in zip(runs, values, strict=True))}."
        for words, values in settings.items()
        if len(set(values)) > 1
    ]
    unequal = [run.name for run in runs if not run.report.comparability.prompts_equal]
    if unequal:
        said.append(f"The two models of {', '.join(unequal)} did not read the same prompts.")
    return said


def _page(run: Run, output: Path) -> str | None:
    """Where the run's page lies, from the comparison's folder; `None` where there is none."""
    page = run.folder / "report.html"
    return Path(os.path.relpath(page, output.resolve())).as_posix() if page.is_file() else None
