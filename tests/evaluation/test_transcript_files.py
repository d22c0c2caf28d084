"""Folders of plain lm-eval that can not be used, or only in part: one line that names the thing and the remedy."""

import json
import shutil

import pytest

from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.transcript_files import find_results
from diffharness.evaluation.transcript_options import load_recorded_tasks, results_options
from diffharness.evaluation.transcripts import read_transcript
from tests.evaluation import plain
from tests.tiny import write_jsonl

TASKS = ["tiny_word", "tiny_answer"]


@pytest.fixture(scope="module")
def good(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("good") / "out"
    return plain.run(tiny.baseline, output, TASKS, tiny.tasks, limit=3)


@pytest.fixture
def output(good, tmp_path):
    """A copy to be spoiled."""
    return shutil.copytree(good, tmp_path / "out")


def read(output, tiny, models, include=None):
    files = find_results(output)
    return read_transcript(files, models[0], load_recorded_tasks(files, [include or tiny.tasks]))


def body_of(output):
    file = find_results(output).results
    return file, json.loads(file.read_text())


def change(output, task, **values):
    """Other values in the second line of a task's samples."""
    file = find_results(output).samples[task]
    lines = file.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **values})
    file.write_text("\n".join(lines) + "\n")


def refused(match):
    return pytest.raises(UsageError, match=match)


def test_limited_run_is_read_with_its_limit(output, tiny, tiny_models):
    found = read(output, tiny, tiny_models)
    assert found.settings["limit"] == results_options(find_results(output), "baseline")["limit"] == 3
    assert "samples" not in found.settings["protocol"]
    assert [d.doc_id for d in found.documents] == [0, 1, 2] * 2
    assert len(found.ledger) == 6


def test_hidden_folders_are_found_and_of_several_runs_the_newest(output, tiny):
    model_folder = next(output.iterdir())
    hidden = model_folder.rename(output / "..__shared__model")
    assert find_results(output).results.parent == hidden
    plain.run(tiny.baseline, output, ["tiny_word"], tiny.tasks, limit=1)
    found = find_results(output)
    assert found.tasks == ("tiny_word",)
    assert "holds 2 runs; the newest" in found.notes[0]
    assert "those of the others (tiny_answer)" in found.notes[0]


def test_folder_without_results_is_refused(tmp_path):
    with refused(r"nowhere is not a folder; give the --output_path"):
        find_results(tmp_path / "nowhere")
    with refused(r"holds no results of lm-eval; write them with .*--log_samples"):
        find_results(tmp_path)
    (tmp_path / "results_2026-01-01T00-00-00.000001.json").write_text('{"results": {"a"')
    with refused(r"results_2026-01-01T00-00-00.000001.json is not a whole results file"):
        find_results(tmp_path)
    (tmp_path / "results_2026-01-01T00-00-00.000001.json").write_text("[]")
    with refused("is not a"):
        find_results(tmp_path)


def test_results_without_samples_are_refused(output):
    files = find_results(output)
    files.samples["tiny_answer"].unlink()
    with refused("has no samples of task 'tiny_answer' beside it"):
        find_results(output)
    files.samples["tiny_word"].unlink()
    with refused("has no samples beside it; run lm-eval again with `--log_samples`"):
        find_results(output)


def test_results_of_two_models_are_refused(output, tiny):
    plain.run(tiny.candidate, output, ["tiny_word"], tiny.tasks, limit=1)
    with refused(r"holds results of 2 models: .*candidate \(hf\).*; give the folder of one, as "):
        find_results(output)


def test_samples_cut_off_are_refused_with_file_and_line(output, tiny, tiny_models):
    file = find_results(output).samples["tiny_word"]
    text = file.read_text()
    file.write_text(text[:-40])
    with refused(r"samples_tiny_word_.*jsonl, line 3 is no sample of a loglikelihood task"):
        read(output, tiny, tiny_models)
    file.write_text("".join(text.splitlines(keepends=True)[:2]))
    with refused("holds 2 samples where lm-eval wrote 3; it was cut off"):
        read(output, tiny, tiny_models)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"resps": [[["__import__('os')", "False"]]]}, "line 2 is no sample .*could not convert string to float"),
        ({"resps": [[["-1.0", "maybe"]]]}, "line 2 is no sample .*is_greedy is 'maybe'"),
        ({"resps": []}, "line 2 is no sample .*0 responses to 1 requests"),
        ({"arguments": {"gen_args_0": {"arg_1": " x"}}}, "line 2 is no sample .*no 'arg_0'"),
        ({"doc_hash": "0"}, "is not the file that results_"),
        ({"arguments": {"gen_args_0": {"arg_0": "another", "arg_1": " x"}}}, "the prompt of document 1 is not the one"),
    ],
)  # fmt: skip
def test_altered_samples_are_refused(output, tiny, tiny_models, values, match):
    change(output, "tiny_word", **values)
    with refused(match):
        read(output, tiny, tiny_models)


