"""The written-out gradients against autograd through the dense formulas, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.gradients import accumulate_gradients
from diffharness.crosscoder.model import Crosscoder
from tests.crosscoder.test_model import random_crosscoder

K = 3


def dense_loss(crosscoder: Crosscoder, z_NMD: Tensor, dead_L: Tensor, coefficient: float) -> Tensor:
    """Mean squared error of BatchTopK's code, and the dead latents' loss on what it leaves over."""
    error_NMD = z_NMD - crosscoder.decode_normalized(crosscoder.encode_batch_topk(z_NMD, K))
    loss = error_NMD.square().mean()
    if not dead_L.any():
        return loss
    residual_NMD = error_NMD.detach()
    pre_NA = crosscoder.pre_activations(z_NMD)[:, dead_L].relu()
    scaled_NA = pre_NA * crosscoder.code_norm_L[dead_L].detach()
    n_kept = min(crosscoder.config.d_model // 2, int(dead_L.sum()))
    kept_NA = torch.zeros_like(pre_NA).scatter(1, scaled_NA.topk(n_kept, dim=1).indices, 1.0)
    aux_NMD = torch.einsum("na,amd->nmd", pre_NA * kept_NA, crosscoder.W_dec_LMD[dead_L])
    variance = (residual_NMD - residual_NMD.mean(dim=0)).square().sum()
    return loss + coefficient * (residual_NMD - aux_NMD).square().sum() / variance


@pytest.mark.parametrize("n_dead", [0, 2, 7])
def test_gradients_equal_autograd_through_the_dense_formula(n_dead: int) -> None:
    crosscoder, x_NMD = random_crosscoder(n_models=3)
    z_NMD = crosscoder.normalize(x_NMD)
    dead_L = torch.arange(crosscoder.n_latents) < n_dead
    crosscoder.requires_grad_(True)
    wanted = torch.autograd.grad(dense_loss(crosscoder, z_NMD, dead_L, 0.5), list(crosscoder.parameters()))
    step = accumulate_gradients(crosscoder, z_NMD, K, dead_L=dead_L, aux_coefficient=0.5, guess=0.3)
    for weight, gradient in zip(crosscoder.parameters(), wanted):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-10, atol=1e-12)
    code_NL = crosscoder.encode_batch_topk(z_NMD, K)
    assert torch.equal(step.fired_L, (code_NL > 0).any(dim=0))
