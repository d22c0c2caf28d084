"""Reading `report.json`: what is absent, damaged or of a newer version is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from diffharness.errors import UsageError
from diffharness.report.schema import SCHEMA_VERSION, Report
from diffharness.report.text import brief


def report_file(path: Path) -> Path:
    """The `report.json` that a run's folder, or the file itself, stands for."""
    return path / "report.json" if path.is_dir() else path


def read_report(path: Path) -> Report:
    """The report of a run, also of an older schema version.

    Args:
        path: the run's folder, or its `report.json`.

    Raises:
        UsageError: there is none, it is damaged, or a newer diffharness wrote it.
    """
    file = report_file(path)
    try:
        version = _version(file)
        if version is not None and _parts(version) > _parts(SCHEMA_VERSION):
            raise UsageError(
                f"{file} was written by a newer diffharness: its schema version is {brief(version, 20)}, and this one "
                f"reads up to {SCHEMA_VERSION}; update diffharness (`pip install --upgrade diffharness`)"
            )
        return Report.load(file)
    except OSError as error:
        raise UsageError(f"{path} holds no report.json; give the --output folder of a finished run") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UsageError(
            f"{file} is no report that this version reads ({brief(where, 80)}: {first['msg']}); run it again"
        ) from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON ({brief(str(error), 120)}); run it again") from error


def _version(file: Path) -> str | None:
    """What the file says of its schema's version; `None` where it says nothing that is one."""
    body = json.loads(file.read_text(encoding="utf-8"))
    version = body.get("schema_version") if isinstance(body, dict) else None
    return version if isinstance(version, str) and _parts(version) else None


def _parts(version: str) -> tuple[int, ...]:
    """`1.10` as numbers, so that it stands after `1.9`; empty where it is no version."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts) else ()
