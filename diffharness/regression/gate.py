"""One check from end to end: verdict, files and print, which always agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from diffharness.regression.check import check
from diffharness.regression.printed import print_verdict
from diffharness.regression.writing import clear_outputs, write_outputs


def run_check(
    folder: Path,
    *,
    console: Console,
    junit: Path | None = None,
    summary: Path | None = None,
    comment: Path | None = None,
    json_file: Path | None = None,
    **asked: Any,
) -> int:
    """Check a run, write what was found, print it, and return the exit code.

    What an earlier check wrote is removed first, so that nothing contradicts one that fails.

    Args:
        folder: the run's.
        console: the command's standard output.
        junit: where JUnit XML goes.
        summary: what Markdown is added to.
        comment: where the body of a comment goes.
        json_file: where the verdict goes, beside `RUN/verdict.json`.
        asked: of `regression/check.py::check`.
    """
    if folder.is_dir():
        clear_outputs(folder, junit, comment, json_file)
    verdict = check(folder, **asked)
    write_outputs(verdict, folder, junit, summary, comment, json_file)
    print_verdict(verdict, console)
    return verdict.exit_code
