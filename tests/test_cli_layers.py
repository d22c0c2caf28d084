"""`diffharness layers` and `--layer auto`: what is printed, what is done again, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffharness import RunConfig, cli, run
from diffharness.pipeline import Run
from diffharness.report.schema import Report
from tests.test_cli import flags


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def options(small) -> dict[str, Any]:
    """A run that does not name its layer."""
    return {name: value for name, value in small.items() if name != "layer"} | {"controls": False}


@pytest.fixture(scope="module")
def profiled(options, tmp_path_factory) -> tuple[Path, Result]:
    """A folder after `diffharness layers`, and what it printed."""
    folder = tmp_path_factory.mktemp("layers") / "run"
    given = {name: value for name, value in options.items() if name != "controls"}
    return folder, call("layers", *flags({**given, "output": folder}))


@pytest.fixture(scope="module")
def auto(options, profiled) -> tuple[RunConfig, Report, list[str]]:
    """The run that goes on from there with the layer left to the rule, its report, and the stages that it ran."""
    from diffharness.artifacts import Workspace

    ran: list[str] = []
    whole = Workspace.stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "stage", lambda self, name, *a, **k: ran.append(name) or whole(self, name, *a, **k))
        config = RunConfig.make({**options, "output": profiled[0], "layer": "auto", "attribution_documents": 12})
        return config, run(config), ran


def test_command_prints_the_profile_and_the_choice_and_trains_nothing(profiled):
    folder, result = profiled
    assert result.exit_code == 0, result.output
    for words in (
        "tiny_choice",
        "tiny_word",
        "12 of 12 documents",
        "of the gap",
        "read above",
        "--layer auto picks layer",
    ):
        assert words in result.stdout
    assert "Its rule: the first layer that carries half" in result.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["comparison.json", "depth.json", "evaluation", "manifest.json"]


def test_printing_again_runs_nothing(profiled, options, ran):
    given = {name: value for name, value in options.items() if name != "controls"}
    again = call("layers", *flags({**given, "output": profiled[0]}))
    assert (again.exit_code, again.stdout, ran) == (0, profiled[1].stdout, [])


def test_run_with_auto_goes_on_from_the_profile_at_its_layer(profiled, auto):
    _, report, ran = auto
    assert not {"evaluate baseline", "evaluate candidate", "compare", "depth"} & set(ran)
    assert ran[:2] == ["validate", "harvest"]
    assert f"--layer auto picks layer {report.run.layer}:" in profiled[1].stdout
    (note,) = [note for note in report.run.notes if "--layer auto" in note]
    assert note.startswith(f"Layer {report.run.layer} was chosen by --layer auto, the first layer that carries half")
    assert report.provenance.config["layer"] == "auto"
    assert "--layer auto" in report.run.command


def test_the_report_holds_the_profile_of_every_task(auto):
    report = auto[1]
    assert [profile.task for profile in report.depth] == ["tiny_choice", "tiny_word"]
    surrogates = {task.task: task.surrogate for task in report.tasks if task.surrogate is not None}
    for profile in report.depth:
        assert profile.moved
        assert [row.layer for row in profile.layers] == [0, 1, 2]
        assert profile.gap == pytest.approx(surrogates[profile.task].gap, abs=1e-5)
        assert profile.layers[1].share == pytest.approx(1, abs=1e-4), "the layers above 1 are the baseline's"
        assert profile.layers[2].share == pytest.approx(1, abs=1e-4)


def test_what_the_layer_carries_is_written_under_the_candidates_stack(auto):
    """The mean of both orders plus the interaction is the order of the candidate's stack."""
    report = auto[1]
    for profile in report.depth:
        task = next(task for task in report.tasks if task.is_primary and task.task == profile.task)
        written = [c for c in task.components if c.origin == "written"]
        first = sum(c.contribution + (c.interaction or 0.0) for c in written)
        assert profile.layers[report.run.layer].carried == pytest.approx(first, abs=1e-3)


def test_second_run_with_auto_does_nothing_and_loads_no_models(auto):
    config = auto[0]
    script = f"""
import sys
from diffharness import RunConfig, run
run(RunConfig.make({config.model_dump(mode="json", exclude_unset=True)!r}))
print([m for m in ("torch", "lm_eval", "transformers", "nnsight", "datasets") if m in sys.modules])
"""
    before = {p: p.stat().st_mtime_ns for p in config.output.rglob("*")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert {p: p.stat().st_mtime_ns for p in config.output.rglob("*")} == before


def test_the_layer_named_is_the_same_run_but_for_the_report(auto, ran):
    config, report, _ = auto
    named = Run(config.model_copy(update={"layer": str(report.run.layer)}))
    assert named.validity().fingerprint == Run(config).validity().fingerprint
    named.checks()
    assert ran == []


def test_a_smallest_effect_above_every_gap_moves_auto_to_the_middle(auto, ran):
    config = auto[0].model_copy(update={"smallest_effect": 2.0})
    one = Run(config)
    assert one.session.layer == 1
    assert ran == []


def test_other_documents_of_the_layers_do_not_run_the_evaluations_again(auto, ran, tmp_path):
    import shutil

    shutil.copytree(auto[0].output, tmp_path / "run")
    one = Run(auto[0].model_copy(update={"output": tmp_path / "run", "depth_documents": 8}))
    one.depth()
    assert ran == ["depth"]
    body = json.loads((tmp_path / "run" / "depth.json").read_text())
    assert {task["n_documents"] for task in body["tasks"].values()} == {8}
    assert {task["n_task"] for task in body["tasks"].values()} == {12}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crosscoder": "x", "latents": None, "k": None}, "layer auto chooses anew, but crosscoder x has one; leave"),
        ({"layer": "auto+1"}, "layer auto+1: auto chooses one layer; give it alone"),
        ({"depth_documents": "3"}, "depth_documents: Input should be greater than or equal to 8"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_auto_is_one_line(options, tmp_path, changes, message):
    given = {**options, "layer": "auto", "output": tmp_path / "run", **changes}
    given = {name: value for name, value in given.items() if value is not None and name != "controls"}
    result = call("run", *flags(given))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stored", [True, False])
def test_training_alone_refuses_auto(tiny, tmp_path, stored):
    models = ("--activations", tmp_path) if stored else (
        "--baseline", tiny.baseline, "--candidate", tiny.candidate, "--corpus", tiny.corpus,
    )  # fmt: skip
    result = call("crosscoder", "train", *models, "--layer", "auto", "--output", tmp_path / "cc")
    assert result.exit_code == 2
    said = "--layer auto is not whole numbers" if stored else "layer auto follows from the gaps of a benchmark"
    assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "cc").exists()


def test_models_of_one_layer_refuse_auto_before_anything_is_evaluated(tiny, options, tmp_path):
    from tests.tiny import save_model

    shallow = {side: save_model(tmp_path / side, seed=n, num_hidden_layers=1) for n, side in enumerate(("a", "b"))}
    given = {**options, "baseline": shallow["a"], "candidate": shallow["b"], "layer": "auto"}
    given |= {"output": tmp_path / "run"}
    result = call("run", *flags({name: value for name, value in given.items() if name != "controls"}))
    assert result.exit_code == 2
    assert "--layer auto chooses a layer below the last, and the models have one" in result.stderr
    assert not (tmp_path / "run").exists()
