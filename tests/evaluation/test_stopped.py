"""Whether generated answers ended by themselves, seen through lm-eval's own generation."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import LlamaForCausalLM

from diffharness.evaluation import harness
from diffharness.evaluation.scores import Evaluation
from tests.tiny import WORDS, metrics, save_model, write_task


@pytest.fixture(scope="module")
def cut(tiny, tiny_models, tmp_path_factory) -> dict[str, Evaluation]:
    """The same prompts with no stop and three tokens, with a stop at every word and one token, and with many tokens."""
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_answer.jsonl").read_text().splitlines()]
    found = {}
    for name, stops, limit in (("never", ["%%"], 3), ("always", WORDS, 1), ("long", ["."], 20)):
        folder = tmp_path_factory.mktemp(name)
        write_task(
            folder, f"cut_{name}", rows, output_type="generate_until", doc_to_text="{{prompt}}",
            doc_to_target="{{word}}", metric_list=metrics("exact_match"),
            generation_kwargs={"until": stops, "max_gen_toks": limit, "do_sample": False},
        )  # fmt: skip
        found[name], _ = harness.evaluate(tiny_models[0], harness.load_tasks([f"cut_{name}"], [folder]))
    return found


def test_answers_that_hit_the_limit_did_not_stop_by_themselves(cut):
    readings = cut["never"].ledger.by_document("cut_never")
    ends = {d.doc_id: readings[d.doc_id][0].targets for d in cut["never"].documents}
    expected = {i: len(ids) < 3 or ids[-1] == 2 for i, ids in ends.items()}
    assert {d.doc_id: d.stopped for d in cut["never"].documents} == expected
    assert False in expected.values()


def test_a_stop_that_is_the_last_token_of_the_limit_is_a_stop(cut):
    readings = cut["always"].ledger.by_document("cut_always")
    assert {len(r[0].targets) for r in readings.values()} == {1}
    assert {d.stopped for d in cut["always"].documents} == {True}


def test_answers_shorter_than_the_limit_stopped(cut):
    readings = cut["long"].ledger.by_document("cut_long")
    short = {d.doc_id: d.stopped for d in cut["long"].documents if len(readings[d.doc_id][0].targets) < 20}
    assert short
    assert all(short.values())


def test_what_was_written_is_kept_through_files(cut, tmp_path):
    cut["never"].save(tmp_path)
    found = Evaluation.load(tmp_path)
    assert [(d.response, d.stopped) for d in found.documents] == [
        (d.response, d.stopped) for d in cut["never"].documents
    ]
    assert all(d.response for d in found.documents if not d.stopped)


def test_end_token_at_the_limit_counts_as_stopped(tiny, tmp_path):
    """A model that writes the end token only, and a limit of one token."""
    folder = save_model(tmp_path / "ends", seed=4)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        state = model.model(torch.tensor([[1, 5, 6]])).last_hidden_state[0, -1]
        model.lm_head.weight[2] = state
    model.save_pretrained(folder)
    rows: list[dict[str, object]] = [{"prompt": f"{WORDS[1]} {WORDS[2]}", "word": "x"}]
    write_task(
        tmp_path, "ends_now", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        metric_list=metrics("exact_match"), generation_kwargs={"until": ["%%"], "max_gen_toks": 1, "do_sample": False},
    )  # fmt: skip
    loaded = harness.load_model(str(folder), batch_size=1, device="cpu")
    found, _ = harness.evaluate(loaded, harness.load_tasks(["ends_now"], [tmp_path]))
    targets = found.ledger.by_document("ends_now")[0][0].targets
    assert (targets, found.documents[0].stopped) == ((2,), True)
