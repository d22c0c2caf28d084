"""The wheel: built, installed in a fresh environment, and the demo run from there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_wheel_holds_tasks_templates_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "diffharness/tasks/organism/organism.yaml" in names
    assert "diffharness/tasks/organism/data/organism_safety.jsonl" in names
    assert "diffharness/report/templates/report.html.jinja" in names
    assert "diffharness/py.typed" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_demo_works_from_the_installed_wheel(wheel, tmp_path):
    """The dependencies are lent by this environment; diffharness itself comes from the wheel alone."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    packages = Path(subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip())  # fmt: skip
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = subprocess.run(
        [python, "-c", "import diffharness; print(diffharness.__file__)"], capture_output=True, text=True, cwd=tmp_path
    )
    assert str(packages) in where.stdout
    small = ["--limit", "12", "--train-tokens", "20000", "--latents", "64", "--k", "8", "--no-controls"]
    done = subprocess.run(
        [home / "bin" / "diffharness", "demo", *small], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "reports" / "demo" / "report.html").stat().st_size > 100_000
