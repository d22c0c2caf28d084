"""The models that a matrix compares with one baseline: a name for each, and options that mean nothing for many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffharness.artifacts import model_fingerprint, split_model_args
from diffharness.config import AUTO, RunConfig
from diffharness.errors import UsageError

SHARED = "shared"
"""Folder of what all candidates share."""
_TAKEN = {SHARED, "crosscoder", "activations", "evaluation", "annotations", "names"}
"""Names of folders that no candidate's may have."""
_LONGEST_NAME = 60
SINGLE = (
    "ancestor", "crosscoder", "code_norm", "baseline_results", "candidate_results", "replay_baseline",
    "replay_candidate",
)  # fmt: skip
"""Options of `run` that are of one pair, or that the shared crosscoder settles."""


@dataclass(frozen=True)
class Candidates:
    """The models that are compared with one baseline."""

    arguments: Mapping[str, str]
    """lm-eval model arguments by a name that is a folder's too."""

    @classmethod
    def named(cls, arguments: Sequence[str]) -> Candidates:
        """Give each a name of its own.

        Raises:
            UsageError: fewer than two, or the same twice.
        """
        if len(arguments) < 2:
            given = "one --candidate is" if arguments else "no --candidate is"
            raise UsageError(f"{given} given, and a matrix is of two or more; for one use `diffharness run`")
        seen: dict[str, str] = {}
        for args in arguments:
            same = model_fingerprint(split_model_args(args))
            if same in seen:
                again = args if seen[same] == args else f"{seen[same]} and {args}"
                raise UsageError(f"--candidate {again}: the same model twice; leave one of them out")
            seen[same] = args
        names: dict[str, str] = {}
        labels = [_label(args) for args in arguments]
        for args, label in zip(arguments, labels, strict=True):
            longer = labels.count(label) > 1 or label.casefold() in _TAKEN
            wanted = _label(args, with_parent=True) if longer else label
            taken = {name.casefold() for name in names} | _TAKEN
            free = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, len(taken) + 2))
            names[next(name for name in free if name.casefold() not in taken)] = args
        return cls(names)

    def side(self, name: str) -> str:
        """What a candidate is called among all models."""
        return f"candidate-{name}"

    @property
    def sides(self) -> dict[str, str]:
        """Model arguments by side."""
        return {self.side(name): args for name, args in self.arguments.items()}


def _label(args: str, *, with_parent: bool = False) -> str:
    """A candidate's name as one part of a path: its adapter's or its own, with its revision."""
    given = split_model_args(args)
    model = str(given.get("peft") or given.get("pretrained") or args)
    path = Path(model)
    last = path.resolve().name if path.exists() else model.rsplit("/", 1)[-1]
    parent = path.resolve().parent.name if path.exists() else model.rpartition("/")[0]
    parts = [parent if with_parent else "", last, str(given.get("revision", ""))]
    label = "-".join(part for part in parts if part)
    return re.sub(r"[^A-Za-z0-9._]+", "-", label)[:_LONGEST_NAME].strip("-.") or "model"


def check_options(config: RunConfig) -> None:
    """Refuse options that mean nothing for many candidates.

    Raises:
        UsageError: naming the option and the remedy.
    """
    for name in SINGLE:
        if getattr(config, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is of one pair of models, and a matrix trains one crosscoder over all; "
                "leave it out, or use `diffharness run`"
            )
    if config.own_templates:
        raise UsageError(
            "--own-templates is of one candidate, and a matrix asks all models in the baseline's template; leave it "
            "out, or use `diffharness run`"
        )
    if config.layer == AUTO:
        raise UsageError("--layer auto chooses for one pair, and a matrix has one layer for all; name a layer")
    if len(config.annotator) > 1:
        raise UsageError("--annotator: a matrix names its latents once, so give one annotator")
    if config.seeds > 1:
        raise UsageError("--seeds: a matrix uses one crosscoder over all models; leave it out")
