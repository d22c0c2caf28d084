"""`diffharness compare`: what is printed and written, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffharness import cli
from diffharness.report.compare.model import Comparison
from tests.report.compared import planted_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of one candidate's name."""
    folder = tmp_path_factory.mktemp("runs")
    values = np.random.default_rng(0).normal(size=(40, 3)) + 1
    more = values + np.array([1.0, 0.0, 0.0])
    return planted_run(folder / "old", {"one": values}), planted_run(folder / "new", {"one": more})


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["compare", *map(str, arguments)])


def test_two_runs_are_printed_under_the_names_of_their_folders(runs):
    done = call(*runs)
    assert done.exit_code == 0, done.output
    assert "2 runs, 1 task in common: safety differs most, +1.000 [+1.000, +1.000] in new against old" in " ".join(
        done.output.split()
    )


def test_output_holds_every_format_and_names_what_was_written(runs, tmp_path):
    done = call(*runs, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"comparison.md", "comparison.html", "comparison.json", "comparison.csv"}
    for name in names:
        assert f"wrote {tmp_path / 'out' / name}" in done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "comparison.json").read_text())
    assert [run.name for run in found.runs] == ["old", "new"]
    only = call(*runs, "--output", tmp_path / "one", "--format", "csv")
    assert only.output.splitlines() == [f"wrote {tmp_path / 'one' / 'comparison.csv'}"]


def test_one_format_without_a_folder_is_printed(runs):
    assert json.loads(call(*runs, "--format", "json").output)["common"] == ["one"]
    assert call(*runs, "--format", "html").output.startswith("<!doctype html>")
    refused = call(*runs, "--format", "html", "--format", "md")
    assert refused.exit_code == 2
    assert "add --output FOLDER" in refused.output


def test_what_can_not_be_compared_is_refused_in_one_line(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    other = planted_run(tmp_path / "other", {"two": np.ones((10, 3))})
    newer = tmp_path / "newer"
    newer.mkdir()
    body = json.loads((runs[0] / "report.json").read_text())
    (newer / "report.json").write_text(json.dumps({**body, "schema_version": "9.0"}))
    for arguments, told in (
        ([runs[0]], "1 run given; compare needs the folders of two or more"),
        ([runs[0], runs[0] / "report.json"], "is given twice"),
        ([runs[0], runs[0] / ".." / "old"], "is given twice"),
        ([runs[0], tmp_path / "empty"], "holds no report.json"),
        ([runs[0], tmp_path / "absent"], "holds no report.json"),
        ([runs[0], newer], "written by a newer diffharness"),
        (
            [runs[0], other],
            "have no task that can be compared (one is left out: only old has it; two is left out: only",
        ),
        ([*runs, "--output", tmp_path / "file"], "can not be written"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert told in done.output
        assert done.output.count("\n") == 1, done.output
        assert isinstance(done.exception, SystemExit)
    assert call().exit_code == 2


def test_help_loads_nothing_heavy():
    line = (
        "import sys\nfrom click.testing import CliRunner\nfrom diffharness import cli\n"
        "done = CliRunner().invoke(cli.main, ['compare', '--help'])\nassert done.exit_code == 0\n"
        "print({'torch', 'pydantic', 'numpy', 'pyarrow', 'rich', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
