"""Which tokens and which surrogate a document is accounted for by, on readings made by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from diffharness.attribution.forms import NoAccountError, task_forms
from diffharness.attribution.surrogates import Choice, LogLikelihood, Preference, TargetProbability
from diffharness.evaluation import comparison, harness
from diffharness.evaluation.ledger import Ledger, Reading
from diffharness.evaluation.scores import DocumentScore, Evaluation, MetricKey, TaskInfo, Value
from tests import tiny as made

PROMPT = (1, 5, 9)


def reading(doc_id: int, index: int, answer: tuple[int, ...], kind: str, prompt=PROMPT, **more) -> Reading:
    return Reading("t", doc_id, index, 0, 0, kind, (prompt + answer)[:-1], len(prompt) - 1, answer, -1.0, False, **more)


def evaluation(output_type: str, readings: list[Reading], documents: list[DocumentScore]) -> Evaluation:
    info = TaskInfo("t", output_type, (), (), "", "", {})
    return Evaluation("", (info,), tuple(documents), Ledger(tuple(readings)))


def document(doc_id: int, prompt: str = "p", gold=(), choices=(), **values: float) -> DocumentScore:
    return DocumentScore("t", doc_id, "none", "d", "h", prompt, "", "", values, gold, choices)


def metric(name: str, higher_is_better: bool = True) -> MetricKey:
    return MetricKey(name, "none", higher_is_better)


def choices(n_choices: int = 2, gold=(1,), unconditional: bool = False) -> Evaluation:
    texts = ("é", "abcd", "xy")[:n_choices]
    readings = [reading(0, i, (20 + i, 30), "loglikelihood") for i in range(n_choices)]
    if unconditional:
        readings += [reading(0, n_choices + i, (20 + i, 30), "loglikelihood", prompt=(1,)) for i in range(n_choices)]
    return evaluation("multiple_choice", readings, [document(0, gold=gold, choices=texts, acc=1.0)])


@pytest.mark.parametrize(
    ("name", "divisors"), [("acc", (1, 1)), ("acc_norm", (1, 4)), ("acc_bytes", (2, 4)), ("acc_mutual_info", (1, 1))]
)
def test_choices_are_divided_as_their_metric_divides_them(name, divisors):
    side = choices(unconditional=name == "acc_mutual_info")
    found = task_forms("t", metric(name), side, side)
    (form,) = found.forms
    assert form.surrogate == Choice((1,), tuple(map(float, divisors)), name == "acc_mutual_info")
    assert len(form.spans) == (4 if name == "acc_mutual_info" else 2)
    assert [(s.ids, s.start, s.targets) for s in form.spans[:2]] == [
        ((*PROMPT, 20), 2, (20, 30)), ((*PROMPT, 21), 2, (21, 30)),
    ]  # fmt: skip
    assert (found.unit, found.higher_is_better, found.constant) == ("probability", True, {})


def test_several_right_choices_are_right_together():
    side = choices(3, gold=(0, 2))
    (form,) = task_forms("t", metric("acc"), side, side).forms
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    m = float(form.surrogate.path(probabilities.log()))
    assert form.surrogate.metric(m) == pytest.approx(0.5)


@pytest.mark.parametrize(("gold", "constant"), [((0, 1), 1.0), ((), 0.0)])
def test_documents_of_no_or_only_right_choices_can_not_differ(gold, constant):
    side = choices(gold=gold)
    found = task_forms("t", metric("acc"), side, side)
    assert (found.forms, found.constant) == ((), {0: constant})


def test_a_target_is_its_probability_or_its_mean_log_likelihood():
    side = evaluation("loglikelihood", [reading(0, 0, (20, 21, 22), "loglikelihood")], [document(0)])
    (form,) = task_forms("t", metric("acc"), side, side).forms
    assert isinstance(form.surrogate, TargetProbability)
    found = task_forms("t", metric("perplexity", False), side, side)
    (form,) = found.forms
    assert form.surrogate == LogLikelihood(1 / 3, 3.0), "m a token, M the document's nats"
    assert (found.unit, found.higher_is_better) == ("nats", True)


def test_texts_sum_over_windows_to_the_tasks_bits_per_byte():
    windows = [dataclasses.replace(reading(0, 0, (20 + i, 30), "loglikelihood_rolling"), window=i) for i in range(2)]
    readings = [*windows, reading(1, 0, (40,), "loglikelihood_rolling")]
    side = evaluation("loglikelihood_rolling", readings, [document(0, prompt="é" * 30), document(1, prompt="abcd")])
    found = task_forms("t", metric("bits_per_byte", False), side, side)
    assert found.weights == {0: 60.0, 1: 4.0}
    assert [len(form.spans) for form in found.forms] == [2, 1]
    nats = (torch.tensor([-30.0, -20.0]), torch.tensor([-6.0]))
    each = [f.surrogate.metric(float(f.surrogate.path(x))) for f, x in zip(found.forms, nats, strict=True)]
    assert sum(each) / 2 == pytest.approx(56 / (64 * math.log(2)))
    assert not found.higher_is_better


def answered(answers: list[tuple[int, ...]], scores: list[float]) -> Evaluation:
    readings = [reading(i, 0, answer, "generate_until") for i, answer in enumerate(answers)]
    return evaluation("generate_until", readings, [document(i, exact_match=s) for i, s in enumerate(scores)])


def test_answers_are_compared_from_the_first_token_that_differs():
    sides = answered([(7, 8, 9, 2)], [1.0]), answered([(7, 8, 4, 5, 2)], [0.0])
    found = task_forms("t", metric("exact_match"), *sides)
    (form,) = found.forms
    assert form.surrogate == Preference(1.0, 0.0)
    base, cand = form.spans
    assert (base.ids, base.start, base.targets) == ((*PROMPT, 7, 8, 9), 4, (9, 2))
    assert (cand.ids, cand.start, cand.targets) == ((*PROMPT, 7, 8, 4, 5), 4, (4, 5, 2))
    assert base.ids[base.start] == cand.ids[cand.start] == 8, "both are asked after the same tokens"


def test_an_answer_that_goes_on_where_the_other_stops():
    sides = answered([(7, 8)], [1.0]), answered([(7, 8, 9)], [0.0])
    (form,) = task_forms("t", metric("exact_match"), *sides).forms
    assert [s.targets for s in form.spans] == [(), (9,)]


def test_answers_that_are_or_score_alike_can_not_differ():
    sides = answered([(7, 2), (7, 2)], [1.0, 0.0]), answered([(7, 2), (8, 2)], [1.0, 0.0])
    found = task_forms("t", metric("exact_match"), *sides)
    assert (found.forms, found.constant) == ((), {0: 1.0, 1: 0.0})


@pytest.mark.parametrize("output_type", ["loglikelihood", "generate_until"])
def test_different_prompts_have_no_account(output_type):
    sides = [
        evaluation(output_type, [reading(4, 0, (20, 2), output_type, prompt=prompt)], [document(4, exact_match=score)])
        for prompt, score in ((PROMPT, 1.0), ((1, 5, 8), 0.0))
    ]
    with pytest.raises(NoAccountError, match=r"different prompts .*document 4"):
        task_forms("t", metric("exact_match"), *sides)


def test_different_documents_have_no_account():
    sides = answered([(7, 2)], [1.0]), answered([(7, 2), (8, 2)], [1.0, 1.0])
    with pytest.raises(NoAccountError, match="different documents"):
        task_forms("t", metric("exact_match"), *sides)


def repeated(answers: list[tuple[int, ...]], score: float) -> Evaluation:
    readings = [dataclasses.replace(reading(0, 0, a, "generate_until"), repeat=r) for r, a in enumerate(answers)]
    return evaluation("generate_until", readings, [document(0, exact_match=score)])


def test_repeats_are_paired_in_order_and_averaged():
    answers = [(7, 2), (8, 2), (9, 2)], [(7, 3), (8, 2), (9, 4, 2)]
    sides = repeated(answers[0], 0.0), repeated(answers[1], 1.0)
    found = task_forms("t", metric("exact_match"), *sides)
    (form,) = found.forms
    assert [(s.start, s.targets) for s in form.spans] == [(3, (2,)), (3, (3,)), (3, (2,)), (3, (4, 2))]
    assert "averaged over 3 pairs" in found.name
    log_likelihood_R = torch.tensor([-1.0, -3.0, -0.5, -0.25])
    m = float(form.surrogate.path(log_likelihood_R))
    assert m == pytest.approx((-2.0 + 0.0 + 0.25) / 3), "the second pair's answers are alike"
    assert form.surrogate.metric(m) == pytest.approx(1 / (1 + math.exp(-m)))
    assert form.surrogate.slope(m) > 0
    same = repeated(answers[0], 0.0), repeated(answers[0], 1.0)
    assert task_forms("t", metric("exact_match"), *same).constant == {0: 0.0}
    with pytest.raises(NoAccountError, match="document 0 unequally often"):
        task_forms("t", metric("exact_match"), sides[0], repeated(answers[1][:2], 1.0))


@pytest.mark.parametrize("name", ["f1", "mcc", "brier_score", "likelihood"])
def test_choices_of_a_metric_of_the_whole_task_are_probabilities(name):
    side = choices()
    found = task_forms("t", metric(name, higher_is_better=name != "brier_score"), side, side)
    (form,) = found.forms
    assert form.surrogate == Choice((1,), (1.0, 1.0), False)
    assert found.name == f"probability of the right choice, in place of the task's {name}"
    assert found.higher_is_better, "more probability is better, whatever the metric's direction"


def same_text(value: Value) -> float:
    assert isinstance(value, tuple)
    return 100.0 * (value[0] == value[1])


@pytest.mark.parametrize("better", [True, False])
def test_answers_of_a_metric_of_the_whole_task_are_scored_alone(better):
    gold = "the cat"
    sides = [
        evaluation(
            "generate_until",
            [reading(0, 0, (7, end), "generate_until"), reading(1, 0, (7, end), "generate_until")],
            [document(i, bleu=(gold, answer)) for i, answer in enumerate(answers)],
        )
        for end, answers in ((2, ["the cat", "the cat"]), (3, ["a dog", "the cat"]))
    ]
    found = task_forms("t", metric("bleu", better), *sides, document_value=same_text)
    (form,) = found.forms
    assert form.surrogate == Preference(100.0, 0.0)
    assert (found.constant, found.higher_is_better) == ({1: 100.0}, better)
    assert found.name.endswith("two recorded answers, each document's bleu by itself")
    with pytest.raises(NoAccountError, match="'bleu' has no number for a single document"):
        task_forms("t", metric("bleu"), *sides, document_value=lambda _: None)
    with pytest.raises(NoAccountError, match="'bleu' has no number for a single document"):
        task_forms("t", metric("bleu"), *sides)


@pytest.mark.parametrize(
    ("output_type", "name"),
    [
        ("multiple_choice", "odd"), ("loglikelihood", "odd"), ("loglikelihood_rolling", "acc"),
        ("generate_until", "bleu"), ("unheard_of", "acc"),
    ],
)  # fmt: skip
def test_metric_without_surrogate_says_so(output_type, name):
    side = evaluation(output_type, [reading(0, 0, (20, 2), output_type)], [document(0)])
    with pytest.raises(NoAccountError, match=rf"'({name}|{output_type})'"):
        task_forms("t", metric(name), side, side)


@pytest.mark.parametrize(
    ("output_type", "names", "more"),
    [
        ("multiple_choice", ["f1", "mcc", "brier_score"], {"doc_to_target": "gold", "doc_to_choice": "choices"}),
        ("generate_until", ["bleu", "chrf", "ter"], {
            "doc_to_target": "{{word}}", "generation_kwargs": {"until": ["."], "max_gen_toks": 6, "do_sample": False},
        }),
    ],
)  # fmt: skip
def test_tasks_of_lm_eval_with_a_metric_of_the_whole_are_scored_compared_and_accounted_for(
    tmp_path, tiny_models, output_type, names, more
):
    rows: list[dict[str, object]] = [
        {"prompt": f"the {w}", "choices": ["red", "blue"], "gold": i % 2, "word": "red one . two"}
        for i, w in enumerate(("dog", "cat", "bird", "river", "house", "tree"))
    ]
    listed = [{"metric": n, "higher_is_better": n not in ("brier_score", "ter")} for n in names]
    made.write_task(
        tmp_path, "whole", rows, output_type=output_type, doc_to_text="{{prompt}}", metric_list=listed, **more
    )
    tasks = harness.load_tasks(["whole"], [tmp_path])
    sides = [harness.evaluate(model, tasks)[0] for model in tiny_models]
    for key in sides[0].tasks[0].metrics:
        aggregation = tasks.aggregation("whole", key.metric)
        result = comparison.compare("whole", key, *sides, aggregation, np.random.default_rng(0)).result
        scores = [side.tasks[0].scores[str(key)] for side in sides]
        assert result.gap == pytest.approx(scores[1] - scores[0], abs=1e-12)
        assert result.low <= result.gap <= result.high
        worth = comparison.document_value(aggregation)
        found = task_forms("whole", key, *sides, document_value=worth)
        assert len(found.forms) + len(found.constant) == len(rows)
        values = [comparison.document_metric(d, key, worth) for side in sides for d in side.documents]
        assert all(isinstance(v, float) and math.isfinite(v) for v in values)