def test_separators_that_json_does_not_escape_do_not_cut_a_line(output):
    files = find_results(output)
    file = files.samples["tiny_answer"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["resps"] = [["one\u2028two\x85three"]]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    assert files.read("tiny_answer")[0]["resps"] == [["one\u2028two\x85three"]]


def test_task_with_other_documents_is_refused(output, tiny, tiny_models, tmp_path):
    tasks = shutil.copytree(tiny.tasks, tmp_path / "tasks")
    rows = [json.loads(line) for line in (tasks / "tiny_word.jsonl").read_text().splitlines()]
    data = write_jsonl(tasks / "changed.jsonl", [rows[0], {**rows[1], "word": "bad"}, *rows[2:]])
    yaml = tasks / "tiny_word.yaml"
    yaml.write_text(yaml.read_text().replace(str(tiny.tasks / "tiny_word.jsonl"), str(data)))
    with refused(r"task 'tiny_word' has other documents here .*1 of 3 differ, first document 1\)"):
        read(output, tiny, tiny_models, tasks)


def test_documents_that_lm_eval_numbered_wrongly_are_refused(tiny, tiny_models, tmp_path):
    output = plain.run(tiny.baseline, tmp_path / "out", ["tiny_word"], tiny.tasks, samples={"tiny_word": [5, 2]})
    with refused("'tiny_word' are numbered in another order .*sorted --samples"):
        read(output, tiny, tiny_models)


def test_tasks_that_this_machine_does_not_have_are_named_with_where_they_were(output, tiny, tiny_models, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tiny.tasks / "tiny_word.yaml", other)
    files = find_results(output)
    with refused(rf"task 'tiny_answer' is unknown.*--include-path \(they were in {tiny.tasks}\)"):
        load_recorded_tasks(files, [other])
    with refused("results of task 'tiny_answer', which was not loaded"):
        read_transcript(files, tiny_models[0], harness.load_tasks(["tiny_word"], [other]))


def test_prompts_that_would_differ_today_are_counted(output, tiny, tiny_models, tmp_path):
    tasks = shutil.copytree(tiny.tasks, tmp_path / "tasks")
    yaml = tasks / "tiny_word.yaml"
    yaml.write_text(yaml.read_text().replace("{{prompt}}", "then {{prompt}}"))
    found = read(output, tiny, tiny_models, tasks)
    assert any("tiny_word: lm-eval would ask 3 of 3 documents otherwise" in note for note in found.settings["notes"])


def test_run_without_scores_is_refused(tiny, tiny_models, tmp_path):
    output = plain.run(tiny.baseline, tmp_path / "out", ["tiny_word"], tiny.tasks, limit=2, predict_only=True)
    with refused("written with --predict_only and has no scores"):
        read(output, tiny, tiny_models)


def test_answers_that_the_replay_model_has_no_room_for_are_refused(output, tiny, tiny_models, monkeypatch):
    monkeypatch.setattr(tiny_models[0], "_max_length", 5)
    with refused(r"do not fit the replay model \(Invalid configuration: .*\); give the weights that answered them"):
        read(output, tiny, tiny_models)


def test_model_arguments_are_taken_over_but_for_foreign_code(output, tiny):
    file, body = body_of(output)
    body["config"]["model_args"] = {"pretrained": "org/name", "dtype": "float16", "trust_remote_code": True}
    file.write_text(json.dumps(body))
    options = results_options(find_results(output), "candidate")
    assert options["candidate"] == "pretrained=org/name,dtype=float16"
    assert "trust_remote_code" in options["notes"][0]
    body["config"]["model_args"] = {"pretrained": "org/name", "stop": ["a", "b"]}
    file.write_text(json.dumps(body))
    with refused(r"model argument stop=\['a', 'b'\] can not be given .* --replay-candidate"):
        results_options(find_results(output), "candidate")


def test_chats_sent_to_an_api_are_rendered_with_the_replay_models_template(output, tiny, tiny_models, monkeypatch):
    import hashlib

    chat = json.dumps([{"role": "user", "content": "the dog"}])
    change(
        output, "tiny_answer", prompt_hash=hashlib.sha256(chat.encode()).hexdigest(),
        arguments={"gen_args_0": {"arg_0": [chat], "arg_1": {"until": ["."], "max_gen_toks": 6}}},
    )  # fmt: skip
    file, body = body_of(output)
    del body["task_hashes"]
    file.write_text(json.dumps(body))
    with refused("sent chats to an API, which the replay model's chat template can not render"):
        read(output, tiny, tiny_models)
    monkeypatch.setattr(tiny_models[0].hf_tokenizer, "chat_template", "{{ messages[0].content }} then")
    found = read(output, tiny, tiny_models)
    reading = next(r for r in found.ledger if (r.task, r.doc_id) == ("tiny_answer", 1))
    assert list(reading.ids[: reading.start + 1]) == tiny_models[0].tok_encode("the dog then")
    assert any("1 prompts were sent to an API as chats" in note for note in found.settings["notes"])
