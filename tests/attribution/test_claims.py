"""Claims against chance: planted nulls and planted effects, and every arm against hooks and dense sums."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from diffharness.activations.layers import decoder_layers
from diffharness.attribution import claims as room
from diffharness.attribution.claims import (
    Documents,
    Finding,
    Wanted,
    against_chance,
    check_nothing_changed,
    half_of,
    judge,
    select,
    try_claims,
    unseen,
)
from diffharness.attribution.spliced import CANDIDATE, SplicedScores, put_back
from diffharness.attribution.states import ModelPair
from diffharness.errors import RunError
from diffharness.statistics.multiple import holm
from tests.attribution.test_states import DOCUMENTS, LAYER, exact, pair_of, random_crosscoder

N, SETS, SIMULATIONS = 60, 24, 300


def documents(n: int = N, rng: np.random.Generator | None = None) -> Documents:
    halves = np.arange(n) % 2 if rng is None else rng.integers(0, 2, n)
    return Documents(np.ones(n), np.ones(n), halves)


def simulated(rng: np.random.Generator, n_claims: int, effect: float = 0.0, spread: float = 0.0):
    """Contributions and effects of claims that agree closely document by document, and random sets'.

    A claim's effect is `effect`, and with `spread` something of its own; a random set's only the latter.
    """

    def means(*shape: int) -> np.ndarray:
        return spread * rng.normal(size=shape)

    own_C = effect + means(n_claims)
    contribution_NC = own_C + rng.normal(size=(N, n_claims))
    effect_NC = contribution_NC + 0.3 * rng.normal(size=(N, n_claims))
    random_CSN = means(n_claims, SETS)[..., None] + np.sqrt(1.09) * rng.normal(size=(n_claims, SETS, N))
    return contribution_NC, effect_NC, random_CSN


def found_in(rng: np.random.Generator, n_claims: int, **planted: float) -> tuple[list[Finding], list[Finding]]:
    """What one data set finds on documents that did not select it, and, wrongly, on those that did."""
    contribution_NC, effect_NC, random_CSN = simulated(rng, n_claims, **planted)
    docs = documents()
    signs_2C = select(contribution_NC, contribution_NC.sum(axis=1), docs, 0.0, rng)
    honest, circular = [], []
    for c in np.flatnonzero(signs_2C.any(axis=0)):
        for signs_2, findings in ((signs_2C[:, c], honest), (signs_2C[::-1, c], circular)):
            finding = judge(effect_NC[:, c], random_CSN[c], signs_2, docs, rng)
            assert finding is not None
            findings.append(finding)
    return honest, circular


@pytest.fixture(scope="module")
def nulls() -> tuple[list[Finding], list[Finding]]:
    rng = np.random.default_rng(0)
    pairs = [found_in(rng, 20) for _ in range(SIMULATIONS)]
    return [f for honest, _ in pairs for f in honest], [f for _, circular in pairs for f in circular]


@pytest.mark.parametrize("name", ["p_random", "p_studentised"])
def test_claims_of_nothing_beat_chance_no_oftener_than_they_may(nulls, name):
    honest, circular = ([getattr(f, name) <= 0.05 for f in findings] for findings in nulls)
    assert len(honest) > 300
    assert np.mean(honest) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(honest))
    assert np.mean(circular) > 0.3  # the same test on the documents that selected them would be worthless


def test_effects_of_nothing_are_nothing_on_documents_not_looked_at(nulls):
    honest, circular = (np.array([abs(f.effect) for f in findings]) for findings in nulls)
    excluded = np.mean([f.interval.excludes_zero() for f in nulls[0]])
    assert excluded <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(honest))
    assert np.mean(circular) > 2 * np.mean(honest)


def test_a_planted_effect_is_found_and_not_exaggerated():
    rng = np.random.default_rng(1)
    found = [f for _ in range(60) for f in found_in(rng, 1, effect=1.5, spread=0.1)[0]]
    assert len(found) == 60
    assert np.mean([f.p_random <= 0.05 and f.p_studentised <= 0.001 for f in found]) > 0.95
    assert np.mean([f.effect for f in found]) == pytest.approx(1.5, abs=0.06)
    assert {f.n for f in found} == {N}


def test_the_largest_of_many_sets_is_no_claim_once_all_that_were_looked_at_count():
    """Categories that are themselves random sets: each does something of its own, on either half alike."""
    rng, n_claims, over_all, over_selected = np.random.default_rng(2), 40, 0, 0
    for _ in range(SIMULATIONS):
        contribution_NC, effect_NC, random_CSN = simulated(rng, n_claims, spread=1.0)
        docs, means_C = documents(), np.abs(contribution_NC.mean(axis=0))
        largest = [int(c) for c in np.argsort(-means_C)[:2]]
        found = [judge(effect_NC[:, c], random_CSN[c], np.array([1, 1]) * int(np.sign(contribution_NC[:, c].mean())),
                       docs, rng) for c in largest]  # fmt: skip
        p_values = [f.p_studentised for f in found if f is not None]
        assert len(p_values) == 2
        over_all += holm([*p_values, *[1.0] * (n_claims - 2)]).min() <= 0.05
        over_selected += holm(p_values).min() <= 0.05
    assert over_all / SIMULATIONS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert over_selected / SIMULATIONS > 0.3


def test_only_the_half_that_did_not_select_counts():
    docs = documents(40)
    effect_N, none_SN = np.where(docs.half_N == 1, 2.0, -7.0), np.zeros((0, 40))
    by_first = judge(effect_N, none_SN, np.array([1, 0]), docs, np.random.default_rng(0))
    assert by_first is not None
    assert (by_first.effect, by_first.n) == (2.0, 20)
    np.testing.assert_array_equal(unseen(np.array([1, 0]), docs), docs.half_N == 1)
    assert judge(effect_N, none_SN, np.array([0, 0]), docs, np.random.default_rng(0)) is None


def test_a_contribution_is_selected_where_it_is_clear_large_and_of_one_sign():
    rng, docs = np.random.default_rng(3), documents(80)
    noise_N, first_N = 0.2 * rng.normal(size=80), docs.half_N == 0
    columns = {
        "both": 1 + noise_N,
        "first": np.where(first_N, 1.0, 0.0) + noise_N,
        "opposite": np.where(first_N, 1.0, -1.0) + noise_N,
        "against": -1 + noise_N,
        "small": 0.1 + 0.01 * noise_N,
        "noise": noise_N - np.where(first_N, noise_N[first_N].mean(), noise_N[~first_N].mean()),
    }
    gap_N = np.full(80, 10.0)
    signs_2C = select(np.stack(list(columns.values()), axis=1), gap_N, docs, 0.05, rng)
    assert dict(zip(columns, signs_2C.T.tolist(), strict=True)) == {
        "both": [1, 1], "first": [1, 0], "opposite": [0, 0], "against": [-1, -1], "small": [0, 0], "noise": [0, 0]
    }  # fmt: skip


def test_a_half_of_few_documents_selects_nothing():
    docs = Documents(np.ones(20), np.ones(20), (np.arange(20) < room.SMALLEST_HALF - 1).astype(int))
    signs_2C = select(np.ones((20, 1)), np.ones(20), docs, 0.05, np.random.default_rng(0))
    assert signs_2C.tolist() == [[1], [0]]


def test_documents_count_as_they_were_drawn_and_weigh():
    docs = Documents(np.array([1.0, 3.0, 1.0]), np.array([0.5, 1.0, 2.0]), np.array([0, 0, 1]))
    chosen_N = np.array([True, True, False])
    assert docs.mean(np.array([2.0, 4.0, 100.0]), chosen_N) == pytest.approx((2 + 12) / (0.5 + 3))


def test_both_p_values_are_those_of_their_definitions():
    random_S = np.array([0.1, -0.3, 0.2, 0.05, -0.1, 0.5])
    n_reaching, p_random, p_studentised = against_chance(0.4, random_S, 1)
    assert (n_reaching, p_random) == (1, 2 / 7)
    distance = (0.4 - random_S.mean()) / (random_S.std(ddof=1) * np.sqrt(1 + 1 / 6))
    assert p_studentised == pytest.approx(2 * stats.t(5).sf(distance))
    assert against_chance(-0.4, -random_S, -1) == pytest.approx((n_reaching, p_random, p_studentised))
    assert against_chance(0.4, random_S, -1)[1:] == (1.0, 1.0)
    assert against_chance(0.4, np.zeros(6), 1) == (0, 1 / 7, 1 / 7)


def test_halves_are_about_equal_and_copies_stay_together():
    halves = [half_of(f"document {i}") for i in range(2000)]
    assert 0.45 < np.mean(halves) < 0.55
    assert half_of("document 7") == halves[7]


LATENTS = np.array([0, 2, 3, 5, 8, 13, 21])


@pytest.fixture(scope="module")
def pair(tiny_models) -> ModelPair:
    return pair_of([exact(m.hf_model) for m in tiny_models], random_crosscoder())


@pytest.fixture(scope="module")
def trials(pair):
    wanted = [Wanted("one", origin, LATENTS) for origin in ("read", "written")]
    return dict(zip(("read", "written"), try_claims(SplicedScores(pair, DOCUMENTS, keep=False), wanted, 3, [0])))


@dataclass(frozen=True)
class Parts:
    """States x^b and x^c, code f, decoders d and biases of both models, and whether a position has a code."""

    b: torch.Tensor
    c: torch.Tensor
    f: torch.Tensor
    d: torch.Tensor
    bias: torch.Tensor
    on: torch.Tensor


def by_hooks(pair, state_of) -> np.ndarray:
    """Every document's m under both models when the layer holds what `state_of` makes of its parts."""
    models = [reader.model for reader in pair.readers]
    decoder_LMD, bias_MD = pair.crosscoder.raw_decoder().double(), pair.crosscoder.raw_bias().double()
    found_MN = np.zeros((2, len(DOCUMENTS)))
    for n, document in enumerate(DOCUMENTS):
        for span in document.spans:
            ids = torch.tensor([span.ids])
            with torch.no_grad():
                x = [m(ids, output_hidden_states=True).hidden_states[LAYER + 1].clone() for m in models]
                code_TL = pair.crosscoder.encode(torch.stack([x[0][0], x[1][0]], dim=1).float()).double()
                code_TL[0] = 0
                coded_T1 = torch.ones(len(span.ids), 1).double()
                coded_T1[0] = 0
                state = state_of(Parts(x[0][0], x[1][0], code_TL, decoder_LMD, bias_MD, coded_T1))[None]
                for m, model in enumerate(models):
                    handle = decoder_layers(model)[1][LAYER].register_forward_hook(lambda *_, s=state: s)
                    log_p = model(ids).logits[0].log_softmax(-1)
                    handle.remove()
                    found_MN[m, n] += sum(float(log_p[span.start + i, t]) for i, t in enumerate(span.targets))
    return found_MN


