"""Random sets of latents: never the category's own, alike in frequency and size, and refused where none fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.attribution.matched import (
    NEAREST,
    NotTriedError,
    Sizes,
    draw_sets,
    latent_sizes,
    mask,
    matched_sets,
)
from diffharness.attribution.spliced import SplicedScores, own, put_back, taken_out
from tests.attribution.test_states import DOCUMENTS, exact, pair_of, random_crosscoder

CATEGORY = np.array([3, 7, 8, 11, 40])


@pytest.fixture
def sizes() -> Sizes:
    """300 latents of all frequencies and norms, a third of them silent."""
    rng = np.random.default_rng(0)
    count_L = np.round(np.exp(rng.uniform(0, 8, 300)))
    count_L[100:200] = 0
    return Sizes(count_L, np.exp(rng.normal(0, 1, 300)))


def test_sets_hold_others_that_fire_each_once(sizes):
    for chosen in draw_sets(sizes, CATEGORY, 50, np.random.default_rng(1)):
        assert len(set(chosen.tolist())) == len(CATEGORY)
        assert not set(chosen.tolist()) & set(CATEGORY.tolist())
        assert sizes.count_L[chosen].min() > 0


def test_sets_fire_as_often_and_move_as_much_as_the_category(sizes):
    drawn = np.array(draw_sets(sizes, CATEGORY, 200, np.random.default_rng(1)))
    anyone = np.flatnonzero(sizes.count_L > 0)
    for values_L in (sizes.count_L, sizes.norm_L):
        log_L = np.log(np.maximum(values_L, 1e-9))
        apart_T = np.abs(log_L[drawn] - log_L[CATEGORY]).mean(axis=0)
        at_random_T = np.abs(log_L[anyone][:, None] - log_L[CATEGORY]).mean(axis=0)
        assert (apart_T < 0.7 * at_random_T).all()


def test_sets_differ_and_follow_the_seed(sizes):
    first, again, other = (draw_sets(sizes, CATEGORY, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({tuple(sorted(s)) for s in first}) == 5


def test_silent_latents_of_a_category_ask_for_no_match(sizes):
    assert all(len(s) == 2 for s in draw_sets(sizes, np.array([3, 7, 120, 130]), 3, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("category", "reason"),
    [([110, 120], "none of its latents fires"), (list(range(90)), "only 110 latents of other categories")],
)
def test_a_category_without_a_match_is_refused_with_the_reason(sizes, category, reason):
    with pytest.raises(NotTriedError, match=reason):
        draw_sets(sizes, np.array(category), 3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def spliced(tiny_models) -> SplicedScores:
    crosscoder = random_crosscoder()
    crosscoder.threshold.fill_(0.4)
    return SplicedScores(pair_of([exact(m.hf_model) for m in tiny_models], crosscoder), DOCUMENTS)


@pytest.mark.parametrize("origin", ["written", "read"])
def test_sizes_are_those_of_dense_sums(spliced, origin):
    found = latent_sizes(spliced, origin)
    decoder_LMD = spliced.pair.crosscoder.raw_decoder().double()
    for j in range(0, 24, 5):
        alone_L = mask(np.array([j]), 24, spliced.pair.device)
        norms = []
        for states in spliced.states():
            moved = states.decoded(0, alone_L)
            moved = states.decoded(1, alone_L) - moved if origin == "written" else moved
            norms += [v for v in moved.norm(dim=-1).flatten().tolist() if v > 0]
        assert found.count_L[j] == len(norms)
        assert found.norm_L[j] == pytest.approx(np.mean(norms) if norms else 0.0)
    assert decoder_LMD.shape[0] == len(found.count_L)


@pytest.mark.parametrize(("origin", "arm", "model"), [("written", put_back, 1), ("read", taken_out, 0)])
def test_every_set_moves_the_state_as_far_as_the_category(spliced, origin, arm, model):
    category = np.array([1, 4])
    found = matched_sets(spliced, origin, category, 6, np.random.default_rng(0))

    def length(latents, factor):
        state = arm(mask(latents, 24, spliced.pair.device), factor)
        return sum(float((own(model)(s) - state(s)).square().sum()) for s in spliced.states()) ** 0.5

    for chosen, factor in zip(found.sets, found.factors, strict=True):
        assert length(chosen, factor) == pytest.approx(length(category, 1.0))


def test_latents_that_move_far_less_are_no_match(spliced, monkeypatch):
    loud_L11 = torch.where(torch.arange(24) < 2, 90.0, 1.0)[:, None, None]
    monkeypatch.setattr(spliced.pair.crosscoder, "raw_decoder", lambda: loud_L11.expand(24, 2, 16))
    again = SplicedScores(spliced.pair, DOCUMENTS)
    with pytest.raises(NotTriedError, match="times less"):
        matched_sets(again, "read", np.array([0, 1]), 6, np.random.default_rng(0))


def test_few_donors_are_enough_only_in_pairs_and_dozens():
    sizes = Sizes(np.ones(NEAREST + 1), np.ones(NEAREST + 1))
    assert len(draw_sets(sizes, np.array([0]), 2, np.random.default_rng(0))) == 2
    with pytest.raises(NotTriedError, match="too few"):
        draw_sets(sizes, np.array([0, 1]), 2, np.random.default_rng(0))
