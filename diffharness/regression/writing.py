"""The files of a check: `verdict.json` in the run's folder, and what CI asks for, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffharness.errors import UsageError
from diffharness.regression.junit import to_junit
from diffharness.regression.outcome import Verdict
from diffharness.regression.summary import SUMMARY_LIMIT_BYTES, render_comment, render_summary
from diffharness.report.files import put, to_json

VERDICT_FILE = "verdict.json"


def write_outputs(
    verdict: Verdict,
    run_folder: Path,
    junit: Path | None = None,
    summary: Path | None = None,
    comment: Path | None = None,
    json_file: Path | None = None,
) -> list[Path]:
    """Write a check's files and return their paths; `verdict.json` is written last.

    Args:
        verdict: what was found.
        run_folder: where `verdict.json` goes.
        junit: JUnit XML.
        summary: Markdown, added to the end of the file as `$GITHUB_STEP_SUMMARY` asks for, up to its limit.
        comment: the body of a pull request's comment.
        json_file: the verdict once more, where CI wants it.

    Raises:
        UsageError: a file can not be written.
    """
    whole: dict[Path, bytes] = {}
    if junit is not None:
        whole[junit] = to_junit(verdict)
    if comment is not None:
        whole[comment] = render_comment(verdict).encode()
    for path in (json_file, run_folder / VERDICT_FILE):
        if path is not None:
            whole[path] = to_json(verdict).encode()
    if summary is not None:
        _written(summary, lambda: _append(summary, verdict))
    for path, content in whole.items():
        _written(path, lambda path=path, content=content: put(path, content))
    return [*([summary] if summary is not None else []), *whole]


def clear_outputs(run_folder: Path, *others: Path | None) -> None:
    """Remove the files of an earlier check, so that none of them contradicts one that fails.

    Raises:
        UsageError: a file can not be removed.
    """
    for path in (run_folder / VERDICT_FILE, *others):
        if path is not None:
            _written(path, lambda path=path: path.unlink(missing_ok=True))


def _append(path: Path, verdict: Verdict) -> None:
    used = path.stat().st_size if path.exists() else 0
    text = render_summary(verdict, SUMMARY_LIMIT_BYTES - used)
    with path.open("ab") as file:
        file.write(text.encode())


def _written(path: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise UsageError(
            f"{path} can not be written ({error.strerror}); name a file in a folder that can be"
        ) from error
