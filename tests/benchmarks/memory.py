"""Peak memory of one evaluation, alone in its process: `python -m tests.benchmarks.memory FOLDER [--plain]`.

The folder holds models and tasks (`workload.build`). Prints JSON: the largest resident set, and the largest part of it
that is not a file's (mapped weights and libraries are files').
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

SAMPLE_S = 0.01


class AnonymousPeak:
    """Watches this process's anonymous memory; 0 where the system does not tell."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.is_file() and not self._over.wait(SAMPLE_S):
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
            self.n_bytes = max(self.n_bytes, int(found[1]) * 1024 if found else 0)

    def stop(self) -> int:
        """The largest that was seen."""
        self._over.set()
        self._thread.join()
        return self.n_bytes


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--plain", is_flag=True, help="Plain lm-eval on both models, nothing recorded or replayed.")
def main(folder: Path, plain: bool) -> None:
    """Evaluate both models, replay them to disk, and print what it took."""
    from tests.benchmarks import workload

    names = (*workload.LIKELIHOOD, *workload.GENERATION)
    peak = AnonymousPeak()
    tasks = workload.load_tasks(folder)
    stored = None
    if plain:
        for side in workload.SIDES:
            workload.evaluate_plain(workload.plain_model(folder / side), tasks, names)
    else:
        models = tuple(workload.recording_model(folder / side) for side in workload.SIDES)
        evaluations = tuple(workload.evaluate_recorded(model, tasks, names) for model in models)
        with tempfile.TemporaryDirectory(dir=folder) as store:
            stored = asdict(workload.replay_to_disk(models, evaluations, Path(store), seed=0))
    body = {"resident_bytes": peak_resident_bytes(), "anonymous_bytes": peak.stop(), "stored": stored}
    click.echo(json.dumps(body))


def peak_resident_bytes() -> int:
    """The largest resident set since this program began; `ru_maxrss` is no less than the parent's when it forked."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found is not None:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _alone(folder: Path, *options: str) -> dict[str, Any]:
    """What `main` prints in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def memory_figures(n_documents: int, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    """Peak memory with some documents and with ten times as many, recorded and plain, and the store's size."""
    from tests.benchmarks.workload import Sizes, build

    peaks: dict[str, list[dict[str, Any]]] = {"recorded": [], "plain": []}
    for n in (n_documents, 10 * n_documents):
        each = n // 10
        sizes = Sizes(
            hidden_size=128,
            n_layers=3,
            n_words=2000,
            n_documents=3 * each,
            n_answers=2 * each,
            answer_tokens=16,
            prompt_words=(90, 90),  # all alike: of more documents the longest is longer, and so is the largest batch
        )
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), sizes, seed)
            for kind, options in (("recorded", ()), ("plain", ("--plain",))):
                say(f"memory: {n} documents, {kind}")
                peaks[kind].append(_alone(Path(folder), *options))
    figures: dict[str, float] = {"memory_documents": n_documents}
    for kind, (few, many) in peaks.items():
        suffix = "" if kind == "recorded" else "_plain"
        for part, name in (("resident", "memory"), ("anonymous", "memory_anonymous")):
            small, large = few[f"{part}_bytes"], many[f"{part}_bytes"]
            figures |= {
                f"{name}{suffix}_growth": large / small if small else 0.0,
                f"{name}{suffix}_mb": small / 1e6,
                f"{name}{suffix}_tenfold_mb": large / 1e6,
            }
    figures["memory_growth_over_plain"] = figures["memory_growth"] / figures["memory_plain_growth"]
    stored = peaks["recorded"][1]["stored"]
    numbers = stored["n_tokens"] * stored["n_token_bytes"]
    return figures | {
        "store_tokens": stored["n_tokens"],
        "store_shards": stored["n_shards"],
        "store_bytes_ratio": stored["n_shard_bytes"] / numbers,
        "store_bytes_with_index_ratio": (stored["n_shard_bytes"] + stored["n_index_bytes"]) / numbers,
    }


if __name__ == "__main__":
    main()
