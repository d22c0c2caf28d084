"""The commands: parses, calls, prints; no logic. Heavy imports happen inside, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from diffharness import __version__, defaults
from diffharness.cli_compare import compare
from diffharness.cli_crosscoder import crosscoder
from diffharness.cli_gate import bless, check
from diffharness.cli_layers import layers
from diffharness.cli_matrix import matrix
from diffharness.cli_options import make_console, quiet_libraries, run_config, run_options
from diffharness.cli_report import report, schema
from diffharness.errors import DiffharnessError, RunError, UsageError


class _Group(click.Group):
    """Shows a failure as one line and leaves with its exit code; `--debug` shows where it came from."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DiffharnessError as error:
            if ctx.params.get("debug"):
                import traceback

                traceback.print_exc()
            click.echo(f"diffharness: {_for_runners(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            where = error.ctx.command_path.removeprefix(ctx.command_path) if error.ctx is not None else ""
            click.echo(f"diffharness: {error.format_message()} See `diffharness{where} --help`.", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "diffharness: stopped; what was finished stays, and the same command goes on from there", err=True
            )
            ctx.exit(130)


def _for_runners(text: str) -> str:
    """On GitHub, with nothing in it that a runner would take for a command; names in an error come from outside."""
    if not os.environ.get("GITHUB_ACTIONS"):
        return text
    from diffharness.regression.annotations import inert

    return inert(text)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="diffharness")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool) -> None:
    """Why one language model scores differently from another.

    Evaluates two models on lm-eval tasks, compares their activations with a crosscoder, and splits every task's gap
    into contributions of named categories. Start with `diffharness demo`.
    """
    del debug


@main.command()
@run_options(with_models=True)
@click.option("--aa", is_flag=True, help="Evaluate the baseline twice instead, in batches of another size and with "
              "other seeds, and write how far the scores lie apart (noise.json, for `bless --noise`).")  # fmt: skip
def run(config: Path | None, aa: bool, **options: Any) -> None:
    """Compare two models and write the report.

    A second run with the same options only prints; a changed option reruns what depends on it.
    """
    if aa:
        _run_aa(config, options)
    else:
        _run(run_config(config, options))


@main.command()
@run_options(with_models=False)
def demo(**options: Any) -> None:
    """Compare the embedded models, whose difference is known: a first look, offline.

    Trains three tiny models on the first run (a minute or two) and keeps them in the user's cache folder.
    """
    from diffharness import organism
    from diffharness.config import RunConfig
    from diffharness.progress import StageProgress

    given = {name: value for name, value in options.items() if value is not None and value != ()}
    quiet_libraries()
    console = make_console()
    with StageProgress(console).stage("get the embedded models ready") as report:
        models = organism.build(progress=lambda _stage, done, total: report(done, total))
    config = RunConfig.make(
        {
            "output": defaults.DEMO_OUTPUT,
            "baseline": str(models.baseline),
            "candidate": str(models.candidate),
            "ancestor": str(models.ancestor),
            "tasks": ["organism"],
            "include_path": [organism.tasks_path()],
            "corpus": [models.corpus],
            "probes": models.probes,
            "attribution_documents": defaults.DEMO_ATTRIBUTION_DOCUMENTS,
            **given,
        }
    )
    _run(config, " ".join(["diffharness demo", *sys.argv[2:]]))


def _run_aa(config: Path | None, options: dict[str, Any]) -> None:
    quiet_libraries()
    from diffharness.config import read_yaml
    from diffharness.regression.aa import noise_lines, run_aa, with_candidate
    from diffharness.regression.noise import NOISE_FILE

    values = read_yaml(config) if config is not None else {}
    found = run_config(config, with_candidate({**values, **{k: v for k, v in options.items() if v not in (None, ())}}))
    noise = run_aa(found, make_console())
    for line in noise_lines(noise, found.output / NOISE_FILE):
        click.echo(line)


def _run(config: Any, command: str | None = None) -> None:
    quiet_libraries()
    from diffharness.pipeline import run
    from diffharness.report.terminal_summary import print_summary

    console = make_console()
    report = run(config, console=console, command=command)
    print_summary(report, make_console(out=True), folder=config.output)


@main.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("diffharness.yaml"))
def init(file: Path) -> None:
    """Write a commented YAML file of a run's options to FILE [diffharness.yaml]."""
    from diffharness.config_template import TEMPLATE

    if file.exists():
        raise UsageError(f"{file} exists; name another file")
    try:
        file.write_text(TEMPLATE, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} can not be written ({error.strerror}); name another file") from error
    click.echo(f"wrote {file}; edit it, then: diffharness run --config {file}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def activations(folder: Path) -> None:
    """Show what the store of activations in DIR holds, and verify it.

    DIR is a run's folder, its activations/ folder, or what `diffharness lm-eval` recorded. Leaves with 4 when a file
    is damaged.
    """
    quiet_libraries()
    from diffharness.activations.inspection import inspect
    from diffharness.report.store import print_store

    found = inspect(folder)
    print_store(found, make_console(out=True))
    if found.problems:
        raise RunError(f"{len(found.problems)} of {found.n_shards} shards are damaged; {found.remedy}")


@main.command(
    "lm-eval",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...]) -> None:
    """Run lm-eval's own command line with the model `diffharness` registered.

    With --model diffharness --model_args pretrained=MODEL,record_to=DIR,layer=N it leaves scores, ledger and
    activations in DIR, for `diffharness run --baseline-results DIR --candidate-results DIR`.
    """
    from diffharness.recording import record_command_line

    record_command_line(arguments)


main.add_command(compare)
main.add_command(layers)
main.add_command(matrix)
main.add_command(report)
main.add_command(schema)
main.add_command(crosscoder)
main.add_command(bless)
main.add_command(check)

if __name__ == "__main__":
    main()
