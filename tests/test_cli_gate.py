"""`bless` and `check` as commands: line, file and exit code agree, and nothing heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffharness.cli import main
from tests.regression.made_up import MadeUpTask, lost, made_up_run, right

BEFORE = right(400, 300)
SAME = MadeUpTask("arc", BEFORE, BEFORE)


@pytest.mark.parametrize(
    ("after", "verdict", "code"),
    [
        (BEFORE, "pass", 0),
        ([1.0] * 400, "improved", 0),
        (lost(BEFORE, 80), "regression", 1),
        (lost(BEFORE, 6), "likely regression", 1),
    ],
)
def test_line_file_and_exit_code_agree(tmp_path: Path, after: list[float], verdict: str, code: int) -> None:
    """Whatever the verdict."""
    run = made_up_run(tmp_path / "run", (MadeUpTask("arc", BEFORE, after),))
    runner = CliRunner()
    assert (
        runner.invoke(main, ["bless", str(run), "--side", "baseline", "--output", str(tmp_path / "b.json")]).exit_code
        == 0
    )
    found = runner.invoke(
        main, ["check", str(run), "--against", str(tmp_path / "b.json"), "--json", str(tmp_path / "v.json")]
    )
    kept = json.loads((run / "verdict.json").read_text())
    last = found.stdout.strip().splitlines()[-1]
    assert last.startswith(f"diffharness check: {kept['verdict']} (exit {kept['exit_code']})")
    assert (kept["verdict"], kept["exit_code"], found.exit_code) == (verdict, code, code)
    assert json.loads((tmp_path / "v.json").read_text()) == kept


def test_a_check_that_fails_leaves_no_verdict_of_an_earlier_one(tmp_path: Path) -> None:
    """Exit 2, one line, and no file that says pass."""
    run = made_up_run(tmp_path / "run", (SAME,))
    assert CliRunner().invoke(main, ["check", str(run)]).exit_code == 0
    (tmp_path / "b.json").write_text("")
    found = CliRunner().invoke(main, ["check", str(run), "--against", str(tmp_path / "b.json")])
    assert found.exit_code == 2
    assert "is empty" in found.stderr
    assert not (run / "verdict.json").exists()


def test_a_partial_run_leaves_with_4(tmp_path: Path) -> None:
    """With what to do."""
    run = made_up_run(tmp_path / "run", (SAME,))
    (run / "report.json").unlink()
    found = CliRunner().invoke(main, ["check", str(run)])
    assert found.exit_code == 4
    assert "was not finished" in found.stderr


def test_a_check_imports_neither_torch_nor_lm_eval(tmp_path: Path) -> None:
    """Nor transformers, the tables' library, or the slow half of scipy."""
    run = made_up_run(tmp_path / "run", (SAME, MadeUpTask("safe", BEFORE, lost(BEFORE, 80))))
    code = (
        "import sys\nfrom diffharness.cli import main\n"
        f"code = 0\ntry:\n    main(['check', {str(run)!r}])\nexcept SystemExit as left:\n    code = left.code\n"
        "heavy = [m for m in ('torch', 'transformers', 'lm_eval', 'pyarrow', 'scipy.stats', 'datasets', 'altair')]\n"
        "print('HEAVY', [m for m in heavy if m in sys.modules], code)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "HEAVY [] 1"


def test_names_in_an_error_are_no_command_to_a_runner(tmp_path: Path) -> None:
    """GitHub reads commands from standard error too."""
    found = CliRunner(env={"GITHUB_ACTIONS": "true"}).invoke(main, ["check", str(tmp_path / "x\n::error::hello")])
    assert found.exit_code in (2, 4)
    assert "hello" in found.stderr
    assert "::error" not in found.stderr
