"""The largest of a batch, and the threshold that keeps as many at inference."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.calibration import ThresholdCalibration
from diffharness.crosscoder.selection import Encoder, Selection, largest_of_batch, largest_of_tokens


def random_values(n_tokens: int = 50, n_latents: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_tokens, n_latents, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Batch:
    """Random activations, an encoder with latents of different norms, and all values that are ranked."""

    z_NX: Tensor
    encoder: Encoder
    pre_NL: Tensor
    scaled_NL: Tensor


def batch(dtype: torch.dtype = torch.float32, n_tokens: int = 300, n_latents: int = 40, bias: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(3)
    z_NX, W_LX = torch.randn(n_tokens, 12, generator=generator), torch.randn(n_latents, 12, generator=generator)
    b_L = 0.1 * torch.randn(n_latents, generator=generator) + bias
    norm_L = 0.5 + torch.rand(n_latents, generator=generator)
    pre_NL = z_NX @ W_LX.T + b_L
    return Batch(z_NX, Encoder.of(W_LX, b_L, norm_L, dtype), pre_NL, pre_NL * norm_L)


def mask(selection: Selection, n_latents: int) -> Tensor:
    entries = selection.entries
    found_NL = torch.zeros(entries.n_tokens, n_latents, dtype=torch.bool)
    found_NL[entries.token_E, entries.latent_E] = True
    assert int(found_NL.sum()) == len(entries.token_E)
    return found_NL


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guess", [0.0, 0.5, 4.0, 100.0])
def test_selection_is_the_exact_top_of_the_batch_whatever_the_guess(dtype: torch.dtype, guess: float) -> None:
    given = batch(dtype)
    chosen = largest_of_batch(given.z_NX, given.encoder, 900, guess)
    found_NL = mask(chosen, 40)
    assert int(found_NL.sum()) == 900
    assert given.scaled_NL[found_NL].min() > given.scaled_NL[~found_NL].max()
    torch.testing.assert_close(chosen.f_E, given.pre_NL[found_NL])
    assert chosen.smallest == pytest.approx(float(given.scaled_NL[found_NL].min()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_token_keeps_its_own_largest(dtype: torch.dtype) -> None:
    given = batch(dtype)
    found_NL = mask(largest_of_tokens(given.z_NX, given.encoder, 5), 40)
    expected_NL = torch.zeros_like(found_NL).scatter_(1, given.scaled_NL.topk(5, dim=1).indices, True)
    assert torch.equal(found_NL, expected_NL)


@pytest.mark.parametrize("n_tokens", [1, 7, 300])
def test_only_positive_values_are_chosen_where_few_are_positive(n_tokens: int) -> None:
    given = batch(n_tokens=n_tokens, bias=-9.0)
    positive_NL = given.scaled_NL > 0
    assert torch.equal(mask(largest_of_batch(given.z_NX, given.encoder, 10 * n_tokens), 40), positive_NL)
    assert torch.equal(mask(largest_of_tokens(given.z_NX, given.encoder, 40), 40), positive_NL)


def test_nothing_positive_gives_an_empty_code() -> None:
    given = batch(bias=-1000.0)
    chosen = largest_of_batch(given.z_NX, given.encoder, 10)
    assert (len(chosen.f_E), chosen.smallest) == (0, 0.0)


def test_ties_at_the_boundary_still_give_the_exact_number() -> None:
    encoder = Encoder.of(torch.ones(10, 1), torch.zeros(10), torch.ones(10), torch.float32)
    assert len(largest_of_batch(torch.ones(10, 1), encoder, 37).f_E) == 37


def test_latents_without_a_decoder_are_never_chosen() -> None:
    given = batch()
    encoder = Encoder.of(given.encoder.W_LX, given.encoder.b_L, given.encoder.norm_L.clone(), torch.float32)
    encoder.norm_L[:3] = 0
    for chosen in (largest_of_batch(given.z_NX, encoder, 10_000), largest_of_tokens(given.z_NX, encoder, 40)):
        assert int(chosen.entries.latent_E.min()) == 3


@pytest.mark.parametrize("n_kept", [1, 37, 300])
def test_threshold_keeps_the_wanted_number_of_values_seen_in_chunks(n_kept: int) -> None:
    values, calibration = random_values(200), ThresholdCalibration(n_kept)
    for chunk in values.split(7):
        calibration.update(chunk)
    assert int((values > calibration.threshold()).sum()) == n_kept


def test_threshold_keeps_everything_positive_where_there_is_too_little() -> None:
    values, calibration = random_values(), ThresholdCalibration(10_000)
    calibration.update(values)
    assert calibration.threshold() == 0


@pytest.mark.parametrize(("n_kept", "n_above"), [(5, 4), (8, 10)])
def test_ties_at_the_threshold_give_the_nearer_count(n_kept: int, n_above: int) -> None:
    values = torch.cat([torch.full((4,), 3.0), torch.full((6,), 2.0), torch.full((30,), 1.0)])[:, None]
    calibration = ThresholdCalibration(n_kept)
    for chunk in values.split(9):
        calibration.update(chunk)
    assert int((values > calibration.threshold()).sum()) == n_above
