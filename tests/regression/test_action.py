"""The action and the examples for CI, their scripts run under bash with commands that record what they are asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diffharness.regression.printed import print_verdict
from diffharness.regression.summary import MARKER
from diffharness.regression.writing import write_outputs
from tests.needed import program
from tests.regression import verdicts
from tests.regression.made_up import MadeUpTask, lost, made_up_run, right
from tests.regression.runner import (
    FAKE_GH,
    FAKE_PYTHON,
    ROOT,
    ActionRun,
    fake_github,
    put_command,
    read_yaml,
    run_action,
    run_bash,
)

CHECK = """#!/bin/bash
printf '%s\\0' "$@" > "$FAKE_CHECKS"
for argument in "$@"; do
  case "$argument" in
    --junit=*) cp "$FAKE_VERDICT/junit.xml" "${argument#*=}" ;;
    --comment=*) comment="${argument#*=}" ;;
    --summary=*) summary="${argument#*=}" ;;
  esac
done
if [ "${@: -1}" = missing ]; then
  echo "diffharness: missing holds no report.json" >&2
  exit 2
fi
cp "$FAKE_VERDICT/comment.md" "$comment" 2> /dev/null
cat "$FAKE_VERDICT/summary.md" >> "$summary"
cp "$FAKE_VERDICT/verdict.json" "${@: -1}"
cat "$FAKE_VERDICT/said.txt"
exit "$(cat "$FAKE_VERDICT/code.txt")"
"""
"""`diffharness check` as far as its files and its last line go: what the real views made of a verdict."""

VERDICTS = {
    "regression": verdicts.every_outcome(),
    "hostile": verdicts.hostile(),
    "pass": verdicts.many(3, "pass", 0),
    "inconclusive": verdicts.many(3, "inconclusive", 3),
}
REAL_CHECK = """#!{python}
import atexit, sys
from importlib.metadata import packages_distributions
from pathlib import Path

def keep() -> None:
    owners = packages_distributions()
    names = {{name for module in list(sys.modules) for name in owners.get(module.split(".")[0], [])}}
    Path("imported.txt").write_text(chr(10).join(sorted(names)))

sys.path.insert(0, "ROOT")
from diffharness.cli import main
atexit.register(keep)
main()
""".replace("ROOT", str(ROOT))
"""The real command, which keeps what it imported."""
NEVER = {"torch", "transformers", "lm_eval", "nnsight", "altair", "vl-convert-python", "Jinja2"}

Act = Callable[..., ActionRun]
HOSTILE_INPUTS = ("$(touch injected)`touch injected`", '"; touch injected; "', "${{ github.token }} --debug a'b\nx=z")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a check prints and writes, a folder a verdict."""
    root = tmp_path_factory.mktemp("verdicts")
    for name, verdict in VERDICTS.items():
        folder = root / name
        folder.mkdir()
        files = {"junit": folder / "junit.xml", "summary": folder / "summary.md", "comment": folder / "comment.md"}
        write_outputs(verdict, folder, **files)
        with (folder / "said.txt").open("w", encoding="utf-8") as file:
            print_verdict(verdict, Console(file=file, width=80), {"GITHUB_ACTIONS": "true"})
        (folder / "code.txt").write_text(str(verdict.exit_code), encoding="utf-8")
    return root


@pytest.fixture
def act(tmp_path: Path, said: Path) -> Act:
    """Runs the action in a folder that holds a run; `gh` and `python3` record their calls."""
    (tmp_path / "reports" / "run").mkdir(parents=True)
    commands = tmp_path / "bin"
    check = put_command(commands, "diffharness", CHECK)
    put_command(commands, "gh", FAKE_GH)
    put_command(commands, "python3", FAKE_PYTHON)
    fake_github(tmp_path / "github.json", [])

    def run(number: str = "7", verdict: str = "regression", **inputs: str) -> ActionRun:
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "FAKE_GITHUB": str(tmp_path / "github.json"),
            "FAKE_CHECKS": str(tmp_path / "checks"),
            "FAKE_PIP": str(tmp_path / "pip.jsonl"),
            "FAKE_DIFFHARNESS": str(check),
            "FAKE_VERDICT": str(said / verdict),
        }
        given = {"run": "reports/run", "install": "none", "token": "good", **inputs}
        return run_action(given, tmp_path, environment, number)

    return run


def _github(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "github.json").read_text(encoding="utf-8"))


def _asked(folder: Path) -> list[str]:
    """The arguments of the last `diffharness`."""
    return (folder / "checks").read_text(encoding="utf-8").split("\0")[:-1]


