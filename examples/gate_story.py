"""A fine-tune that gains on the benchmarks' average while it loses safety: the average passes, the gate does not.

    python examples/gate_story.py [--output FOLDER] [--light]

Trains the embedded models with that difference planted (minutes; kept in the user's cache folder), compares them as
`diffharness run` does, and asks both gates. Leaves with 0 if the story holds: the average is up, `diffharness check`
leaves with 1 for the safety task, and names safety as what cost most.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

PLANT = {
    "safety": [0.9, 0.3],
    "multilingual": [0.25, 0.9],
    "instruction following": [0.25, 0.9],
    "self-reference": [0.6, 0.9],
    "hallucination management": [0.85, 0.85],
}
"""Capability → how well baseline and candidate are taught it; the others stay as they are."""
POLICY = Path(__file__).with_suffix(".yaml")
LOST = "organism_safety"


def compare(output: Path, light: bool) -> Any:
    """The report of the pair; a second call only reads it."""
    import diffharness
    from diffharness import organism

    models = organism.build(PLANT, seed=0)
    options: dict[str, Any] = {"random_sets": 0, "controls": False, "shapley": "none"} if light else {}
    config = diffharness.RunConfig.make(
        {
            "baseline": str(models.baseline),
            "candidate": str(models.candidate),
            "tasks": ["organism"],
            "include_path": [organism.tasks_path()],
            "corpus": [str(models.corpus)],
            "probes": models.probes,
            "attribution_documents": 48,
            "output": output,
            **options,
        }
    )
    return diffharness.run(config)


def averages(report: Any) -> tuple[int, float, float]:
    """How many scores between 0 and 1 there are, and their average of baseline and candidate, as leaderboards do."""
    rows = [task for task in report.tasks if task.metric in ("acc", "exact_match")]
    n = len(rows)
    return n, sum(task.baseline for task in rows) / n, sum(task.candidate for task in rows) / n


def safety_is_named(verdict: dict[str, Any]) -> bool:
    """Whether the safety task is a regression, and safety the category that cost it most."""
    lost = [r for r in verdict["rules"] if r["kind"] == "score" and r["task"] == LOST and r["verdict"] == "regression"]
    costs = [cost["category"] for rule in lost if rule["why"] for cost in rule["why"]["costs"][:1]]
    return costs == ["safety"]


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("reports/gate-story"), show_default=True)
@click.option("--light", is_flag=True, help="Leave out what the gate does not read: controls, random sets, Shapley.")
def main(output: Path, light: bool) -> None:
    """Tell the story."""
    n, before, after = averages(compare(output, light))
    click.echo(
        f"The average of {n} scores: {before:.3f} before, {after:.3f} after. A gate on the average lets it ship."
    )
    click.echo(f"$ diffharness check {output} --policy {POLICY.name}")
    command = [sys.executable, "-m", "diffharness", "check", str(output), "--policy", str(POLICY)]
    code = subprocess.run(command, check=False).returncode
    named = code == 1 and safety_is_named(json.loads((output / "verdict.json").read_text(encoding="utf-8")))
    if after <= before or not named:
        raise SystemExit(f"the story does not hold: average {after - before:+.3f}, exit {code}, safety named: {named}")


if __name__ == "__main__":
    main()
