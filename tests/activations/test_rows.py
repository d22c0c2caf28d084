import numpy as np
import pytest
import torch

from diffharness.activations.rows import ActivationRows


@pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0]])
def test_rows_in_any_places_are_those_of_the_whole_tensor(columns):
    whole_NMD = torch.randn(30, 3, 4)
    kept = torch.cat([whole_NMD[1:9], whole_NMD[10:28]])[:, columns]
    rows = ActivationRows(whole_NMD.split(11), np.array([[1, 9], [10, 28]]), columns)
    torch.testing.assert_close(rows[:], kept, rtol=0, atol=0)
    for places in (torch.arange(26), torch.randperm(26, generator=torch.Generator().manual_seed(0))[:17]):
        out_NMD = torch.empty(len(places), len(columns), 4)
        rows.read_into(places, out_NMD)
        torch.testing.assert_close(out_NMD, kept[places], rtol=0, atol=0)
