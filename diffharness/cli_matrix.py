"""`diffharness matrix`: parses, calls, prints; no logic. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffharness.cli_options import MODEL, make_console, quiet_libraries, run_config, run_options

NOT_FOR_MANY = {
    "ancestor", "baseline_results", "candidate_results", "replay_baseline", "replay_candidate", "crosscoder",
    "code_norm", "seeds",
}  # fmt: skip


@click.command()
@run_options(with_models=True)
def matrix(config: Path | None, **options: Any) -> None:
    """Compare several fine-tunes with one baseline through one shared crosscoder.

    Every candidate gets a report of its own in a folder of its name; above them stands a matrix of candidates by tasks,
    and of categories by candidates. A second run with the same options only prints; a candidate more is evaluated by
    itself, and the shared crosscoder is trained anew.
    """
    quiet_libraries()
    from diffharness.candidates import Candidates
    from diffharness.matrix import run
    from diffharness.report.matrix import print_matrix

    given = _candidates(config, options.pop("candidate"))
    candidates = Candidates.named(given)
    made = run_config(config, {**options, "candidate": given[0]})
    found = run(made, candidates, console=make_console())
    print_matrix(found, make_console(out=True), folder=made.output)


def _candidates(config: Path | None, given: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the command line, else the file's list."""
    from diffharness.config import read_yaml

    listed = read_yaml(config).get("candidate", ()) if config is not None and not given else given
    return tuple(map(str, listed)) if isinstance(listed, list | tuple) else (str(listed),)


def _for_many(command: click.Command) -> None:
    """Leave out what is of one pair, and let --candidate be given several times."""
    many = click.Option(
        ["--candidate"], metavar="MODEL", multiple=True, help=f"Model compared: {MODEL}; once for each candidate."
    )
    command.params = [
        many if option.name == "candidate" else option for option in command.params if option.name not in NOT_FOR_MANY
    ]


_for_many(matrix)
