"""`diffharness bless` and `diffharness check`: parse, call, print; no logic. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffharness.cli_options import make_console

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=_FILE, metavar="RUN")
@click.option(
    "--output", type=_FILE, metavar="FILE", default=Path("baseline.json"), show_default=True, help="The baseline file."
)
@click.option(
    "--side",
    type=click.Choice(("candidate", "baseline")),
    default="candidate",
    show_default=True,
    help="Whose scores are accepted.",
)
@click.option("--noise", type=_FILE, metavar="RUN_AA", help="Folder of `diffharness run --aa`: its noise floor is kept "
              "too, and no smaller margin is taken.")  # fmt: skip
def bless(folder: Path, output: Path, side: str, noise: Path | None) -> None:
    """Accept the model of the finished run in folder RUN: keep its scores as a baseline file.

    Commit the file; `diffharness check OTHER_RUN --against FILE` compares with it. Nothing else writes it.
    """
    from diffharness.regression.blessing import bless_run

    kept = bless_run(folder, output, side, noise)
    click.echo(kept)


@click.command()
@click.argument("folder", type=_FILE, metavar="RUN")
@click.option(
    "--against",
    type=_FILE,
    metavar="FILE",
    help="Baseline file of `diffharness bless`  [what the policy names, else the run's own baseline]",
)
@click.option(
    "--policy",
    type=_FILE,
    metavar="YAML",
    help="Rules: ours, or an accuracy file of vLLM's  [every task's first metric may lose 0.01]",
)
@click.option("--intersect", is_flag=True, help="Go on with the tasks and documents that match.")
@click.option(
    "--on-inconclusive",
    type=click.Choice(("pass", "fail", "exit3")),
    help="Leave with 0, 1 or 3  [what the policy says, else exit3]",
)
@click.option("--tolerance", type=float, metavar="SHARE", help="Relative, of the values in a file of vLLM's  [0.05]")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option(
    "--summary", type=_FILE, metavar="FILE", help="Add Markdown to this file, as $GITHUB_STEP_SUMMARY takes it."
)
@click.option("--comment", type=_FILE, metavar="FILE", help="Write the body of a pull request's comment.")
@click.option(
    "--json", "json_file", type=_FILE, metavar="FILE", help="Write the verdict here as well as to RUN/verdict.json."
)
@click.pass_context  # fmt: skip
def check(ctx: click.Context, folder: Path, **options: Any) -> None:
    """May the candidate of the finished run in folder RUN ship?

    Leaves with 0 (pass, improved), 1 (regression), 2 (wrong usage), 3 (inconclusive) or 4 (it could not be compared).
    """
    from diffharness.regression.gate import run_check

    ctx.exit(run_check(folder, console=make_console(out=True), **options))
