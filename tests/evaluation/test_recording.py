import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.recording import RecordingModel
from tests.tiny import write_jsonl, write_task

TASKS = ["tiny_choice", "tiny_word", "tiny_text", "tiny_answer"]


def plain_scores(tiny, tasks):
    model = HFLM(pretrained=str(tiny.baseline), batch_size=4, device="cpu")
    return lm_eval.simple_evaluate(
        model=model, tasks=list(tasks.tasks.values()), task_manager=tasks.manager, bootstrap_iters=0
    )


def test_scores_and_samples_equal_plain_lm_eval_to_the_bit(tiny, tiny_tasks, tiny_evaluations):
    plain = plain_scores(tiny, tiny_tasks)
    recorded = tiny_evaluations[0]
    for info in recorded.tasks:
        assert info.scores == {k: plain["results"][info.name][k] for k in info.scores}
        values = [s[m] for s in plain["samples"][info.name] for m in s["metrics"]]
        own = [v for d in recorded.documents if d.task == info.name for v in d.values.values()]
        assert own == values


@pytest.mark.parametrize("task", TASKS)
def test_ledger_has_every_request_of_every_output_type(tiny_tasks, tiny_evaluations, task):
    instances = tiny_tasks.tasks[task].instances
    keys = {(r.doc_id, r.index) for r in tiny_evaluations[0].ledger if r.task == task}
    assert keys == {(i.doc_id, i.idx) for i in instances}
    assert len(instances) in (12, 24)


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_word", "tiny_text"])
def test_recorded_span_gives_the_recorded_log_likelihood(tiny_models, tiny_evaluations, task):
    model = tiny_models[0].hf_model
    for reading in (r for r in tiny_evaluations[0].ledger if r.task == task):
        with torch.no_grad():
            log_p = model(torch.tensor([reading.ids])).logits[0].log_softmax(-1)
        found = sum(float(log_p[reading.start + i, t]) for i, t in enumerate(reading.targets))
        assert found == pytest.approx(reading.log_likelihood, abs=1e-4)


def test_rolling_windows_cover_the_text_beyond_the_context(tiny_models, tiny_evaluations):
    documents = tiny_evaluations[0].ledger.by_document("tiny_text")
    assert all(len(readings) == 2 for readings in documents.values()), "36 tokens in a context of 32"
    for doc_id, readings in documents.items():
        text = tiny_evaluations[0].of("tiny_text", "none")[doc_id].prompt
        assert [t for r in readings for t in r.targets] == tiny_models[0].tok_encode(text)


def test_generated_ids_are_those_that_the_model_really_chose(tiny_models, tiny_evaluations):
    model = tiny_models[0].hf_model
    for reading in (r for r in tiny_evaluations[0].ledger if r.task == "tiny_answer"):
        with torch.no_grad():
            best = model(torch.tensor([reading.ids])).logits[0].argmax(-1).tolist()
        assert best[reading.start :] == list(reading.targets)


def test_generated_answer_ends_with_its_stop(tiny_models, tiny_evaluations):
    stop = tiny_models[0].hf_tokenizer.convert_tokens_to_ids(".")
    ends = {stop, tiny_models[0].hf_tokenizer.eos_token_id}
    for reading in (r for r in tiny_evaluations[0].ledger if r.task == "tiny_answer"):
        assert not ends & set(reading.targets[:-1])
        assert reading.targets[-1] in ends or len(reading.targets) == 6


def test_repeats_are_recorded_one_by_one(tiny, tiny_models, tmp_path):
    rows = [{"prompt": "the dog runs", "word": "night"}, {"prompt": "a cat", "word": "day"}]
    write_task(
        tmp_path, "tiny_repeats", rows, output_type="generate_until", doc_to_text="{{prompt}}",
        doc_to_target="{{word}}", repeats=3, generation_kwargs={"until": ["."], "max_gen_toks": 4, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    tasks = harness.load_tasks(["tiny_repeats"], [tmp_path])
    evaluation, _ = harness.evaluate(tiny_models[0], tasks)
    assert [(r.doc_id, r.repeat) for r in evaluation.ledger] == [(d, n) for d in (0, 1) for n in (0, 1, 2)]


def test_use_cache_is_refused_before_anything_is_scored(tiny, tiny_models, tiny_tasks, tmp_path):
    with pytest.raises(UsageError, match="use_cache"):
        lm_eval.simple_evaluate(
            model=tiny_models[0],
            tasks=[tiny_tasks.tasks["tiny_word"]],
            task_manager=tiny_tasks.manager,
            use_cache=str(tmp_path / "cache"),
            bootstrap_iters=0,
        )


def test_missing_request_is_named(tiny_evaluations):
    ledger = tiny_evaluations[0].ledger
    short = Ledger(tuple(r for r in ledger if (r.task, r.doc_id) != ("tiny_word", 7)))
    expected = {(r.task, r.doc_id, r.index, r.repeat) for r in ledger}
    ledger.check_complete(expected)
    with pytest.raises(RunError, match="'tiny_word', document 7"):
        short.check_complete(expected)


def test_simple_evaluate_takes_the_model_object(tiny, tmp_path):
    model = RecordingModel(str(tiny.baseline), batch_size=4, device="cpu")
    write_jsonl(tmp_path / "x.jsonl", [{"text": "the dog"}])
    manager = harness.TaskManager(include_path=str(tiny.tasks), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=model, tasks=["tiny_word"], task_manager=manager,
        limit=3, bootstrap_iters=0,
    )  # fmt: skip
    assert results is not None
    assert len(model.ledger()) == 3


@pytest.fixture(scope="module")
def bare_model(tiny):
    """A model whose prompts begin with nothing of their own."""
    return harness.create_model(
        {"pretrained": str(tiny.baseline), "add_bos_token": False}, {"batch_size": 2, "device": "cpu"}
    )


def test_rolling_text_without_tokens_is_a_row_that_read_nothing(bare_model, tmp_path):
    write_task(
        tmp_path, "texts", [{"text": t} for t in ("the dog", "", "a cat")], output_type="loglikelihood_rolling",
        doc_to_text="", doc_to_target="{{text}}", metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    evaluation, results = harness.evaluate(bare_model, harness.load_tasks(["texts"], [tmp_path]))
    assert [(r.doc_id, len(r.targets), r.log_likelihood == 0) for r in evaluation.ledger] == [
        (0, 2, False), (1, 0, True), (2, 2, False),
    ]  # fmt: skip
    assert list(evaluation.ledger.by_document("texts")) == [0, 2]
    assert [s["resps"][0][0] == 0 for s in results["samples"]["texts"]] == [False, True, False]


def test_target_or_prompt_without_tokens_is_named(bare_model, tmp_path):
    rows = [{"prompt": p, "word": w} for p, w in (("the dog", " runs"), ("a cat", ""))]
    write_task(
        tmp_path, "words", rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        metric_list=[{"metric": "acc"}],
    )  # fmt: skip
    with pytest.raises(RunError, match="task 'words', document 1, request 0: the target '' has no tokens"):
        harness.evaluate(bare_model, harness.load_tasks(["words"], [tmp_path]))
    rows = [{"prompt": p} for p in ("the dog runs", "")]
    write_task(
        tmp_path, "answers", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="night",
        generation_kwargs={"until": ["."], "max_gen_toks": 3}, metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    with pytest.raises(RunError, match="task 'answers', document 1: its prompt has no tokens"):
        harness.evaluate(bare_model, harness.load_tasks(["answers"], [tmp_path]))
