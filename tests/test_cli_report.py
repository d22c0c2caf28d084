"""`diffharness report` writes what it is asked for and nothing else; `schema` prints what files are held against."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from diffharness import cli
from diffharness.report.files import to_json
from diffharness.report.schema import SCHEMA_VERSION
from tests.report.example import example_report
from tests.report.test_older import report_1_3

REPORT = to_json(example_report(n_tasks=2, n_latents=4))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "report.json").write_text(REPORT, encoding="utf-8")
    return folder


def test_without_a_format_it_prints_and_writes_page_and_markdown(run: Path) -> None:
    result = call("report", run)
    assert result.exit_code == 0
    assert "2 tasks changed" in result.stdout
    assert "wrote" not in result.stdout
    found = files(run)
    assert {"report.html", "report.md", "figures/heatmap.svg", "figures/heatmap.png"} <= found
    assert not any(name.startswith(("tables", "every_eval_ever", "model-card")) for name in found)


@pytest.mark.parametrize(
    ("chosen", "made"),
    [
        ("csv", {"tables/tasks.csv", "tables/contributions.csv", "tables/latents.csv"}),
        ("parquet", {"tables/tasks.parquet", "tables/contributions.parquet", "tables/latents.parquet"}),
        ("model-card", {"model-card.md"}),
        ("json", {"report.json"}),
    ],
)
def test_a_format_writes_its_files_and_prints_their_names_alone(
    run: Path, tmp_path: Path, chosen: str, made: set[str]
) -> None:
    result = call("report", run, "--format", chosen, "--output", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path / "new" / "folder") == made
    assert {line.removeprefix(f"wrote {tmp_path}/new/folder/") for line in result.stdout.splitlines()} == made
    assert files(run) == {"report.json"}


def test_formats_are_given_several_times_and_all_is_all(run: Path, tmp_path: Path) -> None:
    assert call("report", run, "--format", "csv", "--format", "parquet", "--output", tmp_path / "two").exit_code == 0
    assert len(files(tmp_path / "two")) == 6
    assert pq.read_table(tmp_path / "two" / "tables" / "tasks.parquet").num_rows == 2
    result = call("report", run, "--format", "all", "--output", tmp_path / "all")
    assert "Can it be trusted" in result.stdout
    found = files(tmp_path / "all")
    assert {"report.html", "report.md", "report.json", "model-card.md", "tables/latents.csv"} <= found
    assert sum(name.startswith("every_eval_ever/data/diffharness/") for name in found) == len({"baseline", "candidate"})
    assert "figures into" in result.stdout


def test_the_runs_own_report_is_never_written_again(run: Path) -> None:
    before = os.stat(run / "report.json").st_mtime_ns, (run / "report.json").read_bytes()
    for arguments in (("--format", "json"), ("--format", "terminal"), ("--format", "csv", "--output", run)):
        assert call("report", run, *arguments).exit_code == 0
    assert (os.stat(run / "report.json").st_mtime_ns, (run / "report.json").read_bytes()) == before


def test_the_terminal_alone_writes_nothing_and_full_prints_more(run: Path) -> None:
    short, full = (call("report", run, "--format", "terminal", *more) for more in ((), ("--full",)))
    assert files(run) == {"report.json"}
    assert len(full.stdout.splitlines()) > len(short.stdout.splitlines())
    assert "report.html" not in short.stdout
    result = call("report", run, "--format", "csv", "--full")
    assert result.exit_code == 2
    assert result.stderr == (
        "diffharness: --full is about what is printed; add --format terminal, or leave --full out\n"
    )


def test_a_file_is_as_good_as_its_folder(run: Path) -> None:
    assert call("report", run / "report.json", "--format", "model-card").exit_code == 0
    assert (run / "model-card.md").is_file()


def test_a_report_of_an_older_version_is_written_in_every_format(run: Path, tmp_path: Path) -> None:
    (run / "report.json").write_text(json.dumps(report_1_3()), encoding="utf-8")
    result = call("report", run, "--format", "all", "--output", tmp_path / "all")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "all" / "report.json").read_text())["schema_version"] == "1.3"


@pytest.mark.parametrize("version", ["1.99", "2.0", "10.1"])
def test_a_report_of_a_newer_version_is_refused_with_what_to_do(run: Path, version: str) -> None:
    (run / "report.json").write_text(REPORT.replace(f'"{SCHEMA_VERSION}"', f'"{version}"'), encoding="utf-8")
    result = call("report", run)
    assert (result.exit_code, files(run)) == (2, {"report.json"})
    assert result.stderr == (
        f"diffharness: {run}/report.json was written by a newer diffharness: its schema version is {version}, and this "
        f"one reads up to {SCHEMA_VERSION}; update diffharness (`pip install --upgrade diffharness`)\n"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is no report that this version reads"),
        (b'{"schema_version": "1.3"}', "is no report that this version reads (run: Field required); run it again"),
        (b'{"schema_version": "\x1b[31m"}', "is not JSON"),
    ],
)
def test_a_damaged_report_is_one_line(run: Path, content: bytes, said: str) -> None:
    (run / "report.json").write_bytes(content)
    result = call("report", run)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_a_folder_without_a_report_and_one_that_can_not_be_written_are_named(run: Path, tmp_path: Path) -> None:
    assert "holds no report.json; give the --output folder" in call("report", tmp_path / "none").stderr
    (tmp_path / "file").touch()
    result = call("report", run, "--format", "csv", "--output", tmp_path / "file")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"diffharness: {tmp_path}/file can not be written (")
    assert result.stderr.endswith("; name another folder by --output\n")


def test_a_damaged_evaluation_leaves_no_half_of_the_files(run: Path, tmp_path: Path) -> None:
    home = run / "evaluation" / "candidate"
    home.mkdir(parents=True)
    (home / "evaluation.json").write_text("{")
    result = call("report", run, "--format", "all", "--output", tmp_path / "all")
    assert result.exit_code == 4
    assert "does not hold a recorded evaluation" in result.stderr
    assert not (tmp_path / "all").exists()


def test_both_schemas_are_schemas_and_the_reports_holds_the_report() -> None:
    report, gate = (json.loads(call("schema", *more).stdout) for more in ((), ("--gate",)))
    for schema in (report, gate):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.validate(json.loads(REPORT), report)
    assert {"verdict", "exit_code", "rules"} <= set(gate["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": "1.0"}, gate)
