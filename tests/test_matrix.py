"""Many candidates with one crosscoder: from the command line to the matrix, what is shared and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from diffharness import cli, stages
from diffharness.candidates import Candidates
from diffharness.crosscoder import checkpoint
from diffharness.errors import UsageError
from diffharness.matrix import matrix_command
from diffharness.report.schema import Report
from diffharness.report.schema.matrix import Matrix
from diffharness.stages import joint
from tests.tiny import save_model

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def words(tiny, tiny_moved) -> dict[str, Any]:
    return {
        "--baseline": tiny.baseline, "--candidate": [tiny_moved, tiny.candidate, tiny.ancestor],
        "--tasks": "tiny_choice,tiny_word", "--include-path": tiny.tasks, "--corpus": tiny.corpus,
        "--probes": tiny.probes, "--taxonomy": tiny.taxonomy, "--layer": "1", "--latents": "32", "--k": "4",
        "--train-tokens": "1500", "--batch-size": "4", "--device": "cpu", "--random-sets": "0", "--shapley": "none",
        "--attribution-documents": "8",
    }  # fmt: skip


@pytest.fixture(scope="module")
def invoke(words) -> Invoke:
    def run(output: Path, **changes: Any) -> Result:
        line = ["matrix", "--no-controls", "--output", str(output)]
        for option, value in {**words, **{f"--{name}": value for name, value in changes.items()}}.items():
            for one in value if isinstance(value, list) else [] if value is None else [value]:
                line += [option, str(one)]
        return CliRunner().invoke(cli.main, line)

    return run


@pytest.fixture(scope="module")
def done(invoke, tmp_path_factory) -> tuple[Path, Result]:
    """The folder of a finished matrix of three candidates, and what was printed."""
    output = tmp_path_factory.mktemp("matrix") / "three"
    return output, invoke(output)


def test_every_candidate_has_its_report_and_the_matrix_says_the_same(done):
    output, result = done
    assert result.exit_code == 0, result.output
    matrix = Matrix.load(output)
    assert [c.name for c in matrix.candidates] == ["moved", "candidate", "ancestor"]
    assert matrix.tasks == ("tiny_choice", "tiny_word")
    assert len(matrix.cells) == 6
    for candidate in matrix.candidates:
        report = Report.load(output / candidate.name)
        assert (output / candidate.report).is_file()
        assert candidate.explained_variance == report.quality[0].explained_variance
        assert [model.side for model in report.models] == ["baseline", "candidate"]
        for cell in (cell for cell in matrix.cells if cell.candidate == candidate.name):
            row = next(task for task in report.tasks if task.task == cell.task and task.is_primary)
            assert (cell.gap, cell.verdict, cell.interval) == (row.gap, row.verdict, row.interval)
    for name in ("matrix.md", "matrix.html"):
        text = (output / name).read_text()
        assert all(f"{c}/report.html" in text for c in ("moved", "candidate", "ancestor")), name


def test_parts_add_up_to_the_summed_gaps_of_the_moved_tasks(done):
    output, _ = done
    matrix = Matrix.load(output)
    assert any(whole.candidate == "moved" for whole in matrix.sums), "its gaps are real"
    for whole in matrix.sums:
        parts = [p for p in matrix.parts if (p.candidate, p.unit) == (whole.candidate, whole.unit)]
        report = Report.load(output / whole.candidate)
        moved = [task for task in report.tasks if task.task in whole.tasks and task.is_primary]
        known = [task.surrogate.gap for task in moved if task.surrogate is not None]
        assert whole.gap == pytest.approx(sum(known))
        assert sum(p.contribution for p in parts) == pytest.approx(whole.gap, abs=0.02)
        assert all(p.interval is not None and p.interval.low <= p.contribution <= p.interval.high for p in parts)
        if whole.share_reason is None:
            assert sum(p.share for p in parts) == pytest.approx(1, abs=0.05)


def test_all_pairs_load_one_crosscoder_and_its_names(done):
    output, _ = done
    whole = checkpoint.load(output / "shared" / "crosscoder")
    assert whole.sides == ("baseline", "candidate-moved", "candidate-candidate", "candidate-ancestor")
    for place, name in enumerate(("moved", "candidate", "ancestor"), start=1):
        pair = checkpoint.load(output / name / "crosscoder")
        assert pair.sides == ("baseline", "candidate")
        assert torch.equal(pair.W_dec_LMD, whole.W_dec_LMD[:, [0, place]])
    names = {
        name: [latent.category for latent in Report.load(output / name).latents]
        for name in ("moved", "candidate", "ancestor")
    }
    assert len(set(map(tuple, names.values()))) == 1
    assert set(names["moved"]) - {"unclear"}, "some latents have a name"
    assert "shared/names.csv" in Matrix.load(output).names_from


def test_models_are_evaluated_once_and_texts_read_once(done):
    output, _ = done
    scored = [output / "shared" / "evaluation" / side / "evaluation.json" for side in ("baseline", "candidate-moved")]
    for name in ("moved", "candidate", "ancestor"):
        assert (output / name / "evaluation/baseline/evaluation.json").read_bytes() == scored[0].read_bytes()
        assert not list((output / name / "activations").glob("*.safetensors"))
    assert (output / "moved/evaluation/candidate/evaluation.json").read_bytes() == scored[1].read_bytes()


def test_a_second_call_only_prints(done, invoke):
    output, first = done
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    again = invoke(output)
    assert again.exit_code == 0, again.output
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before
    table = first.stdout[first.stdout.index("3 candidates") :]
    assert table in again.stdout
    assert "improved" in table


def test_a_second_call_loads_no_models(done, words):
    line = ["matrix", "--no-controls", "--output", str(done[0])]
    for option, value in words.items():
        line += [word for one in (value if isinstance(value, list) else [value]) for word in (option, str(one))]
    script = f"""
