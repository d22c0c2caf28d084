"""The losses of L1 and JumpReLU against their formulas, and the penalty's weight that finds the wanted L0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.jumprelu import jump
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.penalties import BANDWIDTH, PRE_ACTIVATION_WEIGHT, TANH_STEEPNESS, PenalisedObjective
from diffharness.crosscoder.penalty_weight import AdaptedPenalty
from tests.crosscoder.planted import plant
from tests.crosscoder.test_model import random_crosscoder

K = 4
LAMBDA = 0.7


def penalised(sparsity: str, n_models: int = 2, **changes: Any) -> tuple[Crosscoder, Tensor, PenalisedObjective]:
    """A random crosscoder of the right kind, normalised tokens, and the objective with a given λ."""
    blank, x_NMD = random_crosscoder(n_models=n_models)
    given = {"n_latents": 15, "k": K, "sparsity": sparsity, "penalty": LAMBDA, "aux_coefficient": 0.0, **changes}
    settings = TrainingSettings.model_validate(given)
    rule = {"activation": "relu"} if sparsity == "l1" else {"activation": "threshold", "threshold_shape": (15,)}
    partition = {"n_tied": settings.n_tied, "n_dedicated": settings.n_dedicated}
    crosscoder = Crosscoder(blank.config.model_copy(update={**rule, **partition})).requires_grad_(False).double()
    for name, tensor in crosscoder.state_dict().items():
        if name != "threshold":
            tensor.copy_(blank.state_dict()[name])
    return crosscoder, crosscoder.normalize(x_NMD), PenalisedObjective(crosscoder, settings)


def nobody(crosscoder: Crosscoder) -> Tensor:
    return torch.zeros(crosscoder.n_latents, dtype=torch.bool)


def gradients_of(weights: list[Tensor]) -> list[Tensor]:
    assert all(weight.grad is not None for weight in weights)
    return [weight.grad.clone() for weight in weights if weight.grad is not None]


def l1_loss(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, z_NMD: Tensor, weight_L: Tensor) -> Tensor:
    """The formula token by token: Σ_m ‖ε^m‖² + λ Σ_j w_j f_j Σ_m ‖d_j^m‖, over tokens · models · dimensions."""
    total = z_NMD.new_zeros(())
    for z_MD in z_NMD:
        f_L = (torch.einsum("md,lmd->l", z_MD, W_enc) + b_enc).clamp_min(0)
        total = total + (z_MD - torch.einsum("l,lmd->md", f_L, W_dec) - b_dec).pow(2).sum()
        for latent in range(len(f_L)):
            for model in range(len(b_dec)):
                total = total + LAMBDA * weight_L[latent] * f_L[latent] * W_dec[latent, model].pow(2).sum().sqrt()
    return total / z_NMD.numel()


@pytest.mark.parametrize("n_models", [2, 3])
def test_l1_gradients_are_those_of_the_formula_with_the_sum_of_decoder_norms(n_models: int) -> None:
    dedicated = (3, *(2 for _ in range(n_models - 1)))
    crosscoder, z_NMD, objective = penalised("l1", n_models, n_dedicated=dedicated, n_tied=4)
    first = sum(dedicated)
    weight_L = torch.ones(15).double()
    weight_L[first : first + 4] = 0.2
    leaves = [weight.clone().requires_grad_(True) for weight in crosscoder.parameters()]
    wanted = torch.autograd.grad(l1_loss(*order(crosscoder, leaves), z_NMD, weight_L), leaves)
    step = objective.gradients(z_NMD, share=0.9, dead_L=nobody(crosscoder))
    for found, expected in zip(gradients_of(list(crosscoder.parameters())), wanted):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    f_NL = crosscoder.pre_activations(z_NMD).relu()
    error = (z_NMD - crosscoder.decode_normalized(f_NL)).square().sum() / z_NMD.square().sum()
    assert step.unexplained == pytest.approx(float(error))
    assert step.l0 == float((f_NL > 0).sum()) / len(z_NMD)
    assert step.notes["penalty"] == LAMBDA
    assert not any(weight.requires_grad for weight in crosscoder.parameters())
    assert objective.parameters() == []


def order(crosscoder: Crosscoder, leaves: list[Tensor]) -> Iterator[Tensor]:
    """Leaves as (W_enc, b_enc, W_dec, b_dec)."""
    named = dict(zip((name for name, _ in crosscoder.named_parameters()), leaves))
    return (named[name] for name in ("W_enc_LMD", "b_enc_L", "W_dec_LMD", "b_dec_MD"))


def thresholded(sparsity: str = "jumprelu", **changes: Any) -> tuple[Crosscoder, Tensor, PenalisedObjective]:
    """As `penalised`, with thresholds that differ by latent and lie among the activations."""
    crosscoder, z_NMD, objective = penalised(sparsity, **changes)
    objective.parameters()[0].copy_(torch.linspace(math.log(2.0), math.log(9.0), 15))
    return crosscoder, z_NMD, objective


def jumprelu_loss(
    W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, threshold_L: Tensor, z_NMD: Tensor
) -> Tensor:
    """The formula; what is kept is held fixed, and so are the norms in the last term."""
    n_models, d_model = b_dec.shape
    unit = n_models * math.sqrt(d_model / K)
    norm_L = W_dec.norm(dim=2).sum(dim=1)
    scaled_NL = (torch.einsum("nmd,lmd->nl", z_NMD, W_enc) + b_enc) * norm_L
    kept_NL = torch.where(scaled_NL > threshold_L, scaled_NL, torch.zeros_like(scaled_NL))
    error = (z_NMD - torch.einsum("nl,lmd->nmd", kept_NL / norm_L, W_dec) - b_dec).pow(2).sum()
    lack = (threshold_L - scaled_NL / norm_L * norm_L.detach()).clamp_min(0).sum()
    tanh = torch.tanh(TANH_STEEPNESS * kept_NL / unit).sum()
    return (error + LAMBDA * tanh + PRE_ACTIVATION_WEIGHT * unit / n_models * lack) / z_NMD.numel()


def test_jumprelu_gradients_of_the_weights_are_those_of_the_formula() -> None:
    crosscoder, z_NMD, objective = thresholded()
    leaves = [weight.clone().requires_grad_(True) for weight in crosscoder.parameters()]
    threshold_L = objective.parameters()[0].exp()
    wanted = torch.autograd.grad(jumprelu_loss(*order(crosscoder, leaves), threshold_L, z_NMD), leaves)
    objective.gradients(z_NMD, share=1.0, dead_L=nobody(crosscoder))
    for found, expected in zip(gradients_of(list(crosscoder.parameters())), wanted):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradient_of_log_thresholds_is_the_slope_of_the_loss_over_many_tokens() -> None:
    """The kernel stands for a density, so with enough tokens it gives what moving the threshold really does."""
    crosscoder, _, objective = thresholded()
    z_NMD = torch.randn(300_000, 2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = list(order(crosscoder, list(crosscoder.parameters())))
    (log_L,) = objective.parameters()
    objective.gradients(z_NMD, share=1.0, dead_L=nobody(crosscoder))
    assert log_L.grad is not None
    reach = BANDWIDTH * 2 * math.sqrt(6 / K) / 2
    for latent in (0, 5, 10):
        ends = []
        for way in (-1, 1):
            threshold_L = log_L.exp()
            threshold_L[latent] += way * reach
            ends.append(float(jumprelu_loss(*weights, threshold_L, z_NMD)))
        # The slope by θ over the kernel's width, times θ: by log θ. The kernel takes values at the threshold's height.
        slope = (ends[1] - ends[0]) / (2 * reach) * float(log_L[latent].exp())
        assert float(log_L.grad[latent]) == pytest.approx(slope, rel=0.3)


def test_threshold_gradient_is_the_rectangle_kernels() -> None:
    scaled_NL = torch.tensor([[0.9, 5.0], [1.1, 2.0], [1.0, 2.4], [3.0, -1.0]], dtype=torch.float64)
    threshold_L = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    slope_NL = torch.tensor([[1.0, 7.0], [10.0, 3.0], [100.0, 20.0], [1000.0, 5.0]], dtype=torch.float64)
    kept_NL = jump(scaled_NL, threshold_L, 1.0)
    assert kept_NL.tolist() == [[0, 5], [1.1, 0], [0, 2.4], [3, 0]]
    (gradient_L,) = torch.autograd.grad(kept_NL, threshold_L, slope_NL)
    assert gradient_L.tolist() == [-111.0, -46.0]


def test_rescaling_a_latent_changes_neither_loss_nor_threshold_gradient() -> None:
    for sparsity in ("l1", "jumprelu"):
        crosscoder, z_NMD, objective = thresholded() if sparsity == "jumprelu" else penalised("l1")
        dead_L = torch.arange(15) < 3
        first = objective.gradients(z_NMD, share=1.0, dead_L=dead_L)
        before = gradients_of([crosscoder.W_dec_LMD, *objective.parameters()])
        factor_L = torch.logspace(-2, 2, 15, dtype=torch.float64)
        crosscoder.W_enc_LMD.mul_(factor_L[:, None, None])
        crosscoder.b_enc_L.mul_(factor_L)
        crosscoder.W_dec_LMD.div_(factor_L[:, None, None])
        second = objective.gradients(z_NMD, share=1.0, dead_L=dead_L)
        after = gradients_of([crosscoder.W_dec_LMD, *objective.parameters()])
        assert (first.unexplained, first.l0) == pytest.approx((second.unexplained, second.l0))
        torch.testing.assert_close(after[0], before[0] * factor_L[:, None, None])
        torch.testing.assert_close(after[1:], before[1:])


def test_the_inference_rule_gives_the_code_of_training() -> None:
    crosscoder, z_NMD, objective = thresholded()
    step = objective.gradients(z_NMD, share=1.0, dead_L=nobody(crosscoder))
    objective.finish()
    f_NL = crosscoder.encode(crosscoder.denormalize(z_NMD))
    assert float((f_NL > 0).sum()) / len(z_NMD) == step.l0
    assert torch.equal((f_NL > 0).any(dim=0), step.fired_L)
    error = (z_NMD - crosscoder.decode_normalized(f_NL)).square().sum() / z_NMD.square().sum()
    assert float(error) == pytest.approx(step.unexplained)


@pytest.mark.parametrize("sparsity", ["l1", "jumprelu"])
def test_a_given_penalty_rises_from_0_in_a_straight_line(sparsity: str) -> None:
    _, _, objective = penalised(sparsity)
    end = {"l1": 0.05, "jumprelu": 1.0}[sparsity]
    assert objective.penalty_at(0.0) == 0
    assert objective.penalty_at(end / 4) == pytest.approx(LAMBDA / 4)
    assert objective.penalty_at(end) == pytest.approx(LAMBDA)
    assert objective.penalty_at(1.0) == pytest.approx(LAMBDA)


@pytest.mark.parametrize("n_steps", [400, 5_000])
@pytest.mark.parametrize("steepness", [0.3, 1.5])
def test_an_adapted_penalty_brings_l0_to_k_without_swinging(n_steps: int, steepness: float) -> None:
    """L0 = L/2 · (1 + λ/λ_0)^−steepness, followed with a lag of a fiftieth of the training, and noisy."""
    penalty = AdaptedPenalty(TrainingSettings(n_latents=512, k=16), start=1.0)
    generator = torch.Generator().manual_seed(0)
    l0, seen = 256.0, []
    for step in range(n_steps):
        share = step / n_steps
        answer = 256 * (1 + penalty.at(share) / 0.3) ** -steepness
        l0 += (answer - l0) * 50 / n_steps
        noisy = l0 * (1 + 0.03 * float(torch.randn((), generator=generator)))
        penalty.update(noisy, share)
        seen.append(l0)
    assert seen[-1] == pytest.approx(16, rel=0.08)
    assert min(seen) > 8
    late = torch.tensor(seen[2 * n_steps // 3 :])
    assert float((late / 16).log().abs().max()) < 0.15


def test_an_adapted_penalty_follows_an_initial_k_where_it_is_given() -> None:
    def first_weights(**changes: Any) -> float:
        penalty = AdaptedPenalty(TrainingSettings.model_validate({"n_latents": 512, "k": 16, **changes}), start=1.0)
        for step in range(100):
            penalty.update(100.0, step / 1000)
        return penalty.at(0.1)

    assert first_weights(initial_k=400, annealing_share=0.5) < first_weights(initial_k=20, annealing_share=0.5)


@pytest.mark.parametrize("sparsity", ["l1", "jumprelu"])
def test_a_state_that_is_loaded_gives_the_same_gradients(sparsity: str) -> None:
    crosscoder, z_NMD, objective = penalised(sparsity, penalty=None)
    for step in range(5):
        objective.gradients(z_NMD, share=0.2 + step / 10, dead_L=nobody(crosscoder))
    for value in objective.parameters():
        value.add_(0.3)
    state = {name: value.clone() for name, value in objective.state().items()}
    _, _, other = penalised(sparsity, penalty=None)
    other = PenalisedObjective(crosscoder, TrainingSettings(n_latents=15, k=K, sparsity=sparsity, aux_coefficient=0))
    other.load_state(state)
    found = []
    for one in (objective, other):
        step = one.gradients(z_NMD, share=0.7, dead_L=nobody(crosscoder))
        found.append((step.notes, gradients_of([*crosscoder.parameters(), *one.parameters()]), one.state()))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("sparsity", ["l1", "jumprelu"])
def test_silent_latents_fire_again(sparsity: str) -> None:
    """Of 16 latents whose bias keeps them silent, by the losses of dead latents only."""
    planted = plant(1_000)
    z_NMD = (planted.x_NMD - planted.x_NMD.mean(dim=0)) / torch.tensor([1.0, 2.0])[:, None] * 4

    def share_firing(told: bool) -> float:
        generator = torch.Generator().manual_seed(0)
        crosscoder, _, _ = penalised(sparsity)
        config = crosscoder.config.model_copy(
            update={"d_model": 32, "n_latents": 64, "threshold_shape": (64,) if sparsity == "jumprelu" else ()}
        )
        crosscoder = Crosscoder(config).requires_grad_(False)
        crosscoder.W_dec_LMD.copy_(torch.randn(64, 1, 32, generator=generator) / math.sqrt(32))
        crosscoder.W_enc_LMD.copy_(crosscoder.W_dec_LMD / 2)
        silent_L = torch.arange(64) < 16
        crosscoder.b_enc_L[silent_L] = -3.0
        crosscoder.W_enc_LMD[silent_L] *= 0.1
        settings = TrainingSettings(n_latents=64, k=2, sparsity=sparsity, penalty=0.2)
        objective = PenalisedObjective(crosscoder, settings)
        optimiser = torch.optim.Adam([*crosscoder.parameters(), *objective.parameters()], lr=1e-2, eps=1e-12)
        fired_L = torch.zeros_like(silent_L)
        for step in range(600):
            dead_L = silent_L & ~fired_L if told else torch.zeros_like(silent_L)
            seen = objective.gradients(z_NMD[step % 4 :: 4], share=step / 600, dead_L=dead_L)
            fired_L |= seen.fired_L
            optimiser.step()
        return float(fired_L[silent_L].double().mean())

    if sparsity == "l1":
        assert share_firing(told=False) == 0
    assert share_firing(told=True) > 0.9
