"""Sets of changes on the real metric, against lm-eval itself with the candidate's layer replaced by a forward hook."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import decoder_layers
from diffharness.attribution.real_metric import DocumentScorer, SetScores, is_same
from diffharness.attribution.set_scores import resampling, set_scores
from diffharness.attribution.shapley import exact_plan, shapley_values
from diffharness.attribution.states import ModelPair
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.evaluation import harness
from tests.tiny import metrics, write_task

LAYER, N_LATENTS = 1, 24
TASKS = {
    "tiny_choice": "acc",
    "tiny_word": "acc",
    "tiny_text": "bits_per_byte",
    "own_mutual": "acc_mutual_info",
    "own_f1": "f1",
    "own_brier": "brier_score",
    "own_perplexity": "perplexity",
    "own_words": "word_perplexity",
}


@pytest.fixture(scope="module")
def tasks(tiny, tmp_path_factory):
    """A task of every output type that log-likelihoods score, and metrics of a whole task."""
    folder = tmp_path_factory.mktemp("own")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    choice = {"doc_to_text": "{{prompt}}", "doc_to_target": "gold", "doc_to_choice": "choices"}
    for name in ("own_mutual", "own_f1", "own_brier"):
        metric_list = metrics(TASKS[name])
        metric_list[0]["aggregation"] = {"acc_mutual_info": "mean"}.get(TASKS[name], TASKS[name])
        write_task(folder, name, rows, output_type="multiple_choice", metric_list=metric_list, **choice)
    write_task(
        folder, "own_perplexity", rows, output_type="loglikelihood", doc_to_text="{{prompt}}",
        doc_to_target=" {{word}}", metric_list=metrics("perplexity"),
    )  # fmt: skip
    words = metrics("word_perplexity")
    words[0]["aggregation"] = "weighted_perplexity"
    write_task(
        folder, "own_words", rows, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=words,
    )  # fmt: skip
    return harness.load_tasks(list(TASKS), [tiny.tasks, folder])


@pytest.fixture(scope="module")
def pair(tiny_models):
    models = [m.hf_model for m in tiny_models]
    generator = torch.Generator().manual_seed(3)
    config = CrosscoderConfig(sides=("baseline", "candidate"), d_model=16, n_latents=N_LATENTS, k=4)
    crosscoder = Crosscoder(config).requires_grad_(False)
    for tensor in (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.b_enc_L, crosscoder.b_dec_MD):
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    crosscoder.scale_M.copy_(torch.tensor([0.8, 1.3]))
    crosscoder.threshold.fill_(0.4)
    readers = tuple(LayerReader(m, LAYER) for m in models)
    return ModelPair(readers, tuple(UpperStack(m, LAYER) for m in models), crosscoder)


@pytest.fixture(scope="module")
def evaluation(tiny_models, tasks):
    """The candidate as lm-eval scores it."""
    return harness.evaluate(tiny_models[1], tasks)[0]


PLAYERS_PL = np.array([[j % 2 == p for j in range(N_LATENTS)] for p in range(2)])
PLAN = exact_plan(3)


@pytest.fixture(scope="module")
def scored(pair, tasks, evaluation):
    found = {}
    for name, metric in TASKS.items():
        info = evaluation.task(name)
        readings = evaluation.ledger.by_document(name)
        scorer = DocumentScorer(tasks.tasks[name], metric, rolling=info.output_type == "loglikelihood_rolling")
        found[name] = SetScores(pair, readings, PLAYERS_PL, batch_tokens=150).score(scorer, PLAN.member_SP)
    return found


@pytest.mark.parametrize("name", TASKS)
def test_the_candidates_own_state_gives_lm_evals_own_values(name, scored, tasks, evaluation):
    documents = evaluation.of(name, "none")
    recorded = [documents[d].values[TASKS[name]] for d in sorted(documents)]
    whole = scored[name].values_SN[-1]
    assert all(is_same(own, other, 1e-4) for own, other in zip(whole, recorded, strict=True))
    score = set_scores([whole], tasks.aggregation(name, TASKS[name]))[0]
    assert score == pytest.approx(evaluation.task(name).scores[f"{TASKS[name]},none"], rel=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_lm_evals_own(name, scored, evaluation):
    for answers, readings in zip(scored[name].whole_N, evaluation.ledger.by_document(name).values(), strict=True):
        assert [a[0] for a in answers] == pytest.approx([r.log_likelihood for r in readings], abs=1e-3)
        assert [a[1] for a in answers] == [r.greedy for r in readings]


def by_lm_eval(tiny_models, pair, tasks, members):
    """lm-eval's scores of the candidate while a hook puts x^b and what some players change in the layer's place."""
    baseline, candidate = (m.hf_model for m in tiny_models)
    crosscoder = pair.crosscoder
    decoder, bias = crosscoder.raw_decoder().double(), crosscoder.raw_bias().double()
    seen = {}

    def replaced(_module, _args, output):
        x_c = (output[0] if isinstance(output, tuple) else output).double()
        x_b = baseline(seen["ids"], output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1].double()
        f = crosscoder.encode(torch.stack([x_b, x_c], dim=2).flatten(0, 1).float()).double().unflatten(0, x_b.shape[:2])
        coded = torch.ones(x_b.shape[1])
        coded[0] = 0
        errors = [x - f @ decoder[:, m] - bias[m] for m, x in enumerate((x_b, x_c))]
        state = x_b.clone()
        for p in members:
            written = f @ ((decoder[:, 1] - decoder[:, 0]) * torch.from_numpy(PLAYERS_PL[p])[:, None]) if p < 2 else (
                bias[1] - bias[0] + errors[1] - errors[0]
            )  # fmt: skip
            state += coded[:, None] * written
            if p == 2:
                state[:, 0] += (x_c - x_b)[:, 0]
        state = state.float()
        return (state, *output[1:]) if isinstance(output, tuple) else state

    def reading(_module, args, kwargs):
        seen["ids"] = args[0] if args else kwargs["input_ids"]

    handles = [
        candidate.register_forward_pre_hook(reading, with_kwargs=True),
        decoder_layers(candidate)[1][LAYER].register_forward_hook(replaced),
    ]
    try:
        found = harness.evaluate(tiny_models[1], tasks)[0]
    finally:
        for handle in handles:
            handle.remove()
    return {name: found.task(name).scores[f"{metric},none"] for name, metric in TASKS.items()}


@pytest.fixture(scope="module")
def reference(tiny_models, pair, tasks):
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in PLAN.member_SP]
    return {members: by_lm_eval(tiny_models, pair, tasks, members) for members in sets}


@pytest.mark.parametrize("name", TASKS)
def test_every_set_scores_as_lm_eval_scores_it(name, scored, tasks, reference):
    score_S = set_scores(scored[name].values_SN, tasks.aggregation(name, TASKS[name]))
    assert score_S == pytest.approx([by_set[name] for by_set in reference.values()], rel=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_values_are_the_mean_over_all_orderings_of_lm_evals_scores(name, scored, tasks, reference):
    aggregation = tasks.aggregation(name, TASKS[name])
    score_S = set_scores(scored[name].values_SN, aggregation)
    wanted = np.zeros(3)
    for order in permutations(range(3)):
        for i, player in enumerate(order):
            before = frozenset(order[:i])
            wanted[player] += (reference[before | {player}][name] - reference[before][name]) / 6
    resampled = resampling(TASKS[name], scored[name].values_SN, score_S, aggregation)
    found = shapley_values(PLAN, score_S, resampled, len(scored[name].values_SN[0]), np.random.default_rng(0))
    size = np.abs(wanted).max() + 1e-3
    np.testing.assert_allclose(found.value_P, wanted, atol=2e-3 * size)
    assert found.value_P.sum() == pytest.approx(score_S[-1] - score_S[0], abs=1e-9)
    assert found.intervals is not None
    assert np.all((found.intervals.low <= found.value_P + 1e-9) & (found.value_P <= found.intervals.high + 1e-9))


@pytest.mark.parametrize("name", TASKS)
def test_resampled_scores_are_lm_evals_of_repeated_documents(name, scored, tasks):
    aggregation = tasks.aggregation(name, TASKS[name])
    values_SN = scored[name].values_SN
    resampled = resampling(TASKS[name], values_SN, set_scores(values_SN, aggregation), aggregation)
    assert resampled is not None
    weights_RN = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=5)
    drawn = [np.repeat(np.arange(12), w) for w in weights_RN]
    wanted = [set_scores([[v[i] for i in rows] for v in values_SN], aggregation) for rows in drawn]
    np.testing.assert_allclose(resampled(weights_RN.astype(float)), wanted, rtol=1e-9)


def test_a_metric_that_is_no_sum_over_documents_is_not_resampled():
    values_SN = [[0.0, 1.0, 5.0], [2.0, 3.0, 9.0]]
    assert resampling("median", values_SN, set_scores(values_SN, np.median), np.median) is None


def test_every_latent_has_to_belong_to_one_player(pair):
    with pytest.raises(ValueError, match="one player"):
        SetScores(pair, {}, PLAYERS_PL[:1])


def test_a_text_without_tokens_is_answered_by_nothing(pair, tasks, evaluation):
    scorer = DocumentScorer(tasks.tasks["tiny_text"], "bits_per_byte", rolling=True)
    readings = evaluation.ledger.by_document("tiny_text")
    found = SetScores(pair, {0: [], 1: readings[1]}, PLAYERS_PL).score(scorer, PLAN.member_SP)
    assert [values_N[0][0] for values_N in found.values_SN] == [0.0] * 8
    assert found.values_SN[0][1][0] < 0


def test_templates_are_rendered_once_a_document_and_the_task_is_left_as_it_is(tasks, evaluation, monkeypatch):
    task = tasks.tasks["tiny_choice"]
    calls = []
    whole = type(task).doc_to_choice
    monkeypatch.setattr(type(task), "doc_to_choice", lambda self, doc: calls.append(doc) or whole(self, doc))
    scorer = DocumentScorer(task, "acc", rolling=False)
    readings = evaluation.ledger.by_document("tiny_choice")[0]
    right = [scorer.value(0, readings, [(a, False), (b, False)]) for a, b in ((-1.0, -2.0), (-2.0, -1.0))]
    assert sorted(right) == [0.0, 1.0]
    assert len(calls) == 1
    assert "doc_to_choice" not in vars(task)
