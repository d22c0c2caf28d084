"""Programs that some tests need and Python does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def program(what: str, package: str, *names: str) -> str:
    """Where the first of these lies. In CI its absence is a failure, elsewhere a reason to skip."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is not None:
        return found
    missing = f"no {what} found; install it (Debian: apt install {package})"
    if os.environ.get("CI", "") not in ("", "0", "false"):
        pytest.fail(missing)
    pytest.skip(missing)