import sys
from diffharness.cli import main
try:
    main({line!r})
finally:
    print([m for m in ("torch", "lm_eval", "transformers", "nnsight", "datasets") if m in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().splitlines()[-1] == "[]"


def test_a_candidate_less_says_that_the_crosscoder_is_trained_anew_and_evaluates_nothing(
    done, invoke, words, tmp_path, monkeypatch
):
    output = shutil.copytree(done[0], tmp_path / "two", copy_function=shutil.copy2)
    called: list[str] = []
    evaluate = stages.evaluate
    monkeypatch.setattr(stages, "evaluate", lambda run, side, *rest: (called.append(side), evaluate(run, side, *rest)))

    class ReachedError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise ReachedError

    monkeypatch.setattr(joint, "restrict_joint", stop)
    result = invoke(output, candidate=words["--candidate"][:2])
    assert isinstance(result.exception, ReachedError)
    assert called == []
    assert "over 3 other candidates; with these 2 it is trained anew" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidate": ["A"]}, "one --candidate is given, and a matrix is of two or more; for one use"),
        ({"candidate": None}, "no --candidate is given"),
        ({"candidate": ["A", "A"]}, "the same model twice"),
        ({"layer": "auto"}, "--layer auto chooses for one pair"),
        ({"annotator": ["probe", "none"]}, "annotator"),
        ({"crosscoder": "X"}, "No such option"),
        ({"ancestor": "X"}, "No such option"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_can_not_be_is_refused_in_one_line(invoke, tmp_path, changes, said):
    result = invoke(tmp_path / "never", **changes)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "never").exists()


def test_a_candidate_that_does_not_fit_is_named(invoke, words, tmp_path):
    wide = save_model(tmp_path / "wide", seed=5, hidden_size=24)
    result = invoke(tmp_path / "out", candidate=[*words["--candidate"][:1], wide])
    assert result.exit_code == 2
    assert "the candidate-wide has hidden size 24, the baseline 16" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_may_list_the_candidates_and_options_of_one_pair_are_refused_there(tmp_path, tiny, tiny_moved):
    file = tmp_path / "matrix.yaml"
    body = {"baseline": str(tiny.baseline), "candidate": [str(tiny_moved), str(tiny.candidate)], "tasks": ["tiny"]}
    file.write_text(json.dumps({**body, "ancestor": str(tiny.ancestor)}))
    result = CliRunner().invoke(cli.main, ["matrix", "--config", str(file), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--ancestor is of one pair of models" in result.stderr


def test_a_withheld_mechanism_leaves_scores_with_the_reason(done, tmp_path):
    from diffharness.assembly.matrix import matrix
    from diffharness.report.matrix import remarks, render_html, render_markdown
    from diffharness.report.side_by_side import unit_tables

    output, _ = done
    reports = {name: Report.load(output / name) for name in ("moved", "candidate")}
    whole = reports["moved"]
    withheld = whole.validation.model_copy(update={"mechanism_withheld": "replay differs <b>"})
    bare = tuple(t.model_copy(update={"components": (), "surrogate": None, "account_reason": "w"}) for t in whole.tasks)
    reports["moved"] = whole.model_copy(update={"validation": withheld, "quality": (), "tasks": bare})
    quality = json.loads((output / "shared/crosscoder/quality.json").read_text())
    found = matrix(reports, output, quality=quality, names_from="n", command="c")
    assert found.candidates[0].withheld == "replay differs <b>"
    assert len([cell for cell in found.cells if cell.candidate == "moved"]) == 2
    assert not [part for part in found.parts if part.candidate == "moved"]
    assert "replay differs &lt;b&gt;" in render_html(found)
    assert "<b>" not in render_html(found)
    assert "scores only: replay differs" in render_markdown(found)
    assert all(table.sums[0] is None for table in unit_tables(found))
    assert any("is in no sum: w" in said for said in remarks(found))


def test_names_of_candidates_are_folders_and_differ(tmp_path):
    for folder in ("x/last", "y/last", "shared", "Odd name!"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(folder)
    given = [str(tmp_path / folder) for folder in ("x/last", "y/last", "shared", "Odd name!")]
    given += ["org/model", "pretrained=org/model,revision=step-1", "pretrained=base,peft=a/lora"]
    names = list(Candidates.named(given).arguments)
    assert names[:2] == ["x-last", "y-last"]
    assert names[2] == f"{tmp_path.name}-shared"
    assert names[3:] == ["Odd-name", "model", "model-step-1", "lora"]
    os.symlink(tmp_path / "x/last", tmp_path / "again")
    with pytest.raises(UsageError, match="same model twice"):
        Candidates.named([given[0], str(tmp_path / "again")])


def test_the_command_line_that_is_shown_means_the_same(words, tmp_path):
    import shlex

    from diffharness.config import RunConfig

    config = RunConfig.make({"baseline": "b", "candidate": "x y", "tasks": ["t"], "output": str(tmp_path)})
    line = shlex.split(matrix_command(config, Candidates({"one": "x y", "two": "z"})))
    assert line[:8] == ["diffharness", "matrix", "--baseline", "b", "--candidate", "x y", "--candidate", "z"]
    assert line[8:10] == ["--tasks", "t"]
