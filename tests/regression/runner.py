"""A CI runner in small: reads a workflow's YAML and runs its scripts under bash as the service would."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

FAKE_GH = '''#!{python}
"""gh as far as the action uses it: comments lie in a file, and every call is recorded."""
import json, os, sys
from pathlib import Path

arguments, state = sys.argv[1:], Path(os.environ["FAKE_GITHUB"])
kept = json.loads(state.read_text())
kept["calls"].append(arguments)
state.write_text(json.dumps(kept))
given = dict(a.split("=", 1) for f, a in zip(arguments, arguments[1:]) if f in ("-f", "-F"))
if os.environ.get("GH_TOKEN") != "good":
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
if arguments[:3] == ["api", "graphql", "--paginate"]:
    assert "$endCursor" in given["query"] and (given["owner"], given["name"]) == ("some", "repo")
    for comment in kept["comments"]:
        if comment["mine"] and comment["body"].startswith("<!-- diffharness -->"):
            print(comment["id"])
    sys.exit()
method, path = arguments[arguments.index("--method") + 1 :][:2]
body = Path(given["body"].removeprefix("@")).read_text(encoding="utf-8")
if method == "POST":
    assert path == f"repos/some/repo/issues/{{given.get('number', 7)}}/comments"
    kept["comments"].append({{"id": 100 + len(kept["comments"]), "mine": True, "body": body}})
else:
    [comment] = [c for c in kept["comments"] if path == f"repos/some/repo/issues/comments/{{c['id']}}"]
    comment["body"] = body
state.write_text(json.dumps(kept))
'''

FAKE_PYTHON = '''#!{python}
"""python3 as far as the action uses it: its virtual environment holds a pip that records what it should install."""
import json, os, stat, sys
from pathlib import Path

if sys.argv[1:2] == ["-c"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if sys.argv[1:3] == ["-m", "venv"]:
    bin = Path(sys.argv[3], "bin")
    bin.mkdir(parents=True)
    for name in ("python", "diffharness"):
        source = sys.argv[0] if name == "python" else os.environ["FAKE_DIFFHARNESS"]
        (bin / name).symlink_to(source)
else:
    assert sys.argv[1:4] == ["-m", "pip", "install"], sys.argv
    with open(os.environ["FAKE_PIP"], "a") as file:
        file.write(json.dumps(sys.argv[4:]) + chr(10))
'''


def put_command(folder: Path, name: str, text: str) -> Path:
    """An executable file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text.format(python=sys.executable) if "{python" in text else text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@dataclass
class Step:
    """What became of a step."""

    exit_code: int
    log: str
    outputs: dict[str, str]


@dataclass
class ActionRun:
    """What became of the action."""

    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    @property
    def exit_code(self) -> int:
        """Of the job: that of the first step that failed."""
        return next((step.exit_code for step in self.steps if step.exit_code), 0)

    @property
    def log(self) -> str:
        """Of all steps."""
        return "".join(step.log for step in self.steps)


def read_yaml(path: Path) -> Any:
    """A workflow; GitHub's `on` stays a word."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def _evaluated(text: str, context: dict[str, str]) -> str:
    """`${{ name }}` put in; a name that GitHub would not know is refused."""

    def value(found: re.Match[str]) -> str:
        name = found[1].strip()
        return context.get(name, "") if name.startswith("steps.") else context[name]

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


def run_action(inputs: dict[str, str], folder: Path, environment: dict[str, str], number: str = "") -> ActionRun:
    """Run the steps of `action.yml`, each under bash with the environment that GitHub would give."""
    action = read_yaml(ROOT / "action.yml")
    unknown = set(inputs) - set(action["inputs"])
    assert not unknown, unknown
    context = {"github.token": "", "github.event.pull_request.number": number}
    for name, declared in action["inputs"].items():
        assert name in inputs or declared.get("required") != "true", f"input {name} is required"
        context[f"inputs.{name}"] = inputs.get(name, _evaluated(declared.get("default", ""), context))
    temporary = folder / "runner"
    temporary.mkdir(exist_ok=True)
    found = ActionRun()
    for position, step in enumerate(action["runs"]["steps"]):
        assert step["shell"] == "bash"
        assert set(step) <= {"id", "shell", "env", "run"}, "this runner knows no other keys"
        files = {name: folder / f"{name}-{position}" for name in ("output", "summary")}
        for file in files.values():
            file.touch()
        given = {name: _evaluated(value, context) for name, value in step.get("env", {}).items()}
        github = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_REPOSITORY": "some/repo",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            "RUNNER_TEMP": str(temporary),
        }
        done = run_bash(step["run"], folder, {**environment, **github, **given})
        outputs = dict(line.split("=", 1) for line in files["output"].read_text(encoding="utf-8").splitlines())
        files["output"].unlink()
        context.update({f"steps.{step.get('id')}.outputs.{name}": value for name, value in outputs.items()})
        found.steps.append(Step(done.returncode, done.stdout, outputs))
        found.summary += files["summary"].read_text(encoding="utf-8")
        files["summary"].unlink()
        if done.returncode:
            break
    found.outputs = {name: _evaluated(output["value"], context) for name, output in action["outputs"].items()}
    return found


def run_bash(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A script as a runner runs it; its standard output and error are one log."""
    path = folder / "script.sh"
    path.write_text(script, encoding="utf-8")
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(path)]
    system = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ}
    return subprocess.run(
        command,
        cwd=folder,
        env={**system, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def fake_github(path: Path, comments: list[dict[str, Any]]) -> Path:
    """The state of the fake gh."""
    path.write_text(json.dumps({"calls": [], "comments": comments}), encoding="utf-8")
    return path