def test_arms_of_what_is_written_are_those_of_their_definitions(pair, trials):
    chosen = torch.zeros(pair.crosscoder.n_latents).double()
    chosen[torch.tensor(LATENTS)] = 1
    whole_N = by_hooks(pair, lambda p: p.c)[1]
    back_N = by_hooks(pair, lambda p: p.c - (p.f * chosen) @ (p.d[:, 1] - p.d[:, 0]))[1]
    rebuilt_N = by_hooks(pair, lambda p: p.on * (p.f @ p.d[:, 1] + p.bias[1]) + (1 - p.on) * p.c)[1]
    swapped_N = by_hooks(pair, lambda p: p.b)[1]
    trial = trials["written"]
    np.testing.assert_allclose(trial.effect_N, whole_N - back_N, atol=1e-6)
    np.testing.assert_allclose(trial.reconstruct_only_N, whole_N - rebuilt_N, atol=1e-6)
    np.testing.assert_allclose(trial.swap_N, whole_N - swapped_N, atol=1e-6)
    assert np.abs(trial.effect_N).min() > 1e-4


def test_arms_of_what_is_read_are_differences_of_two_ablations(pair, trials):
    chosen = torch.zeros(pair.crosscoder.n_latents).double()
    chosen[torch.tensor(LATENTS)] = 1
    whole_MN = by_hooks(pair, lambda p: p.b)
    without_MN = by_hooks(pair, lambda p: p.b - (p.f * chosen) @ p.d[:, 0])
    rebuilt_MN = by_hooks(pair, lambda p: p.on * (p.f @ p.d[:, 0] + p.bias[0]) + (1 - p.on) * p.b)
    trial, swap_N = trials["read"], whole_MN[1] - whole_MN[0]
    np.testing.assert_allclose(trial.effect_N, swap_N - (without_MN[1] - without_MN[0]), atol=1e-6)
    np.testing.assert_allclose(trial.reconstruct_only_N, swap_N - (rebuilt_MN[1] - rebuilt_MN[0]), atol=1e-6)
    np.testing.assert_allclose(trial.swap_N, swap_N, atol=1e-6)


