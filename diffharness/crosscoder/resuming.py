"""The state of a training on disk, so that one that was killed goes on exactly where it was."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffharness.errors import RunError, UsageError

STATE_NAME = "training.safetensors"
SAVE_SECONDS = 15.0
"""Least time between two saves."""
SAVE_COST = 20
"""And at least so many times what a save takes."""


@dataclass(frozen=True)
class Saved:
    """What was read back."""

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


class TrainingState:
    """The file that a training's state is kept in.

    Args:
        folder: where; nothing is kept without one.
        identity: what the training is made from; a state of another one is refused.
        seconds: least time between two saves.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], seconds: float = SAVE_SECONDS) -> None:
        self._path = None if folder is None else folder / STATE_NAME
        self._identity = json.dumps(identity, sort_keys=True)
        self._seconds = seconds
        self._last = time.monotonic()
        self._took = 0.0

    def load(self) -> Saved | None:
        """What an earlier training left; none where it left nothing.

        Raises:
            UsageError: it was another training, or the file can not be read.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UsageError(
                f"{self._path}: no training state can be read ({error}); delete it to begin anew"
            ) from error
        if header["identity"] != self._identity:
            raise UsageError(
                f"{self._path} is the state of a training on other data or with other settings; delete it to begin anew"
            )
        return Saved(header["step"], tensors, header["numbers"])

    @property
    def is_due(self) -> bool:
        """Whether it is time to save again."""
        wait = max(self._seconds, SAVE_COST * self._took)
        return self._path is not None and time.monotonic() - self._last >= wait

    def save(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, under a temporary name first.

        Raises:
            RunError: the file can not be written.
        """
        if self._path is None:
            return
        began = time.monotonic()
        header = json.dumps({"identity": self._identity, "step": step, "numbers": dict(numbers)})
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, {"training": header}
            )
            temporary.replace(self._path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"the training's state can not be written to {self._path}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._took = self._last - began

    def remove(self) -> None:
        """The training is done: nothing is left, the folder neither where nothing else is in it."""
        if self._path is None:
            return
        for left in (self._path, *self._path.parent.glob(f".{STATE_NAME}.*.partial")):
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files are in it, or it never was
            self._path.parent.rmdir()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by name: weight's place and name of the value."""
    return {
        f"optimiser.{place}.{name}": value
        for place, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, place, name = key.split(".")
            state.setdefault(int(place), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
