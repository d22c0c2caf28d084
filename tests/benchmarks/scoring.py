"""What recording costs: plain lm-eval and ours in turns on the same tasks, then the replay to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lm_eval.models.huggingface import HFLM

from diffharness.evaluation.harness import LoadedTasks
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation
from tests.benchmarks import workload
from tests.benchmarks.timing import Spent, ratio_figures, timed
from tests.benchmarks.workload import GENERATION, LIKELIHOOD, SIDES, Sizes, Stored, replay_to_disk

PARTS = {"loglikelihood": LIKELIHOOD, "generation": GENERATION}


@dataclass
class _Times:
    """Of one part, in the order of the rounds: two evaluations of each kind a round, and one replay."""

    plain: list[Spent] = field(default_factory=list)
    ours: list[Spent] = field(default_factory=list)
    replay: list[Spent] = field(default_factory=list)

    def both(self, kind: str) -> list[Spent]:
        """A round's two evaluations together."""
        times: list[Spent] = getattr(self, kind)
        return [a + b for a, b in zip(times[::2], times[1::2], strict=True)]


def scoring_figures(sizes: Sizes, n_rounds: int, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    """Ratios of evaluating and of recording.

    A round evaluates the baseline and the candidate with plain lm-eval and with our model, in the order A B B A (and
    B A A B in the next round), then replays both, once for each part; so there are two pairs a round.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workload.build(folder, sizes, seed)
        tasks = workload.load_tasks(folder)
        ours = tuple(workload.recording_model(folder / side) for side in SIDES)
        plain = tuple(workload.plain_around(model) for model in ours)
        # A run evaluates before it replays; nnsight stays in a model that it once traced, so others are replayed here.
        replayed = tuple(workload.recording_model(folder / side) for side in SIDES)
        times = {part: _Times() for part in PARTS}
        stored: dict[str, Stored] = {}
        for number in range(-1, n_rounds):  # the first only warms up
            for part, names in PARTS.items():
                found = _Times() if number < 0 else times[part]
                evaluations = tuple(
                    _in_turns(plain[i], ours[i], tasks, names, found, ours_first=(number + i) % 2 == 1)
                    for i in range(len(SIDES))
                )
                with tempfile.TemporaryDirectory(dir=folder) as store:
                    stored[part], spent = timed(partial(replay_to_disk, replayed, evaluations, Path(store), seed))
                found.replay.append(spent)
            say(f"scoring: round {number + 1} of {n_rounds}")
    return _figures(times, stored)


def _in_turns(
    plain: HFLM, ours: RecordingModel, tasks: LoadedTasks, names: tuple[str, ...], times: _Times, *, ours_first: bool
) -> Evaluation:
    """One pair: the same model evaluated by plain lm-eval and by ours."""
    ways = {
        "plain": partial(workload.evaluate_plain, plain, tasks, names),
        "ours": partial(workload.evaluate_recorded, ours, tasks, names),
    }
    results = {}
    for way in ("ours", "plain") if ours_first else ("plain", "ours"):
        results[way], spent = timed(ways[way])
        getattr(times, way).append(spent)
    return results["ours"]


def _figures(times: dict[str, _Times], stored: dict[str, Stored]) -> dict[str, float]:
    likelihood, generation = times.values()
    all_ours = [a + b for a, b in zip(likelihood.ours, generation.ours, strict=True)]
    all_plain = [a + b for a, b in zip(likelihood.plain, generation.plain, strict=True)]
    figures = {"score_pairs": len(all_ours), **ratio_figures("score_ratio", all_ours, all_plain)}
    for part, found in times.items():
        figures |= ratio_figures(f"score_{part}_ratio", found.ours, found.plain)
    for part, found in times.items():
        over = [a + b for a, b in zip(found.both("ours"), found.replay, strict=True)]
        figures |= ratio_figures(f"record_{part}_ratio", over, found.both("plain"))
        kept = stored[part]
        figures |= {
            f"{part}_plain_s": sum(s.wall_s for s in found.plain) / len(found.plain),
            f"{part}_readings_of_both_models": kept.n_readings,
            f"{part}_distinct_sequences": kept.n_sequences,
            f"{part}_sequences_saved": kept.n_readings - kept.n_sequences,
            f"{part}_stored_tokens": kept.n_tokens,
        }
    return figures
