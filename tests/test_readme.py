"""Every command of the README is run, with the tiny models in place of the reader's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
ELSEWHERE = {"make demo": "test_demo.py", "make test": "this run", "pip install .": "test_wheel.py"}
"""Commands that other tests run."""
OTHER_RUNS = ("demo", "a", "b", "accepted")
"""Further finished runs that the README names below `reports`: copies of the first one here."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def example(holds: str) -> str:
    """The Python example that holds some words."""
    return next(block for block in blocks("python") if holds in block)


def for_tiny(text: str, tiny) -> str:
    """The reader's models, tasks and texts replaced by tiny ones."""
    small = f" --include-path {tiny.tasks} --latents 16 --k 4 --train-tokens 2000"
    text = re.sub(r"path/to/(baseline|candidate)", lambda m: str(getattr(tiny, m[1])), text)
    text = text.replace("hellaswag,arc_easy", "tiny").replace("hellaswag", "tiny_choice")
    text = text.replace("safety+unclear", "unclear").replace("arc_easy", "tiny_choice")
    text = text.replace("texts.jsonl", str(tiny.corpus)).replace("probes.jsonl", str(tiny.probes))
    text = text.replace("held-out.jsonl", str(tiny.corpus))
    if "lm-eval run" in text:
        return f"{text} --include_path {tiny.tasks} --device cpu"
    if "--baseline-results" in text:
        return text + (small if "out/" in text else small.replace(f"--include-path {tiny.tasks} ", ""))
    return text + small if "diffharness run --baseline " in " ".join(text.split()) else text


@pytest.mark.slow
def test_every_command_works_as_written(tiny, tmp_path):
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for command in commands():
        if command in ELSEWHERE:
            continue
        written = for_tiny(command, tiny)
        done = subprocess.run(shlex.split(written), cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
        cannot_tell = command.startswith("diffharness check") and done.returncode == 3  # of so few documents
        assert done.returncode == 0 or cannot_tell, f"{written}\n{done.stderr[-2000:]}"
        if "--output reports/mine" in command:
            for name in OTHER_RUNS:
                shutil.copytree(tmp_path / "reports" / "mine", tmp_path / "reports" / name)
        if command.startswith("diffharness init"):
            file = tmp_path / "my-run.yaml"
            edited = file.read_text().replace("path/or/hub-id-of-the-baseline", str(tiny.baseline))
            edited = edited.replace("path/or/hub-id-of-the-candidate", str(tiny.candidate))
            edited = edited.replace("[hellaswag, arc_easy]", f"[tiny_word]\ninclude_path: [{tiny.tasks}]")
            file.write_text(edited + "latents: 16\nk: 4\ntrain_tokens: 2000\n")
    _try_the_crosscoder(tmp_path / "my-crosscoder")
    exec(example("Report.load").replace("reports/demo", str(tmp_path / "reports" / "demo")), {})
    assert (tmp_path / "reports" / "mine" / "report.html").is_file()
    assert (tmp_path / "recorded" / "candidate" / "ledger.parquet").is_file()


def _try_the_crosscoder(folder: Path) -> None:
    """The example of a loaded crosscoder, on the one that the commands left."""
    import torch

    import diffharness.crosscoder

    width = diffharness.crosscoder.load(folder).config.d_model
    names = {"x": torch.randn(7, 2, width)}
    exec(example("my-crosscoder").replace("my-crosscoder", str(folder)), names)
    assert names["x_hat"].shape == names["x"].shape
    assert names["decoders"].shape[1:] == names["x"].shape[1:]


@pytest.mark.slow
def test_python_example_works_as_written(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[0]
    small = f'"include_path": ["{tiny.tasks}"], "latents": 16, "k": 4, "train_tokens": 2000, "output"'
    exec(for_tiny(code, tiny).replace('"output"', small), {})
    assert "tiny_choice" in capsys.readouterr().out


def test_commands_of_the_table_exist():
    from diffharness.cli import main

    named = set(re.findall(r"\| `diffharness ([\w-]+)", README))
    assert named == set(main.commands)


def test_files_that_the_readme_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_policy_is_one(tmp_path):
    from diffharness.regression.policy import read_policy

    file = tmp_path / "gate.yaml"
    file.write_text(blocks("yaml")[0], encoding="utf-8")
    rule = read_policy(file).rule_of("gsm8k")
    assert rule is not None
    assert rule.margin is not None
    assert rule.margin.value == 0.02
