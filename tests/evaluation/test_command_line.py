"""What users lean on in lm-eval's command line, through our door and through its own: the same in every number."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.__main__ import cli_evaluate
from transformers import AutoTokenizer

from diffharness.errors import UsageError
from diffharness.evaluation.command_line import run_command_line
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation
from diffharness.recording import record_command_line
from tests.evaluation.recomputation import assert_recomputable
from tests.evaluation.test_requests import TEMPLATE
from tests.tiny import metrics, save_model, write_task

OWN_TO_A_RUN = {"date", "config", "start_time", "end_time", "total_evaluation_time_seconds", "model_source"}


pytestmark = pytest.mark.usefixtures("quick_door")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("door") / "model", seed=5, max_position_embeddings=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, tiny) -> Path:
    """A group with an aggregate of its own, of two tasks whose prompts a function makes, and one that generates."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    (folder / "helper.py").write_text("def prompt(doc):\n    return 'the old ' + doc['prompt']\n")
    for name in ("door_one", "door_two"):
        write_task(
            folder, name, rows[:8] if name == "door_one" else rows, output_type="multiple_choice", doc_to_target="gold",
            doc_to_choice="choices", num_fewshot=1, fewshot_split="test", metric_list=metrics("acc", "acc_norm"),
        )  # fmt: skip
        with (folder / f"{name}.yaml").open("a") as file:
            file.write("doc_to_text: !function helper.prompt\n")
    write_task(
        folder, "door_answer", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 6, "do_sample": False}, metric_list=metrics("exact_match"),
    )  # fmt: skip
    group = {
        "group": "door", "task": ["door_one", "door_two"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }  # fmt: skip
    (folder / "door.yaml").write_text(yaml.safe_dump(group))
    return folder


def arguments(kind: str, model: Path, tasks: Path, *more: str, record_to: Path | None = None) -> list[str]:
    model_args = f"pretrained={model}" + (f",record_to={record_to}" if record_to else "")
    return [
        "run", "--model", kind, "--model_args", model_args, "--tasks", "door,door_answer", "--include_path", str(tasks),
        "--batch_size", "3", "--device", "cpu", *more,
    ]  # fmt: skip


def plain_command_line(found: list[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lm-eval", *found])
    cli_evaluate()


def written(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """lm-eval's results file without what differs between any two runs, and its samples by task."""
    (file,) = folder.rglob("results_*.json")
    results = {k: v for k, v in json.loads(file.read_text()).items() if k not in OWN_TO_A_RUN}
    for configuration in results["configs"].values():
        configuration["metadata"].pop("record_to", None)
    samples = {
        f.name.removeprefix("samples_").rsplit("_", 1)[0]: [json.loads(line) for line in f.read_text().splitlines()]
        for f in folder.rglob("samples_*.jsonl")
    }
    return results, samples


def test_groups_functions_templates_arguments_and_samples_are_as_in_plain_lm_eval(
    model, tasks, tmp_path, monkeypatch, capsys
):
    more = ["--limit", "5", "--gen_kwargs", "do_sample=True,temperature=1.0,max_gen_toks=4", "--apply_chat_template"]
    more += ["--system_instruction", "the bird sings", "--fewshot_as_multiturn", "true", "--log_samples"]
    plain_command_line(arguments("hf", model, tasks, *more, "--output_path", str(tmp_path / "plain")), monkeypatch)
    tables = capsys.readouterr().out.splitlines()
    record = tmp_path / "record"
    ours = arguments("diffharness", model, tasks, *more, "--output_path", str(tmp_path / "ours"), record_to=record)
    record_command_line(ours)
    own_tables = capsys.readouterr().out.splitlines()
    assert [x for x in own_tables if x.startswith("|")] == [x for x in tables if x.startswith("|")] != []
    results, samples = written(tmp_path / "plain")
    own_results, own_samples = written(tmp_path / "ours")
    assert own_results == results
    assert own_samples == samples
    assert results["groups"]["door"]["acc,none"] == own_results["groups"]["door"]["acc,none"]
    assert {task: len(rows) for task, rows in samples.items()} == {"door_one": 5, "door_two": 5, "door_answer": 5}
    evaluation = Evaluation.load(record)
    assert evaluation.settings["limit"] == 5
    assert {len(r.targets) <= 4 for r in evaluation.ledger if r.task == "door_answer"} == {True}
    assert evaluation.of("door_one", "none")[0].prompt.startswith("one : the bird sings two : the old ")
    answers = [s["resps"][0][0] for s in samples["door_answer"]]
    assert [d.answer for d in evaluation.of("door_answer", "none").values()] == answers


@pytest.mark.parametrize("log_samples", [True, False])
def test_chosen_samples_are_sorted_so_that_lm_eval_numbers_them_rightly(
    model, tasks, tmp_path, monkeypatch, log_samples
):
    chosen = {"door_one": [5, 2, 5], "door_two": [11, 0], "door_answer": [7, 3]}
    right = {task: sorted(set(ids)) for task, ids in chosen.items()}
    more = ["--log_samples"] if log_samples else []
    asked = ["--samples", json.dumps(right), "--output_path", str(tmp_path / "hf"), *more]
    plain_command_line(arguments("hf", model, tasks, *asked), monkeypatch)
    asked = ["--samples", json.dumps(chosen), "--output_path", str(tmp_path / "diffharness"), *more]
    seen: list[tuple[RecordingModel, Evaluation, dict[str, Any]]] = []

    def finished(recording: RecordingModel, evaluation: Evaluation, results: dict[str, Any]) -> None:
        seen.append((recording, evaluation, copy.deepcopy(results)))  # lm-eval makes text of them when it writes them

    run_command_line(arguments("diffharness", model, tasks, *asked), lambda _: None, finished)
    ((recording, evaluation, results),) = seen
    assert written(tmp_path / "diffharness") == written(tmp_path / "hf")
    assert bool(written(tmp_path / "hf")[1]) == log_samples
    assert evaluation.settings["protocol"]["samples"] == right
    for task, numbers in right.items():
        assert list(evaluation.ledger.by_document(task)) == list(evaluation.of(task, "none")) == numbers
    assert_recomputable(recording, evaluation, results)


def test_answers_alone_can_be_asked_for(model, tasks, tmp_path):
    record = tmp_path / "record"
    more = ["--predict_only", "--limit", "2", "--output_path", str(tmp_path / "out")]
    record_command_line(arguments("diffharness", model, tasks, *more, record_to=record))
    assert len(Evaluation.load(record).ledger) == 2 * (2 + 2 + 1)


def test_wandb_that_is_not_installed_fails_as_in_plain_lm_eval(model, tasks, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    asked = ("--limit", "1", "--wandb_args", "project=p")
    seen = []
    doors = {"hf": lambda found: plain_command_line(found, monkeypatch), "diffharness": record_command_line}
    for kind, door in doors.items():
        caplog.clear()
        with pytest.raises(Exception, match="wandb") as error:
            door(arguments(kind, model, tasks, *asked))
        messages = [r.getMessage() for r in caplog.records if "wandb" in r.getMessage()]
        seen.append((error.type, str(error.value), messages))
    assert seen[0] == seen[1]
    assert "please install wandb" in seen[0][2][0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--use_cache", "{}/cache"], "--use_cache answers requests without the model"),
        (["--cache_requests", "true"], "--cache_requests may ask what an earlier run"),
        (["--samples", '{{"door_one": [-1, 2]}}'], "names document -1; documents are numbered from 0"),
    ],
)
def test_what_would_record_something_else_is_refused_before_the_model_is_loaded(model, tasks, tmp_path, more, message):
    loaded = []
    with pytest.raises(UsageError, match=message):
        run_command_line(
            arguments("diffharness", model, tasks, *(m.format(tmp_path) for m in more)),
            loaded.append,
            lambda *_: pytest.fail("was scored"),
        )
    assert not loaded


def test_unwritable_folder_is_refused_before_anything_is_scored(model, tasks, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="record_to"):
        record_command_line(arguments("diffharness", model, tasks, record_to=tmp_path / "file" / "record"))


def test_scores_are_kept_where_lm_eval_loses_its_own_to_an_unwritable_output_path(model, tasks, tmp_path):
    (tmp_path / "file").write_text("")
    more = ["--limit", "2", "--log_samples", "--output_path", str(tmp_path / "file" / "out")]
    record_command_line(arguments("diffharness", model, tasks, *more, record_to=tmp_path / "record"))
    assert len(Evaluation.load(tmp_path / "record").documents) == 6
    assert not list(tmp_path.rglob("results_*.json"))
