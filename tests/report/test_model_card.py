"""The card is read back by the Hub's own library, and its section says no more than the report does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult, model_index_to_eval_results

from diffharness.report.model_card import LIMIT_BYTES, changes, model_index, render_model_card
from diffharness.report.numbers import signed
from diffharness.report.schema import Report
from diffharness.report.settings import TaskSettings
from tests.report.example import example_report
from tests.report.test_markdown import read_markdown


def read(report: Report, folder: Path | None = None) -> tuple[ModelCard, list[EvalResult]]:
    """The card as the Hub's library reads it, after it wrote it once itself."""
    card = ModelCard(str(ModelCard(render_model_card(report, folder))))
    return card, card.data.eval_results or []


def test_every_score_of_the_candidate_is_read_back(report: Report) -> None:
    card, results = read(report)
    assert card.data.model_name == "organism/candidate"
    found = {(result.dataset_name, result.metric_name): result.metric_value for result in results}
    names = {
        (t.task, t.metric if t.filter == "none" else f"{t.metric} ({t.filter})"): t.candidate for t in report.tasks
    }
    assert found == pytest.approx(names, abs=1e-6)
    assert {r.metric_type for r in results if r.metric_name == "acc"} == {"accuracy"}
    assert {r.source_url for r in results} == {"https://github.com/EleutherAI/lm-evaluation-harness"}


def test_the_data_set_and_shots_come_from_the_folder(report: Report, tmp_path: Path) -> None:
    home = tmp_path / "evaluation" / "candidate"
    home.mkdir(parents=True)
    config = {"dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Easy", "test_split": "test"}
    body = {"configs": {report.tasks[0].task: config}, "n-shot": {report.tasks[0].task: 25}}
    (home / "results.json").write_text(json.dumps(body))
    _, results = read(report, tmp_path)
    first = next(r for r in results if r.dataset_name == report.tasks[0].task)
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == ("allenai/ai2_arc", "ARC-Easy", "test")
    assert first.dataset_args == {"num_few_shot": 25}
    other = next(r for r in results if r.dataset_name == report.tasks[1].task)
    assert (other.dataset_type, other.dataset_args) == (report.tasks[1].task, None)


def test_tasks_on_one_data_set_stay_apart() -> None:
    report = example_report(n_tasks=2)
    names = [task.task for task in report.tasks]
    same = TaskSettings(dataset="openai/gsm8k", config="main", split="test")
    index = model_index(report, dict.fromkeys(names, same))
    assert [result["dataset"]["type"] for result in index[0]["results"]] == names
    (alone,) = (r for r in model_index(report, {names[0]: same})[0]["results"] if r["dataset"]["name"] == names[0])
    assert alone["dataset"]["type"] == "openai/gsm8k"


def test_the_section_has_the_verdict_the_scores_and_what_is_a_cause(report: Report) -> None:
    said = changes(report)
    assert said.startswith("## What changed against `")
    assert "6 of 10 tasks changed" in said
    for task in report.tasks:
        assert signed(task.gap) in said
    assert "confirmed as a cause: safety latents" in said
    without = changes(report.model_copy(update={"claims": ()}))
    assert "confirmed as a cause: " not in without
    assert "none is confirmed as a cause" in without


def test_a_withheld_mechanism_and_other_documents_are_said(report: Report) -> None:
    withheld = report.validation.model_copy(update={"mechanism_withheld": "the replay does not hold"})
    other = report.comparability.model_copy(update={"documents_equal": False})
    said = changes(report.model_copy(update={"validation": withheld, "comparability": other}))
    assert "withheld: the replay does not hold" in said
    assert "cause" not in said
    assert "did not answer the same documents" in said


def test_many_tasks_fit_and_what_is_left_out_is_counted() -> None:
    said = changes(example_report(n_tasks=300, n_latents=5))
    assert len(said.encode()) <= LIMIT_BYTES
    assert "more scores, in the run's own report" in said
    assert "more tasks with a gap, in the run's own report" in said
    assert said.rstrip().endswith("layer 2 of 4.")


def test_hostile_names_stay_texts_of_the_block(hostile: Report) -> None:
    content = render_model_card(hostile)
    card, results = read(hostile)
    assert len(results) == len(hostile.tasks)
    assert {*card.data.to_dict()} == {"model-index"}
    name, _ = model_index_to_eval_results(model_index(hostile, {}))
    assert card.data.model_name == name
    assert not set(content) & set("\x1b\x07\u202e")
    read_as = read_markdown(card.text)
    assert not read_as.tags & {"script", "img", "a", "iframe"}
    assert "<script>alert(1)</script>" in read_as.text
