"""What the candidate's own prompt makes of a document's score, on readings made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from diffharness.attribution.forms import NoAccountError
from diffharness.attribution.prompt import prompt_effects
from diffharness.evaluation.ledger import Ledger
from diffharness.evaluation.scores import DocumentScore, Evaluation
from tests.attribution.test_forms import document, evaluation, metric, reading


def answered(output_type: str, log_likelihoods: list[float | None], scores: list[DocumentScore]) -> Evaluation:
    """One document whose requests have these log-likelihoods."""
    rows = [
        replace(reading(0, i, (20 + i, 30), "loglikelihood"), log_likelihood=value)
        for i, value in enumerate(log_likelihoods)
    ]
    return evaluation(output_type, rows, scores)


def test_of_choices_it_is_the_change_of_the_right_ones_probability():
    scores = [document(0, gold=(1,), choices=("a", "bc"), acc=1.0)]
    own, shared = (answered("multiple_choice", values, scores) for values in ([-3.0, -1.0], [-1.0, -2.0]))
    found = prompt_effects("t", metric("acc"), own, shared)[0]
    assert found.m == pytest.approx(2.0 - -1.0)
    assert found.metric == pytest.approx(1 / (1 + math.exp(-2)) - 1 / (1 + math.exp(1)))
    by_length = prompt_effects("t", metric("acc_norm"), own, shared)[0]
    assert by_length.m == pytest.approx((-1 / 2 + 3) - (-2 / 2 + 1))


def test_of_the_unconditional_choices_too_where_the_metric_has_them():
    scores = [document(0, gold=(0,), choices=("a", "b"), acc_mutual_info=1.0)]
    own, shared = (
        answered("multiple_choice", values, scores) for values in ([-1.0, -2.0, -5.0, -1.0], [-1.0, -2.0, -1.0, -1.0])
    )
    assert prompt_effects("t", metric("acc_mutual_info"), own, shared)[0].m == pytest.approx(4.0)


def test_of_a_target_it_is_the_change_of_its_probability():
    scores = [document(0, acc=1.0)]
    own, shared = (answered("loglikelihood", [value], scores) for value in (math.log(0.75), math.log(0.5)))
    found = prompt_effects("t", metric("acc"), own, shared)[0]
    assert (found.metric, found.m) == pytest.approx((0.25, math.log(3)))


def test_of_generated_answers_it_is_the_metrics_own_change_and_no_paths():
    own, shared = (evaluation("generate_until", [], [document(0, exact_match=v)]) for v in (1.0, 0.25))
    found = prompt_effects("t", metric("exact_match"), own, shared)[0]
    assert found.metric == 0.75
    assert math.isnan(found.m)


def test_a_document_whose_score_can_not_differ_has_none():
    scores = [document(0, gold=(0, 1), choices=("a", "b"), acc=1.0)]
    own, shared = (answered("multiple_choice", values, scores) for values in ([-3.0, -1.0], [-1.0, -2.0]))
    found = prompt_effects("t", metric("acc"), own, shared)[0]
    assert (found.metric, found.m) == (0, 0)


@pytest.mark.parametrize("value", [None, -math.inf, math.nan])
def test_what_has_no_finite_score_has_no_account(value):
    scores = [document(0, acc=1.0)]
    shared, own = (answered("loglikelihood", [v], scores) for v in (-1.0, value))
    with pytest.raises(NoAccountError, match="document 0 has no finite log-likelihood"):
        prompt_effects("t", metric("acc"), own, shared)


def test_other_documents_have_no_account():
    scores = [document(0, acc=1.0)]
    shared = answered("loglikelihood", [-1.0], scores)
    with pytest.raises(NoAccountError, match="answered other documents in its own template"):
        prompt_effects("t", metric("acc"), replace(shared, ledger=Ledger(())), shared)
    answers = [evaluation("generate_until", [], [document(0, exact_match=v)]) for v in (math.nan, 0.5)]
    with pytest.raises(NoAccountError, match="no number for a single document"):
        prompt_effects("t", metric("exact_match"), answers[0], answers[1])
