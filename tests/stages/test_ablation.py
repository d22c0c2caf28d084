"""`--ablate`: the candidate without a category, as rows of the report."""

from __future__ import annotations

import json

import pytest

from diffharness.attribution.interventions import Arm, intervene
from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.pipeline import Run
from diffharness.report.schema import AblatedModel
from diffharness.stages.ablation import check_ablate
from diffharness.stages.reading import MAIN, load_crosscoder, read_latents


@pytest.fixture(scope="module")
def options(tiny_options):
    return {**tiny_options, "train_tokens": 1500}


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    output = tmp_path_factory.mktemp("ablation") / "run"
    return Run(RunConfig.make({**options, "output": output, "ablate": ["unclear", "unclear, 3", "animals,night"]}))


@pytest.fixture(scope="module")
def models(run):
    body = json.loads((run.ablations().folder / "ablations.json").read_text())
    return [AblatedModel.model_validate(model) for model in body]


def test_each_option_is_a_model_with_lm_evals_scores_on_all_tasks(run, models):
    categories = [latent.category for latent in read_latents(run, MAIN)]
    chosen = tuple(j for j, own in enumerate(categories) if own == "unclear")
    assert chosen
    with intervene([run.session.reader(s) for s in MAIN], load_crosscoder(run, MAIN), 1, Arm("put_back", chosen)):
        wanted, _ = harness.evaluate(run.session.model("candidate"), run.session.tasks)
    first = models[0]
    assert (first.name, first.categories, first.n_latents) == ("candidate without unclear", ("unclear",), len(chosen))
    assert {row.task for row in first.rows} == {"tiny_choice", "tiny_word", "tiny_text", "tiny_answer"}
    for row in first.rows:
        key = str(wanted.task(row.task).metrics[0])
        assert row.ablated == wanted.task(row.task).scores[key]
        assert row.candidate == run.load_evaluation("candidate").task(row.task).scores[key]
        assert row.baseline == run.load_evaluation("baseline").task(row.task).scores[key]
        assert row.change == row.ablated - row.candidate
        assert row.interval.low <= row.change <= row.interval.high
    assert any(abs(row.change) > 0.01 for row in first.rows)


def test_several_categories_and_numbers_make_one_model(run, models):
    categories = [latent.category for latent in read_latents(run, MAIN)]
    assert len(models) == 3
    assert models[1].categories == ("unclear", "3")
    assert models[1].n_latents == sum(own == "unclear" or j == 3 for j, own in enumerate(categories))
    own = [j for j, name in enumerate(categories) if name in ("animals", "night")]
    assert models[2].n_latents == len(own)
    assert (models[2].reason is None) == bool(models[2].rows) == bool(own)


@pytest.mark.parametrize(
    ("ablate", "message"),
    [
        (["nihgt"], "'nihgt' is no category; did you mean 'night'"),
        (["night,weather"], "'weather' is no category; there are: animals, night, unclear, and numbers"),
        (["32"], "numbered 0 to 31"),
        ([","], "names no category"),
    ],
)
def test_unknown_categories_are_refused_before_anything_runs(options, tmp_path, ablate, message):
    config = RunConfig.make({**options, "output": tmp_path / "run", "ablate": ablate})
    with pytest.raises(UsageError, match=message) as caught:
        check_ablate(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=message):
        Run(config).evaluation("baseline")
    assert not (tmp_path / "run").exists()


def test_names_of_a_persons_labels_are_known(options, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("latent,category\n0,night\n")
    config = RunConfig.make({**options, "output": tmp_path / "run", "annotator": f"file,{labels}", "ablate": "night"})
    check_ablate(config)
    assert config.ablate == ("night",)
