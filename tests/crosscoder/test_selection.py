"""The largest of a batch, and the threshold that keeps as many at inference."""

from __future__ import annotations

import pytest
import torch

from diffharness.crosscoder.selection import ThresholdCalibration, largest_of_batch


def random_values(n_tokens: int = 50, n_latents: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_tokens, n_latents, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guess", [0.0, 0.7, 1.0, 5.0])
def test_selection_is_the_exact_top_whatever_the_guess(guess: float) -> None:
    values = random_values()
    chosen, smallest = largest_of_batch(values, 150, guess)
    expected = values.flatten().topk(150)
    assert set(chosen.tolist()) == set(expected.indices.tolist())
    assert smallest == expected.values.min()


def test_only_positive_values_are_chosen_where_few_are_positive() -> None:
    values = -random_values().abs()
    values[3, 4] = 0.5
    chosen, smallest = largest_of_batch(values, 10)
    assert chosen.tolist() == [3 * 20 + 4]
    assert smallest == 0.5
    assert len(largest_of_batch(-values.abs(), 10)[0]) == 0


def test_ties_at_the_boundary_still_give_the_exact_number() -> None:
    assert len(largest_of_batch(torch.ones(10, 10), 37)[0]) == 37


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
