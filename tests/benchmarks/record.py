"""How a benchmark's result is kept: what was run, on what, what came out, and which bounds hold."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("diffharness", "lm-eval", "nnsight", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class Bound:
    """A figure and what is asked of it, such as `>= 0.95`."""

    name: str
    value: float
    bound: str

    @property
    def holds(self) -> bool:
        """Whether the figure keeps to it."""
        sign, limit = self.bound.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def write_record(file: Path, figures: dict[str, Any], bounds: list[Bound], *, seeds: list[int]) -> None:
    """Write the benchmark's JSON; a bound that is missed is written as missed."""
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    module = Path(sys.argv[0])
    name = f"tests.benchmarks.{module.stem}" if module.suffix == ".py" else module.name
    body = {
        "command": shlex.join(["python", "-m", name, *sys.argv[1:]]),
        "revision": revision.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
        "seeds": seeds,
        "figures": figures,
        "bounds": [{"name": b.name, "value": b.value, "bound": b.bound, "holds": b.holds} for b in bounds],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
