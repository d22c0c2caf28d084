"""Training records: what `train` tells as it goes, kept as JSON lines, in TensorBoard or in Weights & Biases.

A record is a flat mapping of names to numbers; `step` counts the optimiser steps done. Nothing is written anywhere
unless a log is made here and handed to `train`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from diffharness.errors import UsageError

Record = Mapping[str, float]


class Log(Protocol):
    """Takes records one after the other, until it is closed; also a context manager that closes itself."""

    def __call__(self, record: Record) -> None:
        """Keep one record."""
        ...

    def close(self) -> None:
        """Write what is still held back; a log that is closed twice stays closed."""
        ...


class _Closing:
    """A `with` block around a log closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close."""


class JsonLines(_Closing):
    """A JSON object a line, appended and flushed record by record; numbers that are not finite are null.

    The first record tells where training goes on: lines of an earlier training from that step on, and a line that a
    kill cut short, are dropped before it is written, so that a resumed training leaves one line a step.

    Raises:
        UsageError: the file can not be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("a+b")
        except OSError as error:
            raise UsageError(
                f"training log {self.path} can not be written ({error.strerror}); give a file in another folder"
            ) from error
        self._begun = False

    def __call__(self, record: Record) -> None:
        """Append one line."""
        if not self._begun:
            self._file.truncate(_end_before(self._file, record.get("step", 0)))
            self._begun = True
        numbers = {name: value if math.isfinite(value) else None for name, value in _numbers(record).items()}
        self._file.write(json.dumps(numbers, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard(_Closing):
    """Scalars for TensorBoard, in a folder; after a resume, earlier events of repeated steps are hidden.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self._make = _imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None

    def __call__(self, record: Record) -> None:
        """Add a scalar for every number but the step."""
        step = int(record.get("step", 0))
        if self._writer is None:
            self._writer = self._make(log_dir=self._folder, purge_step=step)
        for name, value in _finite(record).items():
            self._writer.add_scalar(name, value, global_step=step)

    def close(self) -> None:
        """Write what is held back."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases(_Closing):
    """A run of Weights & Biases, which sends records to the user's account (or where WANDB_MODE says).

    `config` is what is shown of the training's settings. With a `run_id`, a training that is called again goes on in
    the same run, and steps that it repeats are shown once.

    Raises:
        UsageError: wandb is not installed.
    """

    def __init__(self, project: str, run_name: str, config: Mapping[str, Any], *, run_id: str | None = None) -> None:
        wandb = _imported("wandb", "wandb")
        resume = {} if run_id is None else {"id": run_id, "resume": "allow"}
        self._run: Any = wandb.init(project=project, name=run_name, config=dict(config), **resume)

    def __call__(self, record: Record) -> None:
        """Log every number but the step, at the step."""
        self._run.log(_finite(record), step=int(record.get("step", 0)))

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class _Several(_Closing):
    def __init__(self, logs: tuple[Log, ...]) -> None:
        self._logs = logs

    def __call__(self, record: Record) -> None:
        for log in self._logs:
            log(record)

    def close(self) -> None:
        with ExitStack() as stack:  # one that fails does not keep the others open
            for log in self._logs:
                stack.callback(log.close)


def several(*logs: Log) -> _Several:
    """One log that hands every record to all of these, and closes all of them."""
    return _Several(logs)


def describe(record: Record) -> str:
    """The record in a few words, for the end of a progress bar: `explained 0.812 · L0 32.0 · dead 1.2 % · …`."""
    finite = _finite(record)
    words = {
        "unexplained": lambda v: f"explained {1 - v:.3f}",
        "heldout_explained_variance": lambda v: f"held-out {v:.3f}",
        "l0": lambda v: f"L0 {v:.1f}",
        "dead_share": lambda v: f"dead {100 * v:.1f} %",
        "tokens_per_second": lambda v: f"{v:,.0f} tokens/s",
    }
    return " · ".join(word(finite[name]) for name, word in words.items() if name in finite)


def _numbers(record: Record) -> dict[str, float]:
    """Plain numbers, where tensors or NumPy's were given."""
    return {name: value if isinstance(value, int) else float(value) for name, value in record.items()}


def _finite(record: Record) -> dict[str, float]:
    """All but the step, and only what can be drawn."""
    return {name: value for name, value in _numbers(record).items() if name != "step" and math.isfinite(value)}


def _end_before(file: BinaryIO, step: float) -> int:
    """Where the last whole line before a step ends."""
    file.seek(0)
    end = 0
    for line in file:
        found = _step_of(line)
        if found is None or found >= step:
            break
        end += len(line)
    return end


def _step_of(line: bytes) -> float | None:
    """The step of a line; none where it was cut short or is of something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        read = json.loads(line)
    except ValueError:
        return None
    return read.get("step") if isinstance(read, dict) else None


def _imported(module: str, package: str) -> Any:
    """An optional package's module."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"logging to {package} needs the package {package}, which is not installed: pip install {package}"
        ) from error
