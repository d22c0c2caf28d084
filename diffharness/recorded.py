"""Evaluations that exist already: what `diffharness lm-eval` recorded, or what plain lm-eval left on disk.

What they were made with becomes the run's options; what is given beside them has to agree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import altered_files, model_fingerprint, split_model_args
from diffharness.config import RunConfig
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.evaluation.transcript_files import ResultFiles


@dataclass(frozen=True)
class Recorded:
    """One side's evaluation on disk."""

    folder: Path
    files: ResultFiles | None = None
    """The files of plain lm-eval; none for what `diffharness lm-eval` recorded."""


def with_recorded(config: RunConfig) -> tuple[RunConfig, dict[str, Recorded]]:
    """Models and tasks that recorded evaluations name, where the configuration leaves them out, and where they are.

    Raises:
        UsageError: a folder holds no evaluation, or one that was altered, the two were made on other tasks or
            documents, or an option is given that they settle.
    """
    recorded: dict[str, Recorded] = {}
    found: dict[str, Any] = {}
    folders = {"baseline": config.baseline_results, "candidate": config.candidate_results}
    for side, folder in folders.items():
        if folder is None:
            continue
        recorded[side], one = _open(side, folder, getattr(config, f"replay_{side}"))
        for key, option in (("tasks", "--tasks"), ("limit", "--limit")):
            if key in found and found[key] != one[key]:
                raise UsageError(
                    f"--candidate-results {folder} was recorded with {option} {_shown(one[key])}, the baseline's with "
                    f"{_shown(found[key])}; record both alike"
                )
        found |= one
    given = config.model_dump(exclude_unset=True)
    for key in ("tasks", "limit"):
        if key in found and key in given and given[key] not in (found[key], None):
            raise UsageError(f"--{key} is settled by the recorded evaluations ({_shown(found[key])}); leave it out")
    for side in recorded:
        if given.get(side) not in (None, found[side]):
            raise UsageError(
                f"--{side} {given[side]} is not what --{side}-results was made with ({found[side]}); leave it out, or "
                f"name the weights to replay with as --replay-{side}"
            )
    found = {key: value for key, value in found.items() if value is not None}
    return (RunConfig.make({**found, **given}, "the recorded evaluations") if found else config), recorded


def _shown(value: Any) -> str:
    return "all" if value is None else ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _open(side: str, folder: Path, replay: str | None) -> tuple[Recorded, dict[str, Any]]:
    """An evaluation on disk and the options that it stands for."""
    if (folder / "evaluation.json").is_file():
        return Recorded(folder), _own_options(side, folder, replay)
    from diffharness.evaluation.transcript_files import find_results
    from diffharness.evaluation.transcript_options import results_options

    try:
        files = find_results(folder)
    except UsageError as error:
        raise UsageError(f"--{side}-results {error}") from error
    options = results_options(files, side, replay)
    kept = (side, "tasks", "limit", "batch_size")
    return Recorded(folder, files), {key: options[key] for key in kept}


def _own_options(side: str, folder: Path, replay: str | None) -> dict[str, Any]:
    """The options that a recording stands for; `replay` says where its weights are now.

    Raises:
        UsageError: the recording was cut off or altered, or is of weights that have changed since.
    """
    again = "make it again with `diffharness lm-eval run --model diffharness --model_args pretrained=...,record_to=DIR`"
    altered = altered_files(folder, "evaluate")
    if altered:
        raise UsageError(
            f"--{side}-results: {folder / altered[0]} was cut off or altered since it was written; {again}"
        )
    try:
        body = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        settings, args = body["settings"], replay or body["model_args"]
        batch_size = str(settings["batch_size"])
        options = {
            side: args,
            "tasks": tuple(task["name"] for task in body["tasks"]),
            "include_path": settings["include_path"],
            "limit": settings["limit"],
            "layer": settings["layer"].split("+")[0] if settings["layer"] else None,
            "batch_size": int(batch_size) if batch_size.isdigit() else None,
        }
        weights = settings["model_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--{side}-results {folder} holds no recording of this version; {again}") from error
    if weights != model_fingerprint(split_model_args(args)):
        raise UsageError(
            f"--{side}-results {folder} was recorded with other weights or arguments than {args} has; {again}"
        )
    return options
