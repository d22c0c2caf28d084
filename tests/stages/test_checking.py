"""The exact check on tiny models with tasks of all four output types, against arms that are run by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffharness.attribution import interventions
from diffharness.attribution.interventions import Arm, intervene
from diffharness.config import RunConfig
from diffharness.errors import RunError
from diffharness.evaluation import harness
from diffharness.pipeline import Run
from diffharness.stages.checking import ArmScorer, exact_check, first_difference
from diffharness.stages.reading import MAIN, load_crosscoder, read_latents
from diffharness.stages.scoring import primary

TASKS = ["tiny_choice", "tiny_word", "tiny_text", "tiny_answer"]


@pytest.fixture(scope="module")
def run(tiny_options, tmp_path_factory):
    """Below the last layer that the candidate learned in, so that its layers above read otherwise."""
    output = tmp_path_factory.mktemp("check") / "run"
    return Run(RunConfig.make({**tiny_options, "layer": "0", "train_tokens": 1500, "output": output}))


@pytest.fixture(scope="module")
def category(run):
    """A category with latents; which one does not matter."""
    names = [latent.category for latent in read_latents(run, MAIN)]
    return max(sorted(set(names)), key=names.count)


@pytest.fixture(scope="module")
def rows(run, category):
    return exact_check(run, {"written": {category: TASKS}, "read": {category: TASKS}}, lambda _done, _total: None)


@pytest.fixture(scope="module")
def by_hand(run, category):
    """Scores of the arms, each evaluated directly."""
    chosen = tuple(latent.index for latent in read_latents(run, MAIN) if latent.category == category)
    readers, crosscoder = [run.session.reader(s) for s in MAIN], load_crosscoder(run, MAIN)
    arms = {
        "put back": (1, Arm("put_back", chosen)),
        "swap": (1, Arm("swap")),
        "swap without": (1, Arm("swap", chosen)),
        "baseline without": (0, Arm("remove", chosen)),
    }
    found = {"baseline": run.load_evaluation("baseline"), "candidate": run.load_evaluation("candidate")}
    for name, (target, arm) in arms.items():
        with intervene(readers, crosscoder, target, arm):
            found[name] = harness.evaluate(run.session.model(MAIN[target]), run.session.tasks)[0]
    return found


def score(evaluation, run, task):
    info = evaluation.task(task)
    return info.scores[str(primary(run, info))]


def test_every_change_is_that_of_the_arms_scores(run, rows, by_hand, category):
    found = {(row["task"], row["category"], row["origin"]): row for row in rows}
    assert len(found) == len(rows) == 3 * len(TASKS)
    for task in TASKS:
        s = {name: score(evaluation, run, task) for name, evaluation in by_hand.items()}
        wanted = {
            (None, "upper"): (s["swap"], s["swap"] - s["baseline"]),
            (category, "written"): (s["put back"], s["candidate"] - s["put back"]),
            (category, "read"): (
                s["swap without"],
                (s["swap"] - s["swap without"]) - (s["baseline"] - s["baseline without"]),
            ),
        }
        for key, (value, change) in wanted.items():
            row = found[task, *key]
            assert row["score"] == pytest.approx(value, abs=1e-6)
            assert row["change"] == pytest.approx(change, abs=1e-6)
            assert row["low"] <= row["change"] + 1e-9
            assert row["change"] - 1e-9 <= row["high"]
            assert row["n"] == 12
    assert any(abs(row["change"]) > 1e-3 for row in rows if row["origin"] == "written")
    assert any(abs(row["change"]) > 1e-3 for row in rows if row["origin"] == "read")


def test_clusters_are_drawn_whole_as_in_the_comparison(run, category):
    clustered = Run(run.config.model_copy(update={"cluster": "word"}))
    wanted = {"written": {category: ["tiny_word"]}, "read": {category: ["tiny_word"]}}
    rows = exact_check(clustered, wanted, lambda _done, _total: None)
    assert len(rows) == 3
    assert all("over 10 clusters of documents" in row["method"] for row in rows if row["change"])
    assert any(row["change"] for row in rows)


def test_documents_make_the_change(rows):
    """Metrics that are means: the change is the mean of the documents' own."""
    means = [row for row in rows if row["task"] != "tiny_text"]
    for row in means:
        assert len(row["documents"]) == row["n"]
        assert row["change"] == pytest.approx(np.mean(list(row["documents"].values())), abs=1e-9)


def test_nothing_wanted_runs_nothing(run, monkeypatch):
    monkeypatch.setattr(harness, "evaluate", None)
    assert exact_check(run, {}, lambda _done, _total: None) == []


def test_recorded_evaluation_is_what_changing_nothing_gives(run):
    for target, side in enumerate(MAIN):
        assert first_difference(ArmScorer(run).reproduced(target), run.load_evaluation(side)) is None


def test_what_was_recorded_elsewhere_gives_way_to_scores_of_this_place(run, monkeypatch):
    recorded = run.load_evaluation("candidate")
    first, *rest = recorded.documents
    elsewhere = replace(recorded, documents=(replace(first, answer="something else"), *rest))
    monkeypatch.setattr(run, "load_evaluation", lambda _side: elsewhere)
    found = ArmScorer(run).reproduced(1)
    assert first_difference(found, recorded) is None
    where = first_difference(found, elsewhere)
    assert where is not None
    assert "document" in where


def test_machinery_that_does_not_reproduce_the_scores_is_refused(run, category, monkeypatch):
    whole = interventions._at  # pyright: ignore[reportPrivateUsage]

    def off(x, coded, values):
        return whole(x, coded, values + 1e-3 * torch.ones_like(values))

    monkeypatch.setattr(interventions, "_at", off)
    with pytest.raises(RunError, match="does not give its own scores"):
        exact_check(run, {"written": {category: ["tiny_choice"]}}, lambda _done, _total: None)


def test_progress_ends_with_everything(run, category):
    seen = []
    exact_check(run, {"written": {category: ["tiny_choice"]}}, lambda done, total: seen.append(done / total))
    assert max(seen) == seen[-1] == 1.0
    assert min(seen) < 0.2
