"""Each known hazard of lm-eval 0.4.13 and how it is met."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch

from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.gathering import gather
from diffharness.evaluation.grouping import wrongly_grouped
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.recording import RecordingModel
from tests.evaluation.recomputation import assert_recomputable, log_likelihood
from tests.tiny import metrics, save_model, write_task

LONG = "the dog runs in the house and the cat sleeps under a red tree night day it is good then old new bird sings"


def ask(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> harness.LoadedTasks:
    write_task(folder, name, rows, **settings)
    return harness.load_tasks([name], [folder])


def ask_words(folder: Path, pairs: list[tuple[str, str]]) -> harness.LoadedTasks:
    return ask(
        folder, "words", [{"prompt": p, "word": w} for p, w in pairs], output_type="loglikelihood",
        doc_to_text="{{prompt}}", doc_to_target=" {{word}}", metric_list=metrics("acc"),
    )  # fmt: skip


def ask_texts(folder: Path, texts: list[str]) -> harness.LoadedTasks:
    return ask(
        folder, "texts", [{"text": t} for t in texts], output_type="loglikelihood_rolling", doc_to_text="",
        doc_to_target="{{text}}", metric_list=metrics("bits_per_byte", higher_is_better=False),
    )  # fmt: skip


def ask_answers(folder: Path, prompts: list[str], **generation: Any) -> harness.LoadedTasks:
    repeats = generation.pop("repeats", 1)
    return ask(
        folder, "answers", [{"prompt": p} for p in prompts], output_type="generate_until", doc_to_text="{{prompt}}",
        doc_to_target="night", repeats=repeats, generation_kwargs={"until": ["."], "max_gen_toks": 6, **generation},
        metric_list=metrics("exact_match"),
    )  # fmt: skip


def plain(tiny, tasks: harness.LoadedTasks, **arguments: Any) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(tiny.baseline), **arguments}, batch_size=4, device="cpu",
        tasks=list(tasks.tasks.values()), task_manager=tasks.manager, bootstrap_iters=0,
    )  # fmt: skip
    assert found is not None
    return dict(found)


def responses(results: dict[str, Any], task: str) -> list[float]:
    answers = [s["resps"][0][0] for s in results["samples"][task]]
    return [a[0] if isinstance(a, tuple) else a for a in answers]


def test_use_cache_is_refused_before_anything_is_scored(tiny_models, tiny_tasks, tmp_path):
    tiny_models[0].clear_ledger()
    with pytest.raises(UsageError, match="--use_cache answers requests without the model"):
        lm_eval.simple_evaluate(
            model=tiny_models[0], tasks=[tiny_tasks.tasks["tiny_word"]], task_manager=tiny_tasks.manager,
            use_cache=str(tmp_path / "cache"), bootstrap_iters=0,
        )  # fmt: skip
    assert len(tiny_models[0].ledger()) == 0


def test_answers_that_a_cache_gave_are_missed_by_name(tiny_evaluations):
    ledger = tiny_evaluations[0].ledger
    asked = {(r.task, r.doc_id, r.index, r.repeat) for r in ledger}
    short = Ledger(r for r in ledger if (r.task, r.doc_id) != ("tiny_word", 7))
    ledger.check_complete(asked)
    with pytest.raises(RunError, match=r"short of 1 requests: task 'tiny_word', document 7, request 0"):
        short.check_complete(asked)


def test_repeats_are_recorded_each_with_its_own_answer(tiny_models, tmp_path):
    tasks = ask_answers(tmp_path, ["the dog", "a cat", "the dog"], repeats=4, do_sample=True, temperature=1.0)
    evaluation, results = harness.evaluate(tiny_models[0], tasks)
    documents = evaluation.ledger.by_document("answers")
    assert [len(rows) for rows in documents.values()] == [4, 4, 4]
    answers = {s["doc_id"]: s["resps"][0] for s in results["samples"]["answers"]}
    for doc_id, rows in documents.items():
        texts = [tiny_models[0].tok_decode(list(r.targets)).split(".")[0] for r in rows]
        assert texts == answers[doc_id]
        assert len(set(texts)) > 1, "sampled, so that a mix-up would show"


@pytest.mark.parametrize("chosen", [[5, 2, 9], [2, 2, 5]])
def test_unsorted_samples_are_sorted_or_refused_because_lm_eval_numbers_documents_wrongly(
    tiny_models, tiny_tasks, tiny_evaluations, chosen
):
    asked = {"samples": {"tiny_word": chosen}}
    found, _ = harness.evaluate(tiny_models[0], tiny_tasks, only=["tiny_word"], protocol=asked)
    whole = tiny_evaluations[0].of("tiny_word", "none")
    documents = found.of("tiny_word", "none")
    assert {i: d.doc_hash for i, d in documents.items()} == {i: whole[i].doc_hash for i in sorted(set(chosen))}
    task = tiny_tasks.tasks["tiny_word"]
    tiny_models[0].clear_ledger()
    results = lm_eval.simple_evaluate(
        model=tiny_models[0], tasks=[task], task_manager=tiny_tasks.manager, bootstrap_iters=0, **asked
    )
    with pytest.raises(RunError, match="`samples` was not sorted or names one twice"):
        gather(tiny_models[0], {"tiny_word": task}, dict(results), model_args="", settings={})


def test_chosen_samples_have_the_same_numbers_in_ledger_and_documents(tiny_models, tiny_tasks, tiny_evaluations):
    chosen = {"tiny_choice": [1, 4, 11], "tiny_text": [0, 7], "tiny_answer": [3]}
    found, results = harness.evaluate(tiny_models[0], tiny_tasks, protocol={"samples": chosen})
    for task, numbers in {**chosen, "tiny_word": list(range(12))}.items():
        documents = found.of(task, "none")
        assert list(documents) == list(found.ledger.by_document(task)) == numbers
        whole = tiny_evaluations[0].of(task, "none")
        assert all(documents[i].doc_hash == whole[i].doc_hash for i in numbers)
        before, after = (e.ledger.by_document(task) for e in (tiny_evaluations[0], found))
        assert {i: [r.ids for r in before[i]] for i in numbers} == {i: [r.ids for r in after[i]] for i in numbers}
    assert_recomputable(tiny_models[0], found, results)


def test_grouped_requests_split_at_different_points_get_the_right_log_likelihood(tiny, tiny_models, tmp_path):
    pairs = [("the dog", "cat runs"), ("the dog cat", "bird"), ("the dog cat", "red"), ("a night", "is good")]
    tasks = ask_words(tmp_path, pairs)
    evaluation, results = harness.evaluate(tiny_models[0], tasks)
    theirs = responses(plain(tiny, tasks), "words")
    uncached = responses(plain(tiny, tasks, logits_cache=False), "words")
    ours = responses(results, "words")
    assert evaluation.ledger.rescored_documents("words") == [1, 2]
    for i, (reading,) in evaluation.ledger.by_document("words").items():
        right = log_likelihood(tiny_models[0], reading)
        assert reading.log_likelihood == ours[i] == pytest.approx(right, abs=1e-5)
        assert ours[i] == pytest.approx(uncached[i], abs=1e-5)
        if i in (1, 2):
            assert reading.plain_log_likelihood == theirs[i]
            assert abs(theirs[i] - right) > 0.01, "plain lm-eval is wrong"
        else:
            assert reading.plain_log_likelihood is None
            assert ours[i] == theirs[i], "what is right stays as it was, to the bit"
    assert_recomputable(tiny_models[0], evaluation, results)


def test_coinciding_rolling_windows_get_the_right_log_likelihood(tiny, tiny_models, tmp_path):
    words = f"{LONG} {LONG}".split()
    tail = words[:33]
    tasks = ask_texts(tmp_path, [" ".join([*words[4 : 4 + n], *tail]) for n in (3, 7)] + ["the dog runs"])
    evaluation, results = harness.evaluate(tiny_models[0], tasks)
    theirs, ours = responses(plain(tiny, tasks), "texts"), responses(results, "texts")
    assert evaluation.ledger.rescored_documents("texts") == [0]
    documents = evaluation.ledger.by_document("texts")
    assert [r.plain_log_likelihood is None for r in documents[0]] == [True, False]
    assert abs(ours[0] - theirs[0]) > 0.01
    assert ours[1:] == theirs[1:]
    right, wrong = documents[0][1].log_likelihood, documents[0][1].plain_log_likelihood
    assert right is not None
    assert wrong is not None
    difference = right - wrong
    assert ours[0] - theirs[0] == pytest.approx(difference, abs=1e-5)
    assert_recomputable(tiny_models[0], evaluation, results)


def test_wrong_groups_are_found_from_the_requests_alone():
    requests = [(None, [1, 2], [3, 4]), (None, [1, 2, 3], [9]), (None, [1, 2], [3, 8]), (None, [1], [2, 3])]
    assert wrongly_grouped(requests) == [1]
    assert wrongly_grouped([requests[0], requests[2], requests[3]]) == []
    assert wrongly_grouped([*requests[:3], (None, [1], [2, 3, 5])]) == [0, 1, 2]


def test_rescoring_leaves_automatic_batch_sizes_as_they_are(tiny, tmp_path):
    model = harness.create_model(
        {"pretrained": str(tiny.baseline)}, {"batch_size": "auto", "max_batch_size": 4, "device": "cpu"}
    )
    tasks = ask_words(tmp_path, [("the dog", "cat runs"), ("the dog cat", "bird"), ("a", "night")])
    evaluation, results = harness.evaluate(model, tasks)
    assert evaluation.ledger.rescored_documents("words") == [1]
    assert results["config"]["batch_sizes"] == [4]
    assert model.logits_cache
    assert_recomputable(model, evaluation, results)


def test_batch_size_moves_neither_what_was_read_nor_float32_scores(tiny, tiny_tasks, tiny_evaluations):
    apart = RecordingModel(str(tiny.baseline), batch_size=1, device="cpu")
    one, _ = harness.evaluate(apart, tiny_tasks)
    for a, b in zip(one.ledger, tiny_evaluations[0].ledger, strict=True):
        assert dataclasses.replace(a, log_likelihood=None) == dataclasses.replace(b, log_likelihood=None)
        assert (a.log_likelihood is None) == (b.log_likelihood is None)
        assert a.log_likelihood is None or a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-4)


def test_padding_of_a_batch_is_in_no_reading(tiny_models, tmp_path):
    prompts = ["the", LONG, "a dog runs"]
    tasks = ask_answers(tmp_path, prompts)
    evaluation, results = harness.evaluate(tiny_models[0], tasks)
    for i, (reading,) in evaluation.ledger.by_document("answers").items():
        assert list(reading.ids[: reading.start + 1]) == tiny_models[0].tok_encode(prompts[i])
    assert_recomputable(tiny_models[0], evaluation, results)


def test_generated_ids_are_not_what_the_answers_text_would_be_tokenised_to(tmp_path):
    model = RecordingModel(str(_parrot(tmp_path / "parrot", "dog runs <unk> sings old")), batch_size=2, device="cpu")
    evaluation, results = harness.evaluate(model, ask_answers(tmp_path, ["the dog"]))
    (reading,) = evaluation.ledger
    (answer,) = results["samples"]["answers"][0]["resps"][0]
    words = [model.tok_decode([i], skip_special_tokens=False) for i in reading.targets]
    assert words == ["runs", "<unk>", "sings", "old", "old", "old"]
    assert answer.split() == ["runs", "sings", "old", "old", "old"]
    assert model.tok_encode(answer, add_special_tokens=False) != list(reading.targets)
    assert not reading.retokenised
    assert_recomputable(model, evaluation, results)


def test_stop_inside_a_real_tokenizers_token_is_recorded_with_the_whole_token(real, tmp_path):
    model = RecordingModel(str(real / "models" / "stories260K"), batch_size=4, device="cpu")
    prompts = ["Once upon a time, there was a little", "Lily and Tom went to", "One day"]
    tasks = ask_answers(tmp_path, prompts, until=[". The"], max_gen_toks=24, do_sample=False)
    evaluation, results = harness.evaluate(model, tasks)
    ends = [model.tok_decode(list(r.targets)) for r in evaluation.ledger]
    answers = [s["resps"][0][0] for s in results["samples"]["answers"]]
    assert any(text == f"{answer}. They" for text, answer in zip(ends, answers, strict=True))
    assert_recomputable(model, evaluation, results)


def test_same_prompt_under_different_generation_arguments_keeps_its_own_answer(tiny, tiny_models, tmp_path):
    for name, n in (("short", 2), ("long", 6)):
        write_task(
            tmp_path, name, [{"prompt": p} for p in ("the dog", "a cat", "the dog")], output_type="generate_until",
            doc_to_text="{{prompt}}", doc_to_target="night", generation_kwargs={"until": [], "max_gen_toks": n},
            metric_list=metrics("exact_match"),
        )  # fmt: skip
    tasks = harness.load_tasks(["long", "short"], [tmp_path])
    evaluation, results = harness.evaluate(tiny_models[0], tasks)
    assert {r.task: len(r.targets) for r in evaluation.ledger} == {"short": 2, "long": 6}
    assert_recomputable(tiny_models[0], evaluation, results)


@pytest.mark.parametrize(("think_end", "n", "answer"), [(None, 2, "runs "), ("sings", 5, "red "), ("id", 5, "red ")])
def test_thinking_is_recorded_and_stops_count_after_it(tmp_path, think_end, n, answer):
    """One row thinks `runs .` and answers `red ?`; another goes on, so that the first is not cut at its first stop."""
    folder = _parrot(tmp_path / "parrot", "dog runs . sings red ? blue", "cat old")
    if think_end == "id":
        think_end = RecordingModel(str(folder), device="cpu").tok_encode("sings", add_special_tokens=False)[0]
    more = {} if think_end is None else {"think_end_token": think_end, "enable_thinking": True}
    model = RecordingModel(str(folder), batch_size=2, device="cpu", **more)
    tasks = ask_answers(tmp_path, ["dog", "the cat"], until=[".", "?"], max_gen_toks=8)
    evaluation, results = harness.evaluate(model, tasks)
    first, second = evaluation.ledger
    assert model.tok_decode(list(first.targets)).split() == ["runs", ".", "sings", "red", "?"][:n]
    assert model.tok_decode(list(second.targets)).split() == ["old"] * 8
    assert [s["resps"][0][0] for s in results["samples"]["answers"]] == [answer, " ".join(["old"] * 8)]
    assert_recomputable(model, evaluation, results)
    if more:
        with pytest.raises(RunError, match="enable_thinking=True is not compatible with loglikelihood tasks"):
            harness.evaluate(model, ask_words(tmp_path, [("the", "dog")]))


@pytest.mark.parametrize("ends", [2, [6, 2]])
def test_answer_ends_with_the_end_of_text_that_the_model_chose_and_without_padding(tmp_path, ends):
    """Models may name several ends of text, of which the tokenizer knows one; what follows is padding."""
    last = "<eos>" if ends == 2 else "dog"
    folder = _parrot(tmp_path / "parrot", f"bird runs {last}", "cat old")
    model = RecordingModel(str(folder), batch_size=2, device="cpu")
    model.hf_model.generation_config.eos_token_id = ends
    evaluation, _ = harness.evaluate(model, ask_answers(tmp_path, ["bird", "cat"], until=[]))
    first, second = evaluation.ledger
    assert model.tok_decode(list(first.targets), skip_special_tokens=False).split() == ["runs", last]
    assert len(second.targets) == 6


def test_what_is_scored_on_several_processes_is_refused(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2: .* start one process, without `accelerate launch`"):
        harness.load_model(str(tiny.baseline), batch_size=1, device="cpu")


def _parrot(folder: Path, *chains: str) -> Path:
    """A model that looks at the last word only, and says the one that follows it in a chain; its last for ever."""
    from transformers import LlamaForCausalLM

    from tests.tiny import tokenizer

    save_model(folder, seed=0, hidden_size=64)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.copy_(torch.eye(model.config.vocab_size, 64))
        for chain in chains:
            ids = tokenizer()(chain, add_special_tokens=False)["input_ids"]
            for now, following in zip(ids, [*ids[1:], ids[-1]], strict=True):
                model.lm_head.weight[following, now] = 1.0
    model.save_pretrained(folder)
    return folder
