"""Scores from states of one's own making: against the whole models, and against what lm-eval recorded."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from diffharness.attribution.forms import task_forms
from diffharness.attribution.path import account_for
from diffharness.attribution.spliced import BASELINE, CANDIDATE, SplicedScores, own, put_back
from diffharness.attribution.states import ModelPair
from diffharness.evaluation import harness
from diffharness.evaluation.scores import MetricKey
from tests import tiny as made
from tests.attribution.test_path import FORMS, m_of, states_of
from tests.attribution.test_states import N_LATENTS, exact, pair_of, random_crosscoder

ALL = torch.ones(N_LATENTS, dtype=torch.bool)


@pytest.fixture(scope="module")
def pair(tiny_models) -> ModelPair:
    return pair_of([exact(m.hf_model) for m in tiny_models])


@pytest.fixture(scope="module")
def scores(pair):
    return SplicedScores(pair, list(FORMS.values()), batch_tokens=40)


def test_every_stack_reads_every_state_as_the_whole_model_would(pair, scores):
    models = [r.model for r in pair.readers]
    for stack in (BASELINE, CANDIDATE):
        for model in (0, 1):
            with torch.no_grad():
                wanted = [float(m_of(models[stack], n, states_of(models[model], f))) for n, f in FORMS.items()]
            np.testing.assert_allclose(scores.m(stack, own(model)), wanted, atol=1e-5)


def test_ends_agree_with_the_account(pair, scores):
    found = account_for(pair, list(FORMS.values()), written_nodes=(1,), read_nodes=(1,))
    for stack in (BASELINE, CANDIDATE):
        for model in (0, 1):
            np.testing.assert_allclose(scores.m(stack, own(model)), [a.m_SX[stack, model] for a in found], atol=1e-6)
            starts = scores.m(stack, lambda states, model=model: states.start(model))
            np.testing.assert_allclose(starts, [a.m_SX[stack, 2 + model] for a in found], atol=1e-6)


def test_many_arms_at_once_are_those_of_one_after_another_kept_or_read_again(pair, scores):
    arms = [own(0), own(1), put_back(ALL)]
    again = SplicedScores(pair, list(FORMS.values()), batch_tokens=40, keep=False)
    for stack in (BASELINE, CANDIDATE):
        m_AN = scores.m_of(stack, arms)
        np.testing.assert_array_equal(m_AN, [scores.m(stack, arm) for arm in arms])
        np.testing.assert_array_equal(m_AN, again.m_of(stack, arms))
        np.testing.assert_array_equal(scores.metrics(stack, arms), [scores.metric(stack, arm) for arm in arms])


def test_a_whole_model_scores_as_its_own_stack_on_its_own_state(scores):
    for model in (0, 1):
        np.testing.assert_allclose(scores.whole_m(model), scores.m(model, own(model)), atol=1e-6)


def test_metric_is_the_surrogates_of_m(scores):
    m_N, metric_N = scores.m(CANDIDATE, own(1)), scores.metric(CANDIDATE, own(1))
    assert metric_N.tolist() == [f.surrogate.metric(m) for f, m in zip(FORMS.values(), m_N, strict=True)]


def test_all_latents_bias_and_error_put_back_are_the_baselines_state(scores):
    def everything(states):
        x = [x_BTD.double() for x_BTD in states.x_BTD]
        error = [x[m] - states.decoded(m) - states.bias(m) for m in (0, 1)]
        back = put_back(ALL)(states) - (states.bias(1) - states.bias(0)) - (error[1] - error[0])
        torch.testing.assert_close(back, x[0], atol=1e-9, rtol=0)
        return back

    np.testing.assert_allclose(scores.m(CANDIDATE, everything), scores.m(CANDIDATE, own(0)), atol=1e-6)
    assert np.abs(scores.m(CANDIDATE, own(0)) - scores.m(CANDIDATE, own(1))).min() > 1e-3


def test_no_latent_put_back_is_the_candidate(scores):
    np.testing.assert_array_equal(scores.m(CANDIDATE, put_back(~ALL)), scores.m(CANDIDATE, own(1)))


def test_sets_of_latents_put_back_change_the_state_by_their_own_difference(scores):
    some = torch.arange(N_LATENTS) % 2 == 0
    seen = []

    def look(states):
        x_BTD = states.x_BTD[1].double()
        moved = [x_BTD - put_back(chosen)(states) for chosen in (some, ~some, ALL)]
        torch.testing.assert_close(moved[0] + moved[1], moved[2])
        torch.testing.assert_close(moved[2], states.decoded(1) - states.decoded(0))
        assert not moved[2][~states.coded_BT].any()
        seen.append(float(moved[0].abs().max()))
        return x_BTD

    scores.m(CANDIDATE, look)
    assert min(seen) > 0.01


def test_order_and_batches_do_not_matter(pair, scores):
    state = put_back(torch.arange(N_LATENTS) % 3 == 0)
    backwards = SplicedScores(pair, [*reversed(FORMS.values())], batch_tokens=10_000)
    np.testing.assert_allclose(backwards.m(CANDIDATE, state)[::-1], scores.m(CANDIDATE, state), atol=1e-6)


def rows_of(evaluation, forms, task):
    """m of every document from the log-likelihoods that lm-eval's requests were answered with."""
    readings = evaluation.ledger.by_document(task)
    return [
        float(f.surrogate.path(torch.tensor([r.log_likelihood for r in readings[f.doc_id][: len(f.spans)]]).double()))
        for f in forms
    ]