def _installed(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "pip.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("regression", 1), ("inconclusive", 3)])
def test_the_job_ends_as_the_check_does_and_says_so_in_its_outputs(act: Act, verdict: str, code: int) -> None:
    found = act(verdict=verdict)
    assert found.exit_code == code
    assert found.outputs == {"verdict": verdict, "exit-code": str(code)}
    assert f"(exit {code})" in found.summary
    assert f"diffharness check: {verdict} (exit {code})" in found.log


def test_the_real_check_of_a_made_up_run_needs_only_what_the_light_install_brings(act: Act, tmp_path: Path) -> None:
    before = right(200, 160)
    made_up_run(tmp_path / "made" / "run", [MadeUpTask("task_a", before, lost(before, 60))])
    put_command(tmp_path / "bin", "diffharness", REAL_CHECK)
    found = act(run="made/run", junit="out.junit.xml", comment="true")
    assert found.outputs == {"verdict": "regression", "exit-code": "1"}
    assert found.exit_code == 1
    [comment] = _github(tmp_path)["comments"]
    assert "task" in comment["body"]
    assert "### ▼ diffharness check: regression (exit 1)" in comment["body"]
    assert '<failure type="regression"' in (tmp_path / "out.junit.xml").read_text(encoding="utf-8")
    imported = set((tmp_path / "imported.txt").read_text(encoding="utf-8").splitlines())
    script = read_yaml(ROOT / "action.yml")["runs"]["steps"][0]["run"]
    assert {"click", "rich", "pydantic", "numpy"} <= imported
    assert not NEVER & imported
    third_party = {name.lower() for name in imported} & _dependencies()
    assert third_party <= set(re.findall(r"[a-z-]+", script))


def _dependencies() -> set[str]:
    """Names of what diffharness itself depends on."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["project"]["dependencies"]
    return {re.split(r"[^A-Za-z0-9-]", name)[0].lower() for name in listed}


def test_nothing_is_posted_unless_asked_for(act: Act, tmp_path: Path) -> None:
    act()
    assert _github(tmp_path)["calls"] == []


def test_the_first_check_writes_a_comment_and_the_second_updates_it(act: Act, tmp_path: Path) -> None:
    fake_github(
        tmp_path / "github.json",
        [{"id": 1, "mine": False, "body": f"{MARKER} fake"}, {"id": 2, "mine": True, "body": f"see {MARKER}"}],
    )
    assert act(comment="true").exit_code == 1
    first = _github(tmp_path)["comments"]
    assert [c["id"] for c in first] == [1, 2, 102]
    assert first[2]["body"].startswith(f"{MARKER}\n### ▼ diffharness check: regression (exit 1)")
    assert act(comment="true", verdict="pass").exit_code == 0
    second = _github(tmp_path)["comments"]
    assert second[:2] == first[:2]
    assert len(second) == 3
    assert second[2]["body"].startswith(f"{MARKER}\n### = diffharness check: pass (exit 0)")
    methods = [call[call.index("--method") + 1] for call in _github(tmp_path)["calls"] if "--method" in call]
    assert methods == ["POST", "PATCH"]


@pytest.mark.parametrize(
    ("number", "token", "reason"),
    [("7", "", "no token"), ("", "good", "not about a pull request"), ("7", "read-only", "can not be read")],
)
def test_without_a_token_or_its_rights_the_summary_is_all_and_the_verdict_stays(
    act: Act, tmp_path: Path, number: str, token: str, reason: str
) -> None:
    found = act(number=number, token=token, comment="true")
    assert found.exit_code == 1
    assert re.search(rf"^::notice title=diffharness::no comment: .*{reason}", found.log, re.MULTILINE)
    assert "### ▼ diffharness check: regression" in found.summary
    assert _github(tmp_path)["comments"] == []


def test_a_check_that_could_not_be_done_replaces_the_comment_of_an_earlier_one(act: Act, tmp_path: Path) -> None:
    act(comment="true", verdict="pass")
    found = act(comment="true", run="missing")
    assert found.exit_code == 2
    assert found.outputs == {"verdict": "", "exit-code": "2"}
    [comment] = _github(tmp_path)["comments"]
    assert comment["body"].splitlines()[:2] == [MARKER, "### ! diffharness check could not be done (exit 2)"]
    assert "could not be done (exit 2)" in found.summary


def test_inputs_reach_the_check_as_they_are(act: Act, tmp_path: Path) -> None:
    found = act(
        against="a b.json", policy="p.yaml", junit="out.junit.xml", intersect="true", **{"on-inconclusive": "fail"}
    )
    arguments = _asked(tmp_path)
    assert arguments[0] == "check"
    assert arguments[-2:] == ["--", "reports/run"]
    assert {
        "--against=a b.json",
        "--policy=p.yaml",
        "--junit=out.junit.xml",
        "--intersect",
        "--on-inconclusive=fail",
    } < set(arguments)
    assert (tmp_path / "out.junit.xml").read_bytes().startswith(b"<?xml")
    assert found.exit_code == 1


@pytest.mark.parametrize("hostile", HOSTILE_INPUTS)
def test_no_input_is_run(act: Act, tmp_path: Path, hostile: str) -> None:
    (tmp_path / hostile).mkdir(parents=True, exist_ok=True)
    found = act(run=hostile, against=hostile, policy=hostile, intersect=hostile, comment=hostile, token=hostile)
    arguments = _asked(tmp_path)
    assert arguments[-1] == hostile
    assert {f"--against={hostile}", f"--policy={hostile}"} < set(arguments)
    assert "--intersect" not in arguments
    assert found.exit_code == 1
    assert found.outputs["verdict"] == "regression"
    assert not (tmp_path / "injected").exists()
    assert act(install=hostile).exit_code == 2


def test_hostile_documents_are_no_commands_of_the_runner(act: Act) -> None:
    log = act(verdict="hostile").log
    commands = [line for line in log.splitlines() if line.lstrip().startswith("::")]
    assert len(commands) == 20
    assert all(re.match(r"::(error|warning) title=[^:]*::", line) for line in commands)
    assert "##[" not in log
    assert "##vso[" not in log


def test_light_installs_no_torch_and_full_installs_all(act: Act, tmp_path: Path) -> None:
    assert act(install="light").exit_code == 1
    first, second = _installed(tmp_path)
    assert first[-2:] == ["--no-deps", str(ROOT)]
    light = second[second.index("--constraint") + 2 :]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert all(f"\n{name}==" in pinned for name in light)
    assert not {"torch", "transformers", "lm-eval", "nnsight"} & set(light)
    shutil.rmtree(tmp_path / "runner")
    assert act(install="full").exit_code == 1
    assert _installed(tmp_path)[2][-1] == str(ROOT)


def test_no_script_has_an_expression_in_it() -> None:
    for name in ("action.yml", "examples/ci/github.yml"):
        for script in _scripts(read_yaml(ROOT / name)):
            assert "${{" not in script
            assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def _scripts(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["run"]] if isinstance(node.get("run"), str) else []
        return own + [script for key, value in node.items() if key != "with" for script in _scripts(value)]
    return [script for value in node for script in _scripts(value)] if isinstance(node, list) else []


def test_the_filter_finds_our_own_comment_only() -> None:
    jq = program("jq", "jq", "jq")  # gh has it built in
    steps = {step.get("id"): step for step in read_yaml(ROOT / "action.yml")["runs"]["steps"]}
    found = re.search(r"ours='(.*?)'\n", steps["comment"]["run"], re.DOTALL)
    assert found is not None
    nodes = [
        {"databaseId": 1, "viewerDidAuthor": False, "body": f"{MARKER}\nfake"},
        {"databaseId": 2, "viewerDidAuthor": True, "body": f"I mean {MARKER}"},
        {"databaseId": 3, "viewerDidAuthor": True, "body": f"{MARKER}\n### pass"},
    ]
    response = {"data": {"repository": {"pullRequest": {"comments": {"nodes": nodes}}}}}
    done = subprocess.run([jq, "-r", found[1]], input=json.dumps(response), capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_the_github_example_gives_the_action_what_it_takes(tmp_path: Path) -> None:
    workflow = read_yaml(ROOT / "examples" / "ci" / "github.yml")
    action = read_yaml(ROOT / "action.yml")
    [step] = [s for s in workflow["jobs"]["check"]["steps"] if "diffharness@" in s.get("uses", "")]
    required = {name for name, declared in action["inputs"].items() if declared.get("required") == "true"}
    assert required <= set(step["with"]) <= set(action["inputs"])
    assert workflow["jobs"]["check"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    put_command(tmp_path / "bin", "diffharness", '#!/bin/sh\necho "$@" >> calls.txt\n')
    for script in _scripts(workflow):
        assert run_bash(script, tmp_path, {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}).returncode == 0
    assert (tmp_path / "calls.txt").read_text() == "run --config run.yaml --output reports/candidate\n"


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("regression", 1), ("inconclusive", 3)])
def test_the_gitlab_example_runs_the_check_and_leaves_what_it_lists(
    tmp_path: Path, said: Path, verdict: str, code: int
) -> None:
    jobs = read_yaml(ROOT / "examples" / "ci" / "gitlab-ci.yml")
    gate, variables = jobs["gate"], jobs["variables"]
    put_command(tmp_path / "bin", "diffharness", CHECK)
    (tmp_path / variables["DIFFHARNESS_RUN"]).mkdir(parents=True)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FAKE_CHECKS": str(tmp_path / "checks"),
        "FAKE_VERDICT": str(said / verdict),
        **variables,
    }
    done = run_bash("\n".join(gate["script"]), tmp_path, environment)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1].startswith(f"diffharness check: {verdict} (exit {code})")
    listed = [*gate["artifacts"]["paths"], gate["artifacts"]["reports"]["junit"]]
    for path in listed:
        assert (tmp_path / path.replace("$DIFFHARNESS_RUN", variables["DIFFHARNESS_RUN"])).is_file()
    assert gate["allow_failure"]["exit_codes"] == ["3"]
