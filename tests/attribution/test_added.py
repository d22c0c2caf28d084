"""The candidate on the baseline's state plus some changes: generated with a cache, against reading everything anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.attribution.batches import Batch, DocumentForm, Span
from diffharness.attribution.interventions import CANDIDATE, intervene
from diffharness.attribution.real_metric import DocumentScorer, SetScores
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.evaluation import harness
from diffharness.stages.shapley_values import arm_of

LAYER, N_LATENTS = 1, 24
HALF_L = np.arange(N_LATENTS) % 2 == 0
ARMS = {
    "nobody": (np.zeros(N_LATENTS, dtype=bool), False),
    "half": (HALF_L, False),
    "half, bias and error": (HALF_L, True),
    "all latents": (np.ones(N_LATENTS, dtype=bool), False),
}


def with_players(pair, latents_L, *, bias_and_error):
    return intervene(pair.readers, pair.crosscoder, CANDIDATE, arm_of(latents_L, bias_and_error=bias_and_error))


@pytest.fixture(scope="module")
def pair(tiny_models):
    models = [m.hf_model for m in tiny_models]
    generator = torch.Generator().manual_seed(5)
    config = CrosscoderConfig(
        sides=("baseline", "candidate"), d_model=16, n_latents=N_LATENTS, k=4, skipped_ids=(7,)
    )  # fmt: skip
    crosscoder = Crosscoder(config).requires_grad_(False)
    for tensor in (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.b_enc_L, crosscoder.b_dec_MD):
        tensor.copy_(0.6 * torch.randn(tensor.shape, generator=generator))
    crosscoder.scale_M.copy_(torch.tensor([0.8, 1.3]))
    crosscoder.threshold.fill_(0.4)
    readers = tuple(LayerReader(m, LAYER) for m in models)
    return ModelPair(readers, tuple(UpperStack(m, LAYER) for m in models), crosscoder)


def read_anew(pair, prompt, n_new, latents_L, bias_and_error):
    """Greedy tokens, everything read again for each."""
    ids = list(prompt)
    for _ in range(n_new):
        form = DocumentForm(0, (Span(tuple(ids), len(ids) - 1, (0,)),), LogLikelihood(1.0, 1.0))
        states = PairStates(pair, Batch([form], pair.device))
        chosen_L = torch.from_numpy(latents_L if not bias_and_error else ~latents_L)
        change = states.decoded(1, chosen_L) - states.decoded(0, chosen_L)
        state = states.x_BTD[1].double() - change if bias_and_error else states.x_BTD[0].double() + change
        with torch.no_grad():
            logits_BTV = pair.uppers[1].logits(torch.tensor([ids]), state)
        ids.append(int(logits_BTV[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("arm", ARMS)
def test_generating_with_a_cache_is_reading_everything_anew(pair, arm):
    prompts = ([1, 5, 9, 12, 7, 30], [1, 20, 7, 11])
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    candidate = pair.readers[1].model
    with (
        intervene(pair.readers, pair.crosscoder, CANDIDATE, arm_of(ARMS[arm][0], bias_and_error=ARMS[arm][1])),
        torch.no_grad(),
    ):
        found = candidate.generate(
            input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=8, do_sample=False, eos_token_id=None
        )
    for row, prompt in zip(found[:, width:].tolist(), prompts, strict=True):
        assert row == read_anew(pair, prompt, 8, *ARMS[arm])


def test_arms_generate_different_answers(pair):
    answers = {tuple(read_anew(pair, [1, 5, 9, 12, 7, 30], 8, *arm)) for arm in ARMS.values()}
    assert len(answers) > 1


def test_everybody_is_the_candidate_itself_and_it_is_restored(pair):
    candidate = pair.readers[1].model
    ids_BT = torch.tensor([[1, 5, 9, 12, 7, 30]])
    with torch.no_grad():
        own = candidate(ids_BT).logits
        with intervene(
            pair.readers, pair.crosscoder, CANDIDATE, arm_of(np.ones(N_LATENTS, dtype=bool), bias_and_error=True)
        ):
            inside = candidate(ids_BT).logits
        with with_players(pair, HALF_L, bias_and_error=False):
            changed = candidate(ids_BT).logits
        after = candidate(ids_BT).logits
    assert torch.equal(own, inside)
    assert torch.equal(own, after)
    assert not torch.allclose(own, changed, atol=1e-3)


def test_lm_eval_gives_the_scores_of_the_passes_from_stored_states(pair, tiny_models, tiny_tasks, tiny_evaluations):
    players_PL = np.stack([HALF_L, ~HALF_L])
    readings = tiny_evaluations[1].ledger.by_document("tiny_text")
    scorer = DocumentScorer(tiny_tasks.tasks["tiny_text"], "bits_per_byte", rolling=True)
    members_SP = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    scored = SetScores(pair, readings, players_PL).score(scorer, members_SP)
    for member_P, values_N in zip(members_SP, scored.values_SN, strict=True):
        latents_L = np.any(players_PL[member_P[:2]], axis=0)
        with with_players(pair, latents_L, bias_and_error=bool(member_P[2])):
            found, _ = harness.evaluate(tiny_models[1], tiny_tasks, only=["tiny_text"])
        own = found.of("tiny_text", "none")
        assert [v[0] for v in values_N] == pytest.approx(
            [np.ravel(own[d].values["bits_per_byte"])[0] for d in readings], rel=1e-4
        )
