"""Runs of plain lm-eval, read back: scores to the bit, and the ledger that recording would have given."""

import json
import shutil
from copy import copy
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.scores import Evaluation
from diffharness.evaluation.transcript_files import find_results
from diffharness.evaluation.transcript_options import load_recorded_tasks, results_options
from diffharness.evaluation.transcripts import read_transcript
from tests.evaluation import plain
from tests.tiny import metrics, write_task

MORE = ["tiny_shots", "tiny_classes", "tiny_filters", "tiny_short", "tiny_split"]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny tasks, and some whose files are odd."""
    folder = shutil.copytree(tiny.tasks, tmp_path_factory.mktemp("plain") / "tasks")
    rows = [json.loads(line) for line in (folder / "tiny_choice.jsonl").read_text().splitlines()]
    choice = {"doc_to_text": "{{prompt}}", "doc_to_target": "gold", "doc_to_choice": "choices"}
    choice["output_type"] = "multiple_choice"
    few = {"num_fewshot": 2, "fewshot_split": "test", "metric_list": metrics("acc")}
    write_task(folder, "tiny_shots", rows, **choice, **few)
    names = ("acc", "brier_score", "acc_mutual_info", "f1")
    write_task(folder, "tiny_classes", rows, **choice, metric_list=[{"metric": name} for name in names])
    write_task(
        folder, "tiny_filters", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        repeats=2, generation_kwargs={"until": ["."], "max_gen_toks": 4, "do_sample": False},
        metric_list=metrics("exact_match"),
        filter_list=[
            {"name": "first", "filter": [{"function": "take_first"}]},
            {"name": "upper", "filter": [{"function": "uppercase"}, {"function": "take_first"}]},
        ],
    )  # fmt: skip
    write_task(
        folder, "tiny_short", rows, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{prompt}}",
        metric_list=metrics("bits_per_byte", higher_is_better=False),
    )  # fmt: skip
    splits = [("the dog", " runs in house"), ("the dog runs", " in house")]
    write_task(
        folder, "tiny_split", [{"prompt": p, "end": e} for p, e in splits], output_type="loglikelihood",
        doc_to_text="{{prompt}}", doc_to_target="{{end}}", metric_list=metrics("acc"),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def everything(folder):
    return harness.load_tasks(["tiny", *MORE], [folder])


@pytest.fixture(scope="module")
def files(tiny, folder, tmp_path_factory):
    return find_results(plain.run(tiny.baseline, tmp_path_factory.mktemp("hf"), ["tiny", *MORE], folder))


@pytest.fixture(scope="module")
def read(files, tiny_models, everything):
    return read_transcript(files, tiny_models[0], everything)


@pytest.fixture(scope="module")
def recorded(tiny_models, everything):
    return harness.evaluate(tiny_models[0], everything)[0]


def by_key(evaluation: Evaluation):
    return {(r.task, r.doc_id, r.index, r.repeat, r.window): r for r in evaluation.ledger}


def test_scores_and_documents_are_those_of_a_recording_to_the_bit(read, recorded):
    assert {info.name for info in read.tasks} == {info.name for info in recorded.tasks}
    for info in read.tasks:
        assert info == recorded.task(info.name)
        assert [d for d in read.documents if d.task == info.name] == [
            d for d in recorded.documents if d.task == info.name
        ]


def test_ledger_of_log_likelihoods_is_that_of_a_recording(read, recorded):
    own, reference = by_key(read), by_key(recorded)
    assert own.keys() == reference.keys()
    for key, reading in own.items():
        if reading.kind == "loglikelihood":
            assert reading == reference[key]
    assert {r.log_likelihood is None for r in own.values() if r.kind == "loglikelihood"} == {False}


def test_rolling_texts_have_their_windows_and_the_sum_of_several(read, recorded):
    own, reference = by_key(read), by_key(recorded)
    for key, reading in own.items():
        if reading.kind == "loglikelihood_rolling":
            one = reading.task == "tiny_short"
            expected = replace(
                reference[key], greedy=None, log_likelihood=reference[key].log_likelihood if one else None
            )
            assert reading == expected
    sums = read.settings["rolling_log_likelihood"]
    assert list(sums) == ["tiny_text"]
    for doc_id, windows in recorded.ledger.by_document("tiny_text").items():
        assert sums["tiny_text"][str(doc_id)] == sum(r.log_likelihood for r in windows)


def test_answers_are_re_tokenised_after_the_recorded_prompt_and_marked(read, recorded, tiny_models):
    own, reference = by_key(read), by_key(recorded)
    model, same = tiny_models[0], 0
    for key, reading in own.items():
        if reading.kind != "generate_until":
            continue
        true = reference[key]
        assert reading.retokenised
        assert (reading.start, reading.truncated) == (true.start, true.truncated)
        assert reading.ids[: reading.start + 1] == true.ids[: true.start + 1]
        if model.hf_tokenizer.unk_token_id not in true.targets:
            assert reading.targets == true.targets, "with its stop, which is in no file"
            same += 1
    assert same > 10, "answers of known words"
    assert {key[3] for key in own if key[0] == "tiny_filters"} == {0, 1}


def test_requests_that_lm_evals_grouping_got_wrong_keep_both_values(read, recorded):
    plain_value = {r.doc_id: r.plain_log_likelihood for r in read.ledger if r.task == "tiny_split"}
    assert plain_value == {r.doc_id: r.plain_log_likelihood for r in recorded.ledger if r.task == "tiny_split"}
    assert plain_value[1] is not None
    assert any("scored on the wrong tokens" in note for note in read.settings["notes"])


def test_what_is_not_exact_is_said_and_nothing_else(read):
    found = "\n".join(read.settings["notes"])
    for part in (
        "re-tokenised in 36 of 36 answers",
        "the stop is what the replay model finds most likely next",
        "12 rolling texts take several windows",
        "brier_score: the files hold rounded values",
    ):
        assert part in found
    for part in ("otherwise here", "replayed with Hugging Face", "the context was", "token was"):
        assert part not in found


def test_transcript_is_saved_and_loaded_like_a_recording(read, tmp_path):
    read.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert loaded.documents == read.documents
    assert by_key(loaded) == by_key(read)
    assert loaded.settings == read.settings


def test_model_is_as_it_was(files, tiny_models, everything):
    model = tiny_models[0]
    model.clear_ledger()
    before = {name: copy(value) if isinstance(value, list | dict) else value for name, value in vars(model).items()}
    read_transcript(files, model, everything)
    assert vars(model) == before
    assert len(model.ledger()) == 0


def test_another_engine_is_replayed_with_given_weights(tiny, tiny_models, folder, everything, recorded, tmp_path):
    tasks = ["tiny"]
    files = find_results(plain.run(tiny.baseline, tmp_path, tasks, folder, engine="tiny-engine", limit=5))
    with pytest.raises(UsageError, match=r"'tiny-engine'.* give Hugging Face weights with --replay-candidate"):
        results_options(files, "candidate")
    assert results_options(files, "candidate", replay="org/weights")["candidate"] == "org/weights"
    found = read_transcript(files, tiny_models[0], load_recorded_tasks(files, [folder]))
    reference = by_key(recorded)
    assert len(found.ledger) == 5 * (2 + 1 + 2 + 1)
    for key, reading in by_key(found).items():
        true = reference[key]
        if reading.kind != "generate_until":
            assert (reading.ids, reading.start, reading.targets) == (true.ids, true.start, true.targets)
        if reading.log_likelihood is not None:
            assert reading.log_likelihood == pytest.approx(true.log_likelihood, abs=1e-4)
            assert reading.greedy == true.greedy
    assert found.settings["engine"] == "tiny-engine"
    assert any("scored by tiny-engine" in note for note in found.settings["notes"])


def test_chats_chosen_documents_and_shots_are_asked_again_in_the_same_way(tiny, folder, tmp_path):
    chatty = shutil.copytree(tiny.baseline, tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(chatty)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}then"
    tokenizer.save_pretrained(chatty)
    samples = {"tiny_shots": [1, 4, 7]}
    files = find_results(
        plain.run(
            chatty, tmp_path / "out", ["tiny_shots", "tiny_answer"], folder, apply_chat_template=True, num_fewshot=1,
            system_instruction="the good", fewshot_as_multiturn=True, fewshot_random_seed=7, samples=samples,
            gen_kwargs="max_gen_toks=3",
        )
    )  # fmt: skip
    options = results_options(files, "baseline")
    assert options["baseline"] == str(chatty)
    assert options["batch_size"] == 4
    assert options["protocol"]["samples"] == samples
    assert "num_fewshot" not in options["protocol"], "1 and 0 shots: only the tasks tell what was asked for"
    tasks = load_recorded_tasks(files, [folder])
    options = results_options(files, "baseline", tasks=tasks)
    model = harness.load_model(options["baseline"], batch_size=4, device="cpu")
    found = read_transcript(files, model, tasks)
    assert not any("otherwise here" in note for note in found.settings["notes"]), found.settings["notes"]
    again = harness.evaluate(model, tasks, protocol=options["protocol"])[0]
    assert found.documents == again.documents
    own, reference = by_key(found), by_key(again)
    assert own.keys() == reference.keys()
    assert {key[1] for key in own if key[0] == "tiny_shots"} == {1, 4, 7}
    assert all(r == reference[key] for key, r in own.items() if r.task == "tiny_shots")
