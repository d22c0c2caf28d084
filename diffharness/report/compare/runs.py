"""Finished runs, read to be compared: their reports, and names that tell them apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffharness.errors import UsageError
from diffharness.report.reading import read_report, report_file
from diffharness.report.schema import Report
from diffharness.report.view import side_name


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    """What it is called in the comparison."""
    given: Path
    folder: Path
    """That holds its report and what lies beside it."""
    report: Report
    crosscoder: str | None
    """SHA-256 of the crosscoder that its account rests on; `None` where the folder does not say it."""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in these folders (or of these `report.json`), in their order.

    Raises:
        UsageError: there are fewer than two, one is given twice, or holds no report.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} run given; compare needs the folders of two or more finished runs")
    files = [report_file(path).resolve() for path in paths]
    twice = next((path for path, file in zip(paths, files, strict=True) if files.count(file) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; name every run once")
    reports = [read_report(path) for path in paths]
    names = labels([side_name(report, "candidate") for report in reports], files)
    return [
        Run(name, given, file.parent, report, _crosscoder(file.parent))
        for name, given, file, report in zip(names, paths, files, reports, strict=True)
    ]


def labels(candidates: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Names that differ: the candidates', or where they repeat as much of the folders' paths as tells them apart."""
    if len(set(candidates)) == len(candidates):
        return list(candidates)
    paths = [file.parent if file.name == "report.json" else file for file in files]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        tails = ["/".join(path.parts[-depth:]) for path in paths]
        named = Counter(candidates)
        mixed = [name if named[name] == 1 else tail for name, tail in zip(candidates, tails, strict=True)]
        for found in (mixed, tails):
            if len(set(found)) == len(found):
                return found
    raise ValueError(f"the same file is given twice among {files}")


def _crosscoder(folder: Path) -> str | None:
    """The main crosscoder's checksum, from the run's manifest."""
    file = folder / "manifest.json"
    if not file.is_file():
        return None
    try:
        body: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON; run it again") from error
    artifacts = body.get("artifacts") if isinstance(body, dict) else None
    found = artifacts.get("crosscoder/model.safetensors") if isinstance(artifacts, Mapping) else None
    return found.get("sha256") if isinstance(found, Mapping) and isinstance(found.get("sha256"), str) else None
