"""Whether latents are named, sided and shifted rightly on organisms, and how fast and small the pass over a store is.

    python -m tests.benchmarks.latents --json FILE [--quick] [--seed N] [--plants DIR] [--work DIR]

Three parts: the names of the default organism's latents against the organism's own knowledge of its tokens
(`latents_names.py`); the category shift of plants in which one capability is absent from one side and full on the
other, by every measure (`latents_shift.py`); speed and memory of scaling (`latents_speed.py`). `--plants DIR` takes
every plant.yaml in DIR in place of the built-in ones of the second part; `--quick` takes two of these; `--work DIR`
keeps the runs, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import yaml

from tests.benchmarks.latents_names import name_figures
from tests.benchmarks.latents_shift import CASES, MEASURES, shift_figures
from tests.benchmarks.latents_speed import speed_figures
from tests.benchmarks.record import Bound, write_record


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="Two plants of the category shift, and fewer rounds of the speeds.")
@click.option("--seed", default=0)
@click.option("--plants", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", type=click.Path(path_type=Path))
def main(file: Path, quick: bool, seed: int, plants: Path | None, work: Path | None) -> None:
    """Measure, and write the record."""
    cases = CASES if plants is None else {p.stem: yaml.safe_load(p.read_text()) for p in sorted(plants.glob("*.yaml"))}
    if quick:
        cases = dict(list(cases.items())[:2])
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        figures = {
            **name_figures(seed, folder),
            **shift_figures(cases, seed, folder),
            **speed_figures(n_rounds=3 if quick else 9),
        }
    bounds = [
        Bound("capabilities with a latent that leans the right way",
              figures["capabilities with a latent that leans the right way"], ">= 1"),
        Bound("clear names that are right", figures["clear names that are right"], ">= 0.9"),
        Bound("named latents with the right category, labels shuffled",
              figures["named latents with the right category, labels shuffled"], "<= 0.3"),
        Bound("speed of the pass over encoding alone", figures["speed of the pass over encoding alone"], ">= 0.6"),
        Bound("latents a second over direct least squares", figures["latents a second over direct least squares"],
              ">= 50"),
        Bound("GB of accumulators for 70,000 latents", figures["GB of accumulators for 70,000 latents"], "<= 2"),
    ]  # fmt: skip
    for protocol in ("two crosscoders", "three-way"):
        bounds += [
            Bound(name, figures[name], bound)
            for name, bound in (
                (f"{protocol}: shift by mass on the right side", ">= 0.9"),
                (f"{protocol}: categories called with sides shuffled", "<= 0.075"),
            )
        ]
    write_record(file, {**figures, "measures": list(MEASURES)}, bounds, seeds=[seed])


if __name__ == "__main__":
    main()
