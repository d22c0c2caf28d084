"""Matching two dictionaries on planted permutations and perturbations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.crosscoder import stability
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import measure
from diffharness.crosscoder.stability import matched_share
from diffharness.crosscoder.training import train
from diffharness.errors import UsageError
from tests.crosscoder.planted import plant


def crosscoder(W_dec_LMD: torch.Tensor, seed: int = 0, sides: tuple[str, ...] = ("a", "b")) -> Crosscoder:
    n_latents, _, d_model = W_dec_LMD.shape
    settings = TrainingSettings(n_latents=n_latents, k=1, seed=seed)
    made = Crosscoder(CrosscoderConfig(sides=sides, d_model=d_model, n_latents=n_latents, k=1, training=settings))
    made.requires_grad_(False)
    made.W_dec_LMD.copy_(W_dec_LMD)
    return made


def random_decoder(n_latents: int, seed: int = 0, d_model: int = 24) -> torch.Tensor:
    return torch.randn(n_latents, 2, d_model, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "FIRST_BLOCK", 7)
    monkeypatch.setattr(stability, "SECOND_BLOCK", 11)


def test_a_permutation_is_matched_whole_whatever_the_latents_lengths():
    decoder, order = random_decoder(50), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    found = matched_share(crosscoder(decoder), crosscoder(decoder[order] * torch.rand(50, 1, 1) * 9, seed=4))
    assert found.share == 1
    assert found.cosine_median == pytest.approx(1, abs=1e-6)
    assert torch.equal(order[found.match_L], torch.arange(50))
    assert found.seeds == (0, 4)


def test_the_share_is_that_of_the_perturbed_latents_below_the_cosine():
    decoder = random_decoder(40)
    unit = decoder / decoder.flatten(1).norm(dim=1)[:, None, None]
    other = random_decoder(40, seed=9)
    across = other - (other * unit).sum(dim=(1, 2))[:, None, None] * unit
    across /= across.flatten(1).norm(dim=1)[:, None, None]
    cosine_L = torch.where(torch.arange(40) < 25, 0.91, 0.85)[:, None, None]
    found = matched_share(crosscoder(decoder), crosscoder(cosine_L * unit + (1 - cosine_L**2).sqrt() * across))
    assert found.share == 25 / 40
    assert found.matched_L.tolist() == [True] * 25 + [False] * 15
    assert torch.equal(found.match_L, torch.arange(40))
    assert found.best_cosine_L.numpy() == pytest.approx(cosine_L.flatten().numpy(), abs=1e-5)


def test_nearest_latents_are_those_of_the_whole_cosine_matrix():
    first, second = random_decoder(33), random_decoder(58, seed=3)
    found = matched_share(crosscoder(first), crosscoder(second))
    a, b = (w.double().flatten(1) for w in (first, second))
    best, match = (a @ b.T / a.norm(dim=1)[:, None] / b.norm(dim=1)).max(dim=1)
    assert torch.equal(found.match_L, match)
    torch.testing.assert_close(found.best_cosine_L.double(), best, atol=1e-6, rtol=0)
    assert found.cosine_median == pytest.approx(float(best.median()), abs=1e-6)


def test_dead_latents_do_not_count_on_either_side():
    decoder = random_decoder(20)
    changed = decoder.clone()
    changed[10:] = random_decoder(10, seed=7)
    alive = torch.arange(20) < 5
    found = matched_share(crosscoder(decoder), crosscoder(changed), alive=alive)
    assert (found.share, found.n_alive) == (1, 5)
    assert matched_share(crosscoder(decoder), crosscoder(decoder), second_alive=~alive).share == 15 / 20
    with pytest.raises(UsageError, match="no latent is alive"):
        matched_share(crosscoder(decoder), crosscoder(decoder), alive=alive & ~alive)


def test_a_latent_that_moved_to_one_model_or_lost_its_decoder_is_not_matched():
    decoder = random_decoder(3)
    decoder[:, 1] = decoder[:, 0]
    specific = decoder.clone()
    specific[0, 1] = 0
    specific[1] = 0
    found = matched_share(crosscoder(decoder), crosscoder(specific))
    assert found.matched_L.tolist() == [False, False, True]
    assert float(found.best_cosine_L[0]) == pytest.approx(0.5**0.5, abs=1e-5)
    assert float(matched_share(crosscoder(specific), crosscoder(decoder)).best_cosine_L[1]) == 0


def test_chance_is_what_random_directions_give():
    first, second = random_decoder(3000, d_model=2), random_decoder(40, seed=5, d_model=2)
    found = matched_share(crosscoder(first), crosscoder(second), cosine=0.8)
    rng = np.random.default_rng(0)
    own = rng.normal(size=(4000, 40, 4))
    best = (own[..., 0] / np.linalg.norm(own, axis=-1)).max(axis=1)
    assert found.chance_share == pytest.approx((best > 0.8).mean(), abs=0.02)
    assert found.chance_cosine == pytest.approx(np.median(best), abs=0.005)
    assert matched_share(crosscoder(random_decoder(9)), crosscoder(random_decoder(9, seed=1))).chance_share < 1e-15


def test_crosscoders_over_other_models_have_nothing_to_match():
    with pytest.raises(UsageError, match="over a, b of width 24 and over a, c"):
        matched_share(crosscoder(random_decoder(4)), crosscoder(random_decoder(4), sides=("a", "c")))
    with pytest.raises(UsageError, match="of width 8"):
        matched_share(crosscoder(random_decoder(4)), crosscoder(random_decoder(4, d_model=8)))


def test_two_seeds_find_the_same_latents_where_there_is_a_true_dictionary():
    planted, heldout = plant(8_000), plant(4_000, seed=1)
    first, second = (
        train(
            planted.x_NMD,
            TrainingSettings(n_latents=48, k=2, seed=seed, n_steps=500, batch_tokens=512),
            sides=("baseline", "candidate"),
            heldout_NMD=heldout.x_NMD,
        )
        for seed in (0, 1)
    )
    found = matched_share(first, second, alive=measure(first, heldout.x_NMD).fired_L)
    assert found.share > 0.9
    assert found.seeds == (0, 1)
    assert len(set(found.match_L[found.matched_L].tolist())) > 0.9 * found.n_alive
