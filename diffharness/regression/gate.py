"""One check from end to end: verdict, files and print, which always agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from diffharness.errors import UsageError
from diffharness.regression.check import check
from diffharness.regression.printed import print_verdict
from diffharness.regression.writing import clear_outputs, write_outputs
from diffharness.report.files import put, to_json


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
        clear_outputs(folder, junit, comment)
        if json_file is not None:
            json_file.unlink(missing_ok=True)
    verdict = check(folder, **asked)
    write_outputs(verdict, folder, junit, summary, comment)
    if json_file is not None:
        try:
            put(json_file, to_json(verdict).encode())
        except OSError as error:
            raise UsageError(f"--json {json_file} can not be written ({error.strerror}); name another file") from error
    print_verdict(verdict, console)
    return verdict.exit_code
