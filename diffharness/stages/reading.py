"""What stages read of one another: JSON parts of the report, and the crosscoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.pipeline import Run

Progress = Callable[[int, int], None]
MAIN = ("baseline", "candidate")


def read_latents(run: Run, sides: tuple[str, str]) -> tuple[schema.Latent, ...]:
    """The latents of a crosscoder, as the report shows them."""
    body = run.read_json(run.latents(sides), "latents.json")
    return tuple(schema.Latent.model_validate(row) for row in body["latents"])


def read_categories(run: Run) -> tuple[str, ...]:
    """What each latent of the main crosscoder is called, by its index."""
    rows = run.read_json(run.latents(MAIN), "latents.json")["latents"]
    return tuple(row["category"] for row in sorted(rows, key=lambda row: row["index"]))


def read_rows(run: Run) -> list[dict[str, Any]]:
    """The leaderboard's rows, without verdicts."""
    return run.read_json(run.comparison(), "comparison.json")["rows"]


def read_account(run: Run) -> dict[str, Any]:
    """The accounts of all tasks."""
    return run.read_json(run.account(), "account.json")


def load_crosscoder(run: Run, sides: tuple[str, ...]) -> Crosscoder:
    """The trained crosscoder over some sides."""
    from diffharness.crosscoder import checkpoint

    device = str(next(run.session.model("baseline").hf_model.parameters()).device)
    return checkpoint.load(run.crosscoder(sides).folder, device).requires_grad_(False)


def load_seeds(run: Run, sides: tuple[str, ...]) -> list[Crosscoder]:
    """Those trained with other seeds on the same."""
    from diffharness.crosscoder import checkpoint

    folder = run.crosscoder(sides).folder
    seeds = [run.config.seed + number for number in range(1, run.config.seeds)] if run.config.crosscoder is None else []
    return [checkpoint.load(folder / f"seed-{seed}", "cpu").requires_grad_(False) for seed in seeds]


def write_json(path: Path, body: Any) -> None:
    """Write JSON; NaN is an error."""
    path.write_text(json.dumps(body, ensure_ascii=False, allow_nan=False), encoding="utf-8")
