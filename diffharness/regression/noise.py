"""How far two evaluations of one model lie apart: the floor below which no margin makes sense."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from diffharness.errors import UsageError
from diffharness.regression.baseline import NoiseFloor
from diffharness.regression.columns import Column
from diffharness.regression.scores import NOISE_FILE
from diffharness.report.schema.base import Model

REPEATABILITY = 2.8
"""1.96 · √2: two evaluations differ by more than so many standard deviations of one in 5 of 100 cases (ISO 5725-6)."""
RULE = (
    "repeatability limit of ISO 5725-6: 2.8 standard deviations of one evaluation's score, from how the scores of "
    "documents differ between two evaluations of one model (where a score is no mean of documents: from the two "
    "scores), and no less than the difference that was seen"
)


class Noise(Model):
    """What an A/A run found."""

    schema_version: str = "1.0"
    model: str
    runs: tuple[str, ...]
    """How each evaluation was made, in words."""
    rule: str = RULE
    floors: tuple[NoiseFloor, ...]

    @classmethod
    def load(cls, path: Path) -> Noise:
        """Read `noise.json`, or the folder of an A/A run.

        Raises:
            UsageError: there is none, or it is another file.
        """
        file = path / NOISE_FILE if path.is_dir() else path
        again = "make one with `diffharness run --aa --output DIR`"
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"--noise {path}: {file.name} can not be read ({error.strerror}); {again}") from error
        except (ValueError, ValidationError) as error:
            raise UsageError(f"--noise {path} is no file of an A/A run; {again}") from error


Scores = Mapping[str, tuple[Mapping[str, Column], Mapping[str, str]]]
"""By task, columns by `metric,filter`, and why other metrics have none."""


def noise_floors(first: Scores, second: Scores) -> tuple[NoiseFloor, ...]:
    """The floor of every metric of every task.

    Args:
        first: one evaluation.
        second: another of the same model, on the same documents in the same order.
    """
    found = []
    for name, (columns, _) in first.items():
        for metric, one in columns.items():
            other = second[name][0].get(metric)
            if other is None or other.kind != one.kind:  # a score that was a number once only has no floor
                continue
            difference = other.score - one.score
            deviation, n_changed = _deviation(one, other)
            floor = max(REPEATABILITY * deviation, abs(difference))
            found.append(NoiseFloor(task=name, metric=metric, difference=difference, n_changed=n_changed, floor=floor))
    return tuple(found)


def _deviation(one: Column, other: Column) -> tuple[float, int]:
    """The standard deviation of a single evaluation's score, and how many documents changed.

    Two draws of the same model have no true difference, so that each document's variance is half the square of its
    change: √(Σ d² / 2) / N for a mean, |D| / √2 from the two scores alone.
    """
    if one.kind == "texts":
        n_changed = sum(a != b for a, b in zip(one.pairs, other.pairs, strict=True))
        return abs(other.score - one.score) / math.sqrt(2), n_changed
    changed = int((one.values_NC != other.values_NC).any(axis=1).sum())
    if one.kind != "mean":
        return abs(other.score - one.score) / math.sqrt(2), changed
    squares = float(((other.values_NC - one.values_NC) ** 2).sum())
    return float(np.sqrt(squares / 2)) / one.n, changed
