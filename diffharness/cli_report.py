"""`diffharness report` and `diffharness schema`: parse, call, print; no logic. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffharness.cli_options import make_console
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from diffharness.report.schema import Report

FORMATS = ("terminal", "html", "md", "json", "csv", "parquet", "model-card", "eee")
_DEFAULT = ("terminal", "html", "md")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice((*FORMATS, "all")), metavar="FORMAT",
    help="What to make of it, once for each: terminal (print it), html, md (Markdown with figures, at most 60 KB), "
    "json, csv and parquet (tables of tasks, contributions and latents), model-card (for the Hugging Face Hub), eee "
    "(Every Eval Ever), or all  [terminal, html, md]",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write to  [RUN]")
@click.option("--full", is_flag=True, help="Print all of it, and not only a screen.")
def report(folder: Path, formats: tuple[str, ...], output: Path | None, full: bool) -> None:
    """Show the report of a run again, or write it in other formats.

    RUN is the folder of a finished run, or its report.json, also of an older version. Nothing is computed anew.
    """
    wanted = frozenset(FORMATS if "all" in formats else formats or _DEFAULT)
    if full and "terminal" not in wanted:
        raise UsageError("--full is about what is printed; add --format terminal, or leave --full out")
    found = load_report(folder)
    run = folder if folder.is_dir() else folder.parent
    target = output or run
    written = _write(found, run, target, wanted - {"terminal"})
    if "terminal" in wanted:
        from diffharness.report.terminal import print_report
        from diffharness.report.terminal_summary import print_summary

        show = print_report if full else print_summary
        show(found, make_console(out=True), folder=target if (target / "report.html").is_file() else None)
    for line in _named(written, target) if formats else ():
        click.echo(line)


def load_report(folder: Path) -> Report:
    """The report of a run.

    Raises:
        UsageError: there is none, it is damaged, or a newer version wrote it.
    """
    from diffharness.report.reading import read_report

    return read_report(folder)


def _write(found: Report, run: Path, target: Path, formats: frozenset[str]) -> list[Path]:
    """Write the files; the run's own `report.json` is left as it is."""
    if target.resolve() == run.resolve() and (run / "report.json").is_file():
        formats -= {"json"}
    if not formats:
        return []
    from diffharness.report.writer import write_formats

    try:
        return write_formats(found, target, formats, run)
    except OSError as error:
        raise UsageError(f"{target} can not be written ({error.strerror}); name another folder by --output") from error


def _named(written: list[Path], target: Path) -> list[str]:
    """A line a file, but for the figures, which are counted."""
    figures = [path for path in written if path.parent == target / "figures"]
    lines = [f"wrote {path}" for path in written if path not in figures]
    return [*lines, f"wrote {len(figures)} figures into {target / 'figures'}"] if figures else lines


@click.command()
@click.option("--gate", is_flag=True, help="Of verdict.json, which `diffharness check` writes.")
def schema(gate: bool) -> None:
    """Print the JSON Schema of report.json."""
    import json

    if gate:
        from diffharness.regression.outcome import Verdict as Described
    else:
        from diffharness.report.schema import Report as Described
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Described.model_json_schema()}
    click.echo(json.dumps(body, indent=2, ensure_ascii=False))