@pytest.mark.parametrize(
    ("task", "metric"),
    [("tiny_choice", "acc"), ("tiny_choice", "acc_norm"), ("tiny_word", "acc"), ("tiny_text", "bits_per_byte")],
)
def test_own_states_give_what_the_evaluation_recorded(tiny_models, tiny_evaluations, task, metric):
    key = MetricKey(metric, "none", higher_is_better=metric != "bits_per_byte")
    found = task_forms(task, key, *tiny_evaluations)
    assert len(found.forms) == 12
    scores = SplicedScores(pair_of([m.hf_model for m in tiny_models]), found.forms)
    for model, evaluation in enumerate(tiny_evaluations):
        m_N = scores.m(model, own(model))
        np.testing.assert_allclose(m_N, rows_of(evaluation, found.forms, task), atol=1e-4)
        real = evaluation.of(task, "none")
        if task == "tiny_choice":
            assert [real[f.doc_id].scalar(metric) for f in found.forms] == [float(m > 0) for m in m_N]
        if task == "tiny_text":
            mean = scores.metric(model, own(model)).mean()
            assert mean == pytest.approx(evaluation.task(task).scores["bits_per_byte,none"], rel=1e-5)


def test_generated_answers_are_compared_by_their_log_likelihood_from_the_first_difference(
    tiny_models, tiny_evaluations
):
    key = MetricKey("exact_match", "none", higher_is_better=True)
    sides = []
    for evaluation, score in zip(tiny_evaluations, (0.25, 1.0), strict=True):
        documents = [dataclasses.replace(d, values={"exact_match": score}) for d in evaluation.documents]
        sides.append(dataclasses.replace(evaluation, documents=tuple(documents)))
    found = task_forms("tiny_answer", key, *sides)
    assert found.forms, "some answers differ"
    scores = SplicedScores(pair_of([m.hf_model for m in tiny_models]), found.forms)
    for model in (0, 1):
        wanted = []
        for form in found.forms:
            likelihoods = []
            for side in sides:
                (r,) = side.ledger.by_document("tiny_answer")[form.doc_id]
                with torch.no_grad():
                    log_p = tiny_models[model].hf_model(torch.tensor([r.ids])).logits[0].double().log_softmax(-1)
                likelihoods.append(sum(float(log_p[r.start + i, t]) for i, t in enumerate(r.targets)))
            wanted.append(likelihoods[1] - likelihoods[0])  # what both answers begin with cancels
        np.testing.assert_allclose(scores.m(model, own(model)), wanted, atol=1e-4)
        mixed = 0.25 + 0.75 / (1 + np.exp(-np.array(wanted)))
        np.testing.assert_allclose(scores.metric(model, own(model)), mixed, atol=1e-5)


def test_choices_by_mutual_information_bytes_and_words_perplexity_follow_lm_evals_own_scores(tmp_path, tiny_models):
    rows: list[dict[str, object]] = [
        {"prompt": f"the {w} on", "choices": ["red", "good bird", "four"], "gold": i % 3, "word": "red one"}
        for i, w in enumerate(("dog", "cat", "bird", "river", "house", "tree"))
    ]
    made.write_task(
        tmp_path, "choose", rows, output_type="multiple_choice", doc_to_text="{{prompt}}", doc_to_target="gold",
        doc_to_choice="choices", metric_list=made.metrics("acc", "acc_norm", "acc_mutual_info", "acc_bytes"),
    )  # fmt: skip
    made.write_task(
        tmp_path, "predict", rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target=" {{word}}",
        metric_list=made.metrics("perplexity", higher_is_better=False),
    )  # fmt: skip
    tasks = harness.load_tasks(["choose", "predict"], [tmp_path])
    sides = [harness.evaluate(model, tasks)[0] for model in tiny_models]
    pair = pair_of([m.hf_model for m in tiny_models], random_crosscoder())
    for metric in ("acc", "acc_norm", "acc_mutual_info", "acc_bytes"):
        forms = task_forms("choose", MetricKey(metric, "none", True), *sides).forms
        gold = [f.surrogate.gold[0] for f in forms]
        for model, side in enumerate(sides):
            of_choice = []
            for k in range(3):
                asked = [dataclasses.replace(f, surrogate=dataclasses.replace(f.surrogate, gold=(k,))) for f in forms]
                of_choice.append(SplicedScores(pair, asked).metric(model, own(model)))
            np.testing.assert_allclose(np.sum(of_choice, axis=0), 1, atol=1e-9)
            right = [side.of("choose", "none")[f.doc_id].scalar(metric) for f in forms]
            assert (np.argmax(of_choice, axis=0) == gold).tolist() == [bool(r) for r in right], metric
    forms = task_forms("predict", MetricKey("perplexity", "none", False), *sides).forms
    for model, side in enumerate(sides):
        nats = SplicedScores(pair, forms).metric(model, own(model))
        assert math.exp(-nats.mean()) == pytest.approx(side.task("predict").scores["perplexity,none"], rel=1e-4)
