"""`python -m diffharness.organism`: trains the three models of a plant into a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from diffharness.errors import DiffharnessError
from diffharness.organism.builder import build
from diffharness.organism.plant import Plant


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--plant", "plant_file", type=click.Path(path_type=Path), help="YAML file; left out: the default plant.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights and training draws.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new or empty.")
@click.option(
    "--null", is_flag=True, help="Train the candidate on with the baseline's own mixture: nothing is planted."
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(plant_file: Path | None, seed: int, out: Path, null: bool, debug: bool) -> None:
    """Train ancestor, baseline and candidate, three tiny Llamas with a known difference, into a folder.

    Leaves ancestor/, baseline/, candidate/, corpus.jsonl, probes.jsonl and the full plant.yaml in --out.
    """
    # Before torch is imported: threads that wait sleep instead of spinning, which stalls a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        plant = Plant() if plant_file is None else Plant.load(plant_file)
        with Progress(*columns, console=console, transient=True) as bar:
            bars = {}

            def show(model: str, done: int, total: int) -> None:
                if model not in bars:
                    bars[model] = bar.add_task(f"training the {model}", total=total)
                bar.update(bars[model], completed=done)

            organism = build(plant, seed=seed, out=out, null=null, progress=show)
    except DiffharnessError as error:
        if debug:
            raise
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    click.echo(organism.folder)


if __name__ == "__main__":
    main()
