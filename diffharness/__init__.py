"""Why one language model scores differently from another.

`diffharness.Report.load(folder)` opens a finished run's report: pandas tables of it, and `.data`, all that it holds.
`diffharness.run(RunConfig(...))` returns these data, `diffharness.crosscoder.load(path_or_repo)` a crosscoder; the
command line is `diffharness`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffharness import crosscoder
    from diffharness.config import RunConfig
    from diffharness.pipeline import run
    from diffharness.report.frames import Report

__version__ = "0.1.0"
__all__ = ["Report", "RunConfig", "__version__", "crosscoder", "run"]

_HOMES = {
    "Report": "diffharness.report.frames",
    "RunConfig": "diffharness.config",
    "run": "diffharness.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `diffharness --help` does not wait for torch."""
    if name == "crosscoder":
        return importlib.import_module("diffharness.crosscoder")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'diffharness' has no attribute {name!r}")