def test_along_the_mean_difference_nothing_is_left_of_the_candidates_change(pair, trials):
    direction_D = SplicedScores(pair, DOCUMENTS).mean_difference()
    assert float(direction_D.norm()) == pytest.approx(1)
    whole_N = by_hooks(pair, lambda p: p.c)[1]

    def flat(p):
        return p.c - p.on * ((p.c - p.b) @ direction_D)[:, None] * direction_D

    np.testing.assert_allclose(trials["written"].mean_difference_N, whole_N - by_hooks(pair, flat)[1], atol=1e-6)


def test_a_claim_does_not_depend_on_what_else_is_tried(pair, trials):
    alone = try_claims(SplicedScores(pair, DOCUMENTS, batch_tokens=1), [Wanted("one", "written", LATENTS)], 3, [0])[0]
    np.testing.assert_allclose(alone.random_SN, trials["written"].random_SN, atol=1e-9)
    assert alone.random_SN.shape == (3, len(DOCUMENTS))


def test_a_category_without_a_match_is_not_tried_but_has_its_effect(pair, trials):
    most = np.arange(pair.crosscoder.n_latents - 3)
    (trial,) = try_claims(SplicedScores(pair, DOCUMENTS), [Wanted("most", "written", most)], 3, [0])
    assert trial.not_tried is not None
    assert "too few" in trial.not_tried
    assert len(trial.random_SN) == 0
    assert np.abs(trial.effect_N).max() > 0


def test_nothing_changed_gives_the_models_own_scores_to_the_last_bit(tiny_models):
    pair = pair_of([m.hf_model for m in tiny_models], random_crosscoder())
    spliced = SplicedScores(pair, DOCUMENTS)
    check_nothing_changed(spliced)
    nothing_L = torch.zeros(pair.crosscoder.n_latents, dtype=torch.bool)
    np.testing.assert_array_equal(spliced.m(CANDIDATE, put_back(nothing_L)), spliced.whole_m(CANDIDATE))


def test_an_intervention_that_changes_something_by_itself_stops_the_run(pair):
    other = copy.deepcopy(pair.readers[1].model)
    with torch.no_grad():
        next(iter(other.lm_head.parameters())).mul_(1 + 1e-5)
    wrong = ModelPair(pair.readers, (pair.uppers[0], pair_of([other, other]).uppers[1]), pair.crosscoder)
    with pytest.raises(RunError, match="no latent changed the candidate scores otherwise"):
        try_claims(SplicedScores(wrong, DOCUMENTS), [Wanted("one", "written", LATENTS)], 3, [0])
