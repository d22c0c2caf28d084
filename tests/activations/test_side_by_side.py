"""Rows next to each other are those of a plain concatenation, however they are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.activations.rows import ActivationRows
from diffharness.activations.side_by_side import SideBySide, models_first


def rows(
    width: int, n_models: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[ActivationRows, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_NMD = torch.randn(20, n_models, width, generator=generator).to(dtype)
    whole = ActivationRows([x_NMD[:12], x_NMD[12:]], np.array([[1, 9], [10, 20]]), range(n_models))
    return whole, torch.cat([x_NMD[1:9], x_NMD[10:20]])


def test_layers_of_a_model_stand_together():
    parts = [rows(6, 2, seed) for seed in (0, 1, 2)]
    found = SideBySide([part for part, _ in parts], models_first(3, 2))
    expected = torch.stack([x for _, x in parts], dim=2).flatten(1, 2)
    assert found.shape == expected.shape
    assert torch.equal(found[3:15], expected[3:15])
    places = torch.tensor([0, 2, 8, 17])
    out = torch.empty((4, *expected.shape[1:]))
    found.read_into(places, out)
    assert torch.equal(out, expected[places])


def test_narrower_models_are_padded_with_zeros_and_wider_numbers_are_kept():
    (narrow, a), (wide, b) = rows(4, 1, 0, torch.bfloat16), rows(6, 1, 1)
    found = SideBySide([narrow, wide])
    assert found.widths == (4, 6)
    assert found[:].dtype == torch.float32
    assert torch.equal(found[:][:, 0, :4], a[:, 0].float())
    assert not found[:][:, 0, 4:].any()
    out = torch.full((3, 2, 6), 7.0)
    found.read_into(torch.tensor([1, 5, 16]), out)
    assert torch.equal(out, found[:][[1, 5, 16]])
    assert torch.equal(out[:, 1], b[[1, 5, 16], 0])


def test_parts_of_other_tokens_are_refused():
    other = ActivationRows([torch.zeros(5, 1, 4)], np.array([[0, 5]]), [0])
    with pytest.raises(ValueError, match=r"parts have \[18, 5\] rows"):
        SideBySide([rows(4, 1, 0)[0], other])
