"""`diffharness layers`: parses, calls, prints; no logic. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffharness import defaults
from diffharness.cli_options import make_console, quiet_libraries, run_config, run_options


@click.command(
    help=f"""Show how much of each task's gap every layer carries, and which layer `--layer auto` picks.

    Takes the options of `run`, evaluates both models where --output does not hold that yet, and trains nothing; a
    `run` with the same --output goes on from there. A layer carries what the candidate loses when its layers above
    that one read the baseline's state; the rest of the gap is read above it. auto is {defaults.AUTO_RULE}."""
)
@run_options(with_models=True)
def layers(config: Path | None, **options: Any) -> None:
    """Print the depth profile."""
    made = run_config(config, options)
    quiet_libraries()
    from diffharness.assembly import depth
    from diffharness.pipeline import Run
    from diffharness.report.depth import print_depth

    run = Run(made, make_console())
    profiles, choice = depth.profiles(run), depth.layer_choice(run)
    print_depth(profiles, depth.missing(run), make_console(out=True), choice=(choice.layer, choice.why))
