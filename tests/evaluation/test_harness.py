"""Tasks by name, and what lm-eval's own aggregates are made of."""

from __future__ import annotations

import json

import lm_eval
import numpy as np
import pytest
from lm_eval.models.huggingface import HFLM

from diffharness.errors import RunError, UsageError
from diffharness.evaluation import comparison, harness, measures
from diffharness.evaluation.scores import Evaluation
from tests.tiny import write_task

COMPOSITE = {
    "tiny_classes": ["acc", "f1", "mcc", "brier_score"],
    "tiny_sentences": ["exact_match", "bleu", "chrf"],
    "tiny_passages": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "tiny_targets": ["perplexity", "acc"],
    "tiny_information": ["acc_mutual_info", "acc"],
}


@pytest.fixture(scope="module")
def composite(tiny, tmp_path_factory):
    """Tasks of metrics whose documents hold more than a number."""
    folder = tmp_path_factory.mktemp("composite")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    for name, names in COMPOSITE.items():
        settings: dict[str, object] = {"doc_to_text": "{{prompt}}"}
        if name in ("tiny_classes", "tiny_information"):
            settings |= {"output_type": "multiple_choice", "doc_to_target": "gold", "doc_to_choice": "choices"}
        elif name == "tiny_sentences":
            generation = {"until": ["."], "max_gen_toks": 6, "do_sample": False}
            settings |= {"output_type": "generate_until", "doc_to_target": "{{text}}", "generation_kwargs": generation}
        elif name == "tiny_passages":
            settings |= {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
        else:
            settings |= {"output_type": "loglikelihood", "doc_to_target": " {{word}}"}
        write_task(folder, name, rows, **settings, metric_list=[{"metric": m} for m in names])
    return harness.load_tasks(list(COMPOSITE), [folder])


@pytest.fixture(scope="module")
def composite_evaluations(tiny_models, composite):
    return tuple(harness.evaluate(model, composite)[0] for model in tiny_models)


def test_aggregates_of_the_documents_are_lm_evals_own_to_the_bit(tiny, composite, composite_evaluations, tmp_path):
    composite_evaluations[0].save(tmp_path)
    plain = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(tiny.baseline), batch_size=4, device="cpu"),
        tasks=list(composite.tasks.values()), task_manager=composite.manager, bootstrap_iters=0,
    )  # fmt: skip
    assert plain is not None
    for found in (composite_evaluations[0], Evaluation.load(tmp_path)):
        for info in found.tasks:
            assert [m.metric for m in info.metrics] == COMPOSITE[info.name]
            for metric in info.metrics:
                values = [d.values[metric.metric] for d in found.of(info.name, metric.filter).values()]
                own = composite.aggregation(info.name, metric.metric)(values)
                assert own == info.scores[str(metric)] == plain["results"][info.name][str(metric)]


def test_every_metric_can_be_compared(composite, composite_evaluations, monkeypatch):
    monkeypatch.setattr(measures, "_GENERIC_RESAMPLES", 20)
    for info in composite_evaluations[0].tasks:
        for metric in info.metrics:
            aggregation = composite.aggregation(info.name, metric.metric)
            found = comparison.compare(info.name, metric, *composite_evaluations, aggregation, np.random.default_rng(0))
            assert found.result.gap == pytest.approx(found.candidate - found.baseline, abs=1e-9)
            assert found.result.low <= found.result.high


def test_a_number_of_documents_is_what_limit_says(tiny_models, tiny_tasks):
    for limit, n in ((3, 3), (0.5, 6)):
        found, _ = harness.evaluate(tiny_models[0], tiny_tasks, only=["tiny_word"], limit=limit)
        assert len(found.documents) == n
        assert found.settings["limit"] == limit


def test_progress_ends_with_every_request_answered(tiny_models, tiny_tasks):
    seen: list[tuple[int, int]] = []
    harness.evaluate(tiny_models[0], tiny_tasks, only=["tiny_choice"], progress=lambda *done: seen.append(done))
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_machine_is_described_once_and_in_every_result(tiny_models, tiny_tasks, monkeypatch):
    from torch.utils import collect_env

    told = []

    def describe() -> str:
        told.append("this machine")
        return told[-1]

    monkeypatch.setattr(collect_env, "get_pretty_env_info", describe)
    results = [harness.evaluate(tiny_models[0], tiny_tasks, only=["tiny_choice"], limit=1)[1] for _ in range(2)]
    assert [result["pretty_env_info"] for result in results] == ["this machine"] * 2
    assert len(told) == 1
    assert collect_env.get_pretty_env_info is describe


def test_groups_and_tasks_are_found_in_the_included_folder_alone(tiny, monkeypatch):
    whole = harness.TaskManager

    def own_only(*args: object, include_defaults: bool = True, **kwargs: object):
        assert not include_defaults, "read lm-eval's own tasks"
        return whole(*args, include_defaults=include_defaults, **kwargs)

    monkeypatch.setattr(harness, "TaskManager", own_only)
    assert set(harness.load_tasks(["tiny"], [tiny.tasks]).names) == {
        "tiny_choice", "tiny_word", "tiny_text", "tiny_answer",
    }  # fmt: skip
    assert harness.load_tasks(["tiny_word", "tiny_text"], [tiny.tasks]).names == ("tiny_word", "tiny_text")


def test_metric_of_no_task_is_refused_and_of_one_is_enough(composite):
    for known in ("f1", "f1,none", "bleu", "acc_mutual_info"):
        composite.check_metric(known)
    with pytest.raises(UsageError, match="'blue' is a metric of no task; did you mean 'bleu'; there are: acc, f1, mcc"):
        composite.check_metric("blue")


def test_model_arguments_are_lm_evals(tiny, tmp_path):
    assert harness.parse_model_args("org/name") == {"pretrained": "org/name"}
    assert harness.parse_model_args("pretrained=x,dtype=float16") == {"pretrained": "x", "dtype": "float16"}
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert harness.parse_model_args(str(odd)) == {"pretrained": str(odd)}
    with pytest.raises(UsageError, match="add pretrained="):
        harness.parse_model_args("dtype=float16")


def test_model_that_can_not_be_loaded_is_one_line(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"model folder .* does not exist"):
        harness.load_model(str(tmp_path / "none"), batch_size=1, device="cpu")
    (tmp_path / "config.json").write_text((tiny.baseline / "config.json").read_text())
    with pytest.raises(RunError, match="can not be loaded: ") as error:
        harness.load_model(str(tmp_path), batch_size=1, device="cpu")
    assert "\n" not in str(error.value)


def test_failure_inside_lm_eval_names_the_tasks(tiny_models, tiny_tasks, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(lm_eval, "simple_evaluate", fails)
    with pytest.raises(RunError, match=r"^lm-eval failed on tiny_word: first line$"):
        harness.evaluate(tiny_models[0], tiny_tasks, only=["tiny_word"])
