"""Nearest latents against the whole matrix of cosines, and latents that other trainings found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError
from diffharness.latents import neighbours
from diffharness.latents.neighbours import found_again, nearest


def crosscoder(W_dec_LMD: torch.Tensor, sides: tuple[str, ...] = ("baseline", "candidate")) -> Crosscoder:
    n_latents, _, d_model = W_dec_LMD.shape
    made = Crosscoder(CrosscoderConfig(sides=sides, d_model=d_model, n_latents=n_latents, k=1))
    made.requires_grad_(False)
    made.W_dec_LMD.copy_(W_dec_LMD)
    return made


def random_decoder(n_latents: int = 40, seed: int = 0, d_model: int = 12) -> torch.Tensor:
    return torch.randn(n_latents, 2, d_model, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[(7, 11), (1024, 4096), (1, 1)], autouse=True)
def _blocks(request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHOSEN_BLOCK", request.param[0])
    monkeypatch.setattr(neighbours, "OTHER_BLOCK", request.param[1])


def whole_matrix(d_LMD: torch.Tensor) -> np.ndarray:
    flat = d_LMD.double().flatten(1).numpy()
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine


def test_neighbours_are_those_of_the_whole_matrix_of_cosines():
    d = random_decoder()
    chosen = [3, 39, 0, 17, 3]
    index, cosine = nearest(crosscoder(d), chosen, n=4)
    whole = whole_matrix(d)[chosen]
    expected = np.argsort(-whole, axis=1)[:, :4]
    assert index.tolist() == expected.tolist()
    np.testing.assert_allclose(cosine, np.take_along_axis(whole, expected, axis=1), atol=1e-6)


def test_a_planted_twin_is_the_nearest_whatever_its_length():
    d = random_decoder()
    d[31] = 50 * d[4] + 0.01 * random_decoder(seed=2)[0]
    index, cosine = nearest(crosscoder(d), [4, 31], n=1)
    assert index.tolist() == [[31], [4]]
    assert (cosine > 0.999).all()


def test_the_same_direction_in_other_proportions_between_the_models_is_not_the_same_latent():
    d = torch.zeros(3, 2, 4)
    d[0, :, 0], d[1, 1, 0], d[2, 0, 0] = 1, 1, 1
    _, cosine = nearest(crosscoder(d), [0, 1], n=2)
    np.testing.assert_allclose(cosine, [[2**-0.5] * 2, [2**-0.5, 0]], atol=1e-6)


def test_latents_without_a_decoder_have_no_neighbours_and_are_none():
    d = random_decoder(5)
    d[[1, 3]] = 0
    index, cosine = nearest(crosscoder(d), range(5), n=3)
    assert (index[[1, 3]] == -1).all()
    assert np.isnan(cosine[[1, 3]]).all()
    for row, others in ((0, {2, 4}), (2, {0, 4}), (4, {0, 2})):
        assert set(index[row].tolist()) == others | {-1}
        assert np.isnan(cosine[row]).tolist() == [False, False, True]


def test_only_living_latents_are_neighbours():
    d = random_decoder()
    alive = np.zeros(40, dtype=bool)
    alive[[5, 6, 7]] = True
    index, _ = nearest(crosscoder(d), [0, 5], n=3, alive_L=alive)
    assert set(index[0].tolist()) == {5, 6, 7}
    assert set(index[1].tolist()) == {6, 7, -1}
    same, _ = nearest(crosscoder(d), [0, 5], n=3, alive_L=torch.from_numpy(alive))
    assert np.array_equal(index, same)


def test_nothing_chosen_gives_empty_arrays():
    index, cosine = nearest(crosscoder(random_decoder()), [], n=3)
    assert index.shape == cosine.shape == (0, 3)


def test_found_again_are_the_latents_that_every_other_seed_has():
    d = random_decoder()
    both, one = random_decoder(seed=1), random_decoder(seed=2)
    both[:25] = d[torch.arange(24, -1, -1)] * 3
    one[10:40] = d[10:40]
    found = found_again(crosscoder(d), [crosscoder(both), crosscoder(one)])
    assert found.dtype == bool
    assert np.flatnonzero(found).tolist() == list(range(10, 25))


def test_a_latent_that_never_fires_was_not_found_again():
    d = random_decoder()
    alive = np.arange(40) % 2 == 0
    assert np.array_equal(found_again(crosscoder(d), [crosscoder(d)], alive), alive)
    assert np.array_equal(found_again(crosscoder(d), [crosscoder(d)], torch.from_numpy(alive)), alive)
    assert not found_again(crosscoder(d), [crosscoder(d)], np.zeros(40, dtype=bool)).any()
    assert alive.sum() == 20  # what was passed in is left as it was


def test_trainings_over_other_models_and_none_at_all_are_refused():
    d = crosscoder(random_decoder())
    with pytest.raises(UsageError, match="same models"):
        found_again(d, [crosscoder(random_decoder(), sides=("baseline", "ancestor"))])
    with pytest.raises(ValueError, match="no other training"):
        found_again(d, [])
