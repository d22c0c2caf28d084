"""Ablated models from a run's folder: in Python, on lm-eval's command line, and what they refuse."""

from __future__ import annotations

import json
import shutil

import lm_eval
import pytest

from diffharness.attribution.ablated import SIDES, AblatedModel
from diffharness.attribution.interventions import Arm, intervene
from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.pipeline import Run
from diffharness.recording import record_command_line
from diffharness.stages.reading import MAIN, load_crosscoder, read_latents


@pytest.fixture(scope="module")
def run(tiny_options, tmp_path_factory):
    """A run as far as an ablated model needs it."""
    output = tmp_path_factory.mktemp("ablated") / "run"
    made = Run(RunConfig.make({**tiny_options, "train_tokens": 1500, "output": output}))
    made.validity()
    made.latents(MAIN)
    (output / "run.yaml").write_text(made.config.to_yaml(), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def folder(run):
    return run.config.output


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def categories(run):
    return [latent.category for latent in read_latents(run, MAIN)]


@pytest.fixture(scope="module")
def category(categories):
    return max(sorted(set(categories)), key=categories.count)


def evaluated(model, tasks):
    """lm-eval's own results by task and metric, through its own entrance."""
    found = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks.tasks.values()), task_manager=tasks.manager, bootstrap_iters=0
    )
    assert found is not None
    return {
        name: {key: value for key, value in row.items() if "," in key and "stderr" not in key}
        for name, row in found["results"].items()
    }


@pytest.mark.parametrize(("mode", "side"), [("put_back", None), ("put_in", None), ("remove", "baseline")])
def test_scores_are_those_of_the_intervention(run, folder, categories, category, tiny_tasks, mode, side):
    model = AblatedModel.from_run(folder, (category,), mode, side)
    chosen = tuple(j for j, own in enumerate(categories) if own == category)
    target = 1 if mode == "put_back" else 0
    assert model.arm == Arm(mode, chosen)
    with intervene([run.session.reader(s) for s in MAIN], load_crosscoder(run, MAIN), target, Arm(mode, chosen)):
        wanted, _ = harness.evaluate(run.session.model(SIDES[target]), tiny_tasks)
    found = evaluated(model, tiny_tasks)
    own = run.load_evaluation(SIDES[target])
    for info in wanted.tasks:
        assert found[info.name] == dict(info.scores)
    assert any(dict(info.scores) != dict(own.task(info.name).scores) for info in wanted.tasks)


def test_removed_latents_may_be_named_by_number(folder):
    model = AblatedModel.create_from_arg_string(f"run={folder},ablate=12+3,mode=remove,batch_size=2")
    assert model.arm == Arm("remove", (3, 12))
    assert (model.target, model.inner.batch_size) == (1, 2)
    assert AblatedModel.create_from_arg_obj({"run": str(folder), "ablate": 12}).arm.latents == (12,)


@pytest.mark.usefixtures("quick_door")
def test_command_line_of_lm_eval_has_the_model(folder, category, tiny, tiny_tasks, tmp_path):
    record_command_line(
        ["run", "--model", "diffharness-ablated", "--model_args", f"run={folder},ablate={category}", "--tasks", "tiny",
         "--include_path", str(tiny.tasks), "--batch_size", "4", "--output_path", str(tmp_path)]
    )  # fmt: skip
    (file,) = tmp_path.rglob("results_*.json")
    body = json.loads(file.read_text())
    wanted = evaluated(AblatedModel.from_run(folder, (category,)), tiny_tasks)
    for name, scores in wanted.items():
        assert {key: body["results"][name][key] for key in scores} == pytest.approx(scores)
    assert body["config"]["ablated"] == f"candidate of run, put_back {category}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ablate": "nonsense"}, "no latent is of a category 'nonsense'; give .*unclear, or numbers of latents"),
        ({"ablate": "99"}, r"\(0 to 31\)"),
        ({"ablate": "3", "mode": "swap"}, "mode=swap is none"),
        ({"ablate": "3", "side": "ancestor"}, "no side"),
        ({"ablate": "3", "mode": "put_in", "side": "candidate"}, "about the baseline"),
        ({"ablate": "3", "latents": "4"}, "takes no latents"),
        ({"ablate": None}, "needs ablate"),
        ({"ablate": "3", "run": "nowhere"}, "nowhere holds no finished run"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(folder, arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        AblatedModel.create_from_arg_obj({"run": str(folder), **arguments})
    assert "\n" not in str(caught.value)


def test_models_that_changed_are_refused(copied):
    body = json.loads((copied / "validity.json").read_text())
    body["models"][1]["fingerprint"] = "0" * 16
    (copied / "validity.json").write_text(json.dumps(body))
    with pytest.raises(UsageError, match=r"the candidate .* is not what it was"):
        AblatedModel.from_run(copied, ("3",))


def test_runs_without_a_mechanism_are_refused(copied):
    body = json.loads((copied / "validity.json").read_text())
    (copied / "validity.json").write_text(json.dumps({**body, "withheld": "replay does not agree"}))
    with pytest.raises(UsageError, match="no mechanism: replay does not agree"):
        AblatedModel.from_run(copied, ("3",))
    (copied / "validity.json").write_text(json.dumps(body))
    shutil.rmtree(copied / "crosscoder")
    with pytest.raises(UsageError, match="no mechanism"):
        AblatedModel.from_run(copied, ("3",))


def test_altered_names_are_refused(copied):
    (copied / "latents.json").write_text((copied / "latents.json").read_text() + " ")
    with pytest.raises(UsageError, match="altered"):
        AblatedModel.from_run(copied, ("3",))


def test_response_cache_is_refused(folder):
    class Hook:
        dbdict: object = {}

    with pytest.raises(UsageError, match="use_cache"):
        AblatedModel.from_run(folder, ("3",)).set_cache_hook(Hook())
