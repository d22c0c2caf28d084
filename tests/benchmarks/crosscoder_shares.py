"""Where a training step's time goes, function by function, by the deterministic profiler around some steps."""

from __future__ import annotations

import cProfile
import pstats
from collections import defaultdict
from pathlib import Path

from diffharness.crosscoder import TrainingSettings
from tests.benchmarks.crosscoder_rounds import Data, train_in_turns

WARM_STEPS = 8
SMALLEST = 0.005
"""Shares below are summed up as `rest`."""
NAMED = {"clip_grad_norm_": "clip", "get_total_norm": "clip", "_foreach_mul_": "clip", "adam": "Adam"}
"""torch's own functions that are parts of a step."""

Function = tuple[str, int, str]


def step_shares(data: Data, settings: TrainingSettings, n_steps: int) -> dict[str, float]:
    """Share of the step's time by `module.function · what it calls`, largest first; products are what `mm`,
    `addmm` and the like stand for.

    A function of `crosscoder/` has what it spends itself and in what it calls of other libraries; operators
    such as `@` are counted as its own.
    """
    profile = cProfile.Profile()

    def progress(done: int, total: int) -> None:
        if done == WARM_STEPS:
            profile.enable()
        elif done == total:
            profile.disable()

    train_in_turns(data, replace_steps(settings, WARM_STEPS + n_steps), progress)
    profile.disable()
    return _shares(pstats.Stats(profile))


def replace_steps(settings: TrainingSettings, n_steps: int) -> TrainingSettings:
    """The same settings with another number of steps."""
    return settings.model_copy(update={"n_steps": n_steps})


def _shares(stats: pstats.Stats) -> dict[str, float]:
    entries: dict[Function, tuple] = stats.stats
    seconds: dict[str, float] = defaultdict(float)
    for function, (_, _, own, _, callers) in entries.items():
        if _is_waiting(function):
            continue
        name = _name(function)
        if name is not None or not callers:
            seconds[name or "loop"] += own
            continue
        for caller, (_, _, part, _) in callers.items():
            owner = _owner(caller, entries)
            what = _short(function) if owner == _name(caller) else ""
            seconds[f"{owner} · {what}" if what else owner] += part
    total = sum(seconds.values())
    shares = {name: value / total for name, value in seconds.items() if value / total >= SMALLEST}
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return {**ordered, "rest": 1 - sum(ordered.values())}


def _owner(function: Function, entries: dict[Function, tuple], depth: int = 0) -> str:
    """The named function that a call belongs to: the nearest one above, along the dearest callers."""
    name = _name(function)
    if name is not None:
        return name
    callers = entries.get(function, (0, 0, 0, 0, {}))[4]
    if not callers or depth > 30:
        return "loop"
    dearest = max(callers, key=lambda caller: callers[caller][3])
    return _owner(dearest, entries, depth + 1)


def _name(function: Function) -> str | None:
    """What a function is called here; none for other libraries'."""
    file, _, name = function
    path = Path(file)
    if path.parent.name == "crosscoder" and path.parent.parent.name == "diffharness":
        return f"{path.stem}.{name}"
    return NAMED.get(name) if "torch" in file else None


def _short(function: Function) -> str:
    """`addmm` for "<built-in method torch.addmm>"."""
    words = function[2].strip("<>").split("'")
    return (words[1] if len(words) > 1 else words[0].split()[-1]).split(".")[-1]


def _is_waiting(function: Function) -> bool:
    return "acquire" in function[2]
