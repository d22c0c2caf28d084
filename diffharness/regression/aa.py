"""The A/A run: one model evaluated twice, in batches of another size and with other seeds; scores only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.regression.noise import Noise, noise_floors
from diffharness.regression.scores import NOISE_FILE, metric_columns
from diffharness.report.files import put, to_json

if TYPE_CHECKING:
    from rich.console import Console

    from diffharness.evaluation.scores import Evaluation
    from diffharness.pipeline import Run
    from diffharness.progress import Report as Progress

AGAIN = "again"
"""The folder of the second evaluation, in the run's."""
_SEEDS = {"random_seed": 1, "numpy_random_seed": 4321, "torch_random_seed": 4321}
"""lm-eval's own are 0, 1234 and 1234; that of the examples in prompts stays, or the questions would be others."""


def with_candidate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an A/A run: there is one model, so that a candidate need not be named.

    Raises:
        UsageError: evaluations are given that were recorded before.
    """
    if values.get("baseline_results") or values.get("candidate_results"):
        raise UsageError("--aa evaluates the baseline twice; name it with --baseline, and leave recorded results out")
    return {**values, "candidate": values.get("candidate") or values.get("baseline")}


def run_aa(config: RunConfig, console: Console | None = None) -> Noise:
    """Evaluate the baseline twice and write `noise.json`; a finished evaluation stands, as in any run.

    Raises:
        UsageError: something about the configuration can not work.
        RunError: an evaluation failed.
    """
    from diffharness.pipeline import Run

    one_model = config.model_copy(update={"candidate": config.baseline, "ancestor": None})
    first = Run(one_model, console)
    evaluations = [first.load_evaluation("baseline")]
    model = first.session.names["baseline"]
    del first  # one model in memory at a time
    other = one_model.model_copy(
        update={"batch_size": other_batch_size(config.batch_size), "output": config.output / AGAIN}
    )
    second = Run(other, console)
    from diffharness.made_from import evaluated_from

    stage = second.stage(
        "evaluate again", "evaluate the same model again", [evaluated_from(second, "baseline"), _SEEDS],
        partial(_evaluate, second), "evaluation/baseline",
    )  # fmt: skip
    evaluations.append(_load(stage.folder))
    found = Noise(
        model=model,
        runs=(
            f"batch size {config.batch_size}, lm-eval's seeds",
            f"batch size {other.batch_size}, seeds {', '.join(f'{k} {v}' for k, v in _SEEDS.items())}",
        ),
        floors=noise_floors(*(metric_columns(evaluation.tasks, evaluation.documents) for evaluation in evaluations)),
    )
    put(config.output / NOISE_FILE, to_json(found).encode())
    return found


def other_batch_size(batch_size: int | str) -> int:
    """Half of what was used, so that documents meet others in their batches; 2 for 1, 8 for lm-eval's own choice."""
    if isinstance(batch_size, str):
        return 8
    return max(batch_size // 2, 1) if batch_size > 1 else 2


def noise_lines(noise: Noise, file: Path) -> list[str]:
    """What an A/A run has to say: the floors above 0, the largest first."""
    noisy = sorted((f for f in noise.floors if f.floor > 0), key=lambda f: -f.floor)
    quiet = len(noise.floors) - len(noisy)
    lines = [
        f"{f.task} {f.metric}: {f.n_changed} documents changed, the score by {f.difference:+.4g}; margins from "
        f"{f.floor:.4g} on make sense"
        for f in noisy
    ]
    if quiet:
        lines.append(f"{quiet} of {len(noise.floors)} scores came out the same, document by document")
    return [*lines, f"wrote {file}: {noise.rule}"]


def _evaluate(run: Run, folder: Path, progress: Progress) -> None:
    from diffharness.evaluation import harness

    evaluation, results = harness.evaluate(
        run.session.model("baseline"),
        run.session.tasks,
        limit=run.config.limit,
        protocol={**run.session.protocol, **_SEEDS},
        model_args=run.session.model_args["baseline"],
        progress=progress,
    )
    evaluation.save(folder)
    harness.write_results(results, folder)


def _load(folder: Path) -> Evaluation:
    from diffharness.evaluation.scores import Evaluation

    return Evaluation.load(folder)
