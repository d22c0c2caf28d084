"""Sparse gradients against autograd through the dense formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.topk import TopKObjective
from tests.crosscoder.dense import dense_code, dense_loss
from tests.crosscoder.test_model import random_crosscoder

K = 3
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def objective(crosscoder: Crosscoder, **changes: Any) -> TopKObjective:
    settings = {"n_latents": crosscoder.n_latents, "k": K, "aux_coefficient": 0.5, "product_dtype": "float32"}
    return TopKObjective(crosscoder, TrainingSettings.model_validate({**settings, **changes}))


def assert_gradients(
    crosscoder: Crosscoder, x: torch.Tensor, dtype: torch.dtype, n_dead: int = 0, **changes: Any
) -> None:
    crosscoder.to(dtype)
    z_NMD = crosscoder.normalize(x)
    dead_L = torch.arange(crosscoder.n_latents) < n_dead
    crosscoder.requires_grad_(True)
    formula = {name: changes[name] for name in ("sparsity", "groups") if name in changes}
    loss = dense_loss(crosscoder, z_NMD, K, dead_L=dead_L, aux_coefficient=0.5, **formula)
    wanted = torch.autograd.grad(loss, list(crosscoder.parameters()))
    crosscoder.requires_grad_(False)
    step = objective(crosscoder, **changes).gradients(z_NMD, share=0.0, dead_L=dead_L)
    for weight, gradient in zip(crosscoder.parameters(), wanted, strict=True):
        assert weight.grad is not None
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(weight.grad, gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()))
    code_NL = dense_code(crosscoder, z_NMD, K, changes.get("sparsity", "batch_topk"))
    assert torch.equal(step.fired_L, (code_NL > 0).any(dim=0))
    assert step.l0 == pytest.approx(float((code_NL > 0).sum()) / len(x))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_dead", [0, 2, 7])
@pytest.mark.parametrize("sparsity", ["batch_topk", "topk"])
def test_gradients_equal_autograd_through_the_dense_formula(dtype: torch.dtype, n_dead: int, sparsity: str) -> None:
    crosscoder, x_NMD = random_crosscoder(n_models=3)
    assert_gradients(crosscoder, x_NMD, dtype, n_dead, sparsity=sparsity)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sparsity", ["batch_topk", "topk"])
def test_gradients_of_nested_dictionaries_equal_autograd(dtype: torch.dtype, sparsity: str) -> None:
    crosscoder, x_NMD = random_crosscoder()
    assert_gradients(crosscoder, x_NMD, dtype, 2, sparsity=sparsity, groups=(4, 9, 15))


def test_auxiliary_loss_over_some_tokens_is_that_of_these_tokens() -> None:
    crosscoder, x_NMD = random_crosscoder()
    z_NMD, dead_L = crosscoder.normalize(x_NMD), torch.arange(crosscoder.n_latents) < 4

    def encoder_gradient(**changes: Any) -> torch.Tensor:
        objective(crosscoder, **changes).gradients(z_NMD, share=0.0, dead_L=dead_L)
        assert crosscoder.W_enc_LMD.grad is not None
        return crosscoder.W_enc_LMD.grad[dead_L]

    without, eight, all_tokens = (
        encoder_gradient(aux_coefficient=0),
        encoder_gradient(aux_tokens=8),
        encoder_gradient(aux_tokens=len(z_NMD)),
    )
    assert not torch.allclose(eight, all_tokens)
    assert torch.cosine_similarity((eight - without).flatten(), (all_tokens - without).flatten(), dim=0) > 0.5


def test_candidates_in_bfloat16_give_the_gradients_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    crosscoder, x_NMD = random_crosscoder(n_tokens=400)
    z_NMD, dead_L = crosscoder.normalize(x_NMD).float(), torch.zeros(crosscoder.n_latents, dtype=torch.bool)
    crosscoder.to(torch.float32)
    for tensor in (crosscoder.W_enc_LMD, crosscoder.W_dec_LMD):
        tensor.add_(0.01 * torch.randn(tensor.shape, generator=generator))
    gradients = []
    for product_dtype in ("float32", "bfloat16"):
        for sparsity in ("batch_topk", "topk"):
            found = objective(crosscoder, sparsity=sparsity, product_dtype=product_dtype)
            found.gradients(z_NMD, share=0.0, dead_L=dead_L)
            gradients.append([weight.grad for weight in crosscoder.parameters()])
    for exact, low in ((gradients[0], gradients[2]), (gradients[1], gradients[3])):
        for one, other in zip(exact, low, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
