"""`diffharness compare`: parses, calls, prints; no logic. Heavy imports happen inside."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffharness.cli_options import make_console
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.report.compare.model import Comparison

FORMATS = ("terminal", "md", "html", "json", "csv")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN [RUN]...")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder to write comparison.md, .html, .json and .csv to  [only print]",
)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice((*FORMATS, "all")), metavar="FORMAT",
    help="What to make of it, once for each: terminal (print it), md, html, json, csv, or all; without --output one "
    "format is printed  [terminal, and with --output all]",
)  # fmt: skip
def compare(runs: tuple[Path, ...], output: Path | None, formats: tuple[str, ...]) -> None:
    """Put finished runs side by side: which fine-tune gained what, through which category.

    Each RUN is the folder of a finished run, or its report.json, with a baseline and a candidate of its own. The others
    are compared with the first. Tasks whose documents or prompts differ are left out and named; a difference is only
    claimed where both runs hold the contributions of single documents.
    """
    wanted = _wanted(formats, output)
    from diffharness.assembly.compare import comparison
    from diffharness.report.compare.runs import read_runs

    words = ["diffharness", "compare", *map(str, runs), *(["--output", str(output)] if output else [])]
    made = comparison(read_runs(runs), shlex.join(words), output)
    _give(made, wanted, output)


def _wanted(formats: tuple[str, ...], output: Path | None) -> list[str]:
    """The formats asked for, in their order.

    Raises:
        UsageError: several, and no folder to write them to.
    """
    asked = set(formats) or ({"terminal"} if output is None else {"all"})
    wanted = [name for name in FORMATS if name in asked or "all" in asked]
    if output is None and len(wanted) > 1:
        raise UsageError(f"--format {', '.join(wanted)} are several; add --output FOLDER to write them, or ask for one")
    return wanted


def _give(made: Comparison, wanted: list[str], output: Path | None) -> None:
    from diffharness.report.compare.terminal import print_comparison
    from diffharness.report.compare.writing import render, write

    files = [name for name in wanted if name != "terminal"]
    written = write(made, files, output) if output is not None else []
    if "terminal" in wanted:
        print_comparison(made, make_console(out=True))
    if output is None:
        for name in files:
            click.echo(render(made, name), nl=False)
    for path in written:
        click.echo(f"wrote {path}")
