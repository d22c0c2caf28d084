"""Every way in which lm-eval asks: the ledger gives its answers, and the scores are plain lm-eval's to the bit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from transformers import AutoTokenizer

from diffharness.evaluation import harness
from diffharness.evaluation.ledger import Reading
from tests.evaluation.recomputation import assert_recomputable
from tests.tiny import save_model, write_task

TEMPLATE = (
    "{% for m in messages %}{{ {'system': 'one', 'user': 'two', 'assistant': 'three'}[m['role']] }} : "
    "{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}three :{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory) -> Path:
    """A tiny model with a chat template and room for a few shots."""
    folder = save_model(tmp_path_factory.mktemp("chat") / "model", seed=3, max_position_embeddings=96)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def asked(tiny, tmp_path_factory) -> harness.LoadedTasks:
    """A task of every output type that lets itself be given shots."""
    folder = tmp_path_factory.mktemp("asked")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()][:4]
    common: dict[str, Any] = {"num_fewshot": 2, "fewshot_split": "test", "doc_to_text": "{{prompt}}"}
    choice = {**common, "output_type": "multiple_choice", "doc_to_target": "gold", "doc_to_choice": "choices"}
    generation = {"until": ["."], "max_gen_toks": 6, "do_sample": False}
    tasks: dict[str, dict[str, Any]] = {
        "asked_choice": {**choice, "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]},
        "asked_information": {**choice, "metric_list": [{"metric": "acc_mutual_info"}, {"metric": "acc"}]},
        "asked_word": {
            **common, "output_type": "loglikelihood", "doc_to_target": " {{word}}",
            "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
        },
        "asked_text": {
            **common, "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "asked_answer": {
            **common, "output_type": "generate_until", "doc_to_target": "{{word}}", "generation_kwargs": generation,
            "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    for name, settings in tasks.items():
        write_task(folder, name, rows, **settings)
    return harness.load_tasks(list(tasks), [folder])


@dataclass(frozen=True)
class Way:
    model: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


CHAT = {"apply_chat_template": True}
WAYS = {
    "one shot": Way(protocol={"num_fewshot": 1}),
    "two shots": Way(),
    "chat, shots as turns": Way(protocol={**CHAT, "fewshot_as_multiturn": True}),
    "chat, shots in one turn": Way(protocol={**CHAT, "fewshot_as_multiturn": False}),
    "system instruction": Way(protocol={**CHAT, "system_instruction": "the bird sings"}),
    "no prefix token": Way({"add_bos_token": False}),
    "prefix token": Way({"add_bos_token": True, "prefix_token_id": 7}),
    "cut from the left": Way({"max_length": 10}),
    "automatic batch size": Way(options={"batch_size": "auto", "max_batch_size": 4}),
    "automatic batch size, again and again": Way(options={"batch_size": "auto:2", "max_batch_size": 4}),
    "no grouping": Way({"logits_cache": False}),
    "generation arguments": Way(protocol={"gen_kwargs": {"max_gen_toks": 3, "until": ["the", "?"]}}),
}


def recorded(folder: Path, asked: harness.LoadedTasks, way: Way):
    arguments = {"pretrained": str(folder), **way.model}
    options = {"batch_size": 4, "device": "cpu", **way.options}
    protocol = {"num_fewshot": 2, **way.protocol}
    model = harness.create_model(arguments, options)
    evaluation, results = harness.evaluate(model, asked, protocol=protocol)
    plain = lm_eval.simple_evaluate(
        model="hf", model_args=arguments, **options, tasks=list(asked.tasks.values()), task_manager=asked.manager,
        bootstrap_iters=0, **protocol,
    )  # fmt: skip
    assert plain is not None
    return model, evaluation, results, plain


@pytest.mark.parametrize("name", WAYS)
def test_answers_follow_from_the_ledger_and_are_plain_lm_evals(chat_model, asked, name):
    model, evaluation, results, plain = recorded(chat_model, asked, WAYS[name])
    assert_recomputable(model, evaluation, results)
    for task in asked.names:
        assert results["results"][task] == plain["results"][task]
        assert [s["resps"] for s in results["samples"][task]] == [s["resps"] for s in plain["samples"][task]]
        assert not evaluation.ledger.rescored_documents(task)
    _assert_way(name, list(evaluation.ledger), model)


def _assert_way(name: str, readings: list[Reading], model) -> None:
    """That the way was really taken."""
    by_task = {task: [r for r in readings if r.task == task] for task in {r.task for r in readings}}
    text = {task: [model.tok_decode(list(r.ids)) for r in rows] for task, rows in by_task.items()}
    assert len(by_task["asked_information"]) == 2 * len(by_task["asked_choice"]) == 16
    for rows in by_task.values():
        assert any(r.truncated for r in rows) == (name == "cut from the left" and rows is not by_task["asked_text"])
    if name == "system instruction":
        assert all(t.startswith("one : the bird sings") for t in text["asked_answer"])
    if name == "chat, shots as turns":
        assert all(t.count("two :") == 3 for t in text["asked_word"])
    if name == "chat, shots in one turn":
        assert all(t.count("two :") == 1 for t in text["asked_word"])
    if name == "two shots":
        assert min(len(r.ids) for r in by_task["asked_answer"]) > 15
    if name == "no prefix token":
        assert all(r.ids[0] != 1 for r in by_task["asked_word"])
    if name == "prefix token":
        unconditional = [r for r in by_task["asked_information"] if r.index >= 2]
        assert [r.ids[0] for r in unconditional] == [7] * 8
        assert {r.ids[0] for r in by_task["asked_text"]} == {7}
    if name == "cut from the left":
        assert max(len(r.ids) for r in readings) == 10
        assert len(by_task["asked_text"]) > 4
    if name == "generation arguments":
        assert max(len(r.targets) for r in by_task["asked_answer"]) <= 3
