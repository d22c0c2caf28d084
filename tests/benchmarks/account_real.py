"""Completeness of the account on a real pair of small models, where the material for local tests is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffharness.config import RunConfig
from diffharness.pipeline import run
from tests import planted
from tests.benchmarks.account_truth import completeness_figures
from tests.conftest import REAL

BASELINE, CANDIDATE = "stories260K", "stories260K-grimm"
LIMIT = 8
"""Documents a task."""


def real_figures(seed: int, work: Path, limit: int = LIMIT) -> dict[str, Any]:
    """All tasks of the material, a few documents of each; a note where there is no such material."""
    if not REAL.is_dir():
        return {"real pair": "skipped: the material is not on this machine"}
    config = RunConfig(
        baseline=str(REAL / "models" / BASELINE),
        candidate=str(REAL / "models" / CANDIDATE),
        tasks=tuple(sorted(file.stem for file in (REAL / "tasks").glob("real_*_*.yaml"))),
        include_path=(REAL / "tasks",),
        corpus=tuple(str(file) for file in sorted((REAL / "corpus").glob("*.jsonl"))),
        limit=limit,
        controls=False,
        random_sets=0,
        shapley="none",
        seed=seed,
        output=work / f"real-{seed}",
    )
    report = run(config)
    return {
        "real pair": f"{BASELINE} and {CANDIDATE}, {limit} documents a task",
        **completeness_figures([report], "real pair"),
        "real pair: tasks": len(list(planted.accounted(report))),
        "real pair: tasks whose contributions miss the gap": len(planted.incomplete_tasks(report)),
    }
