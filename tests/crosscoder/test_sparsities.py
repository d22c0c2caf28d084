"""Every sparsity and every partition on a planted dictionary: directions, and what is specific to whom.

Legend: N tokens, M models, D width, L latents, P planted directions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.geometry import delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.partition import constrain_gradients
from diffharness.crosscoder.training import train
from tests.crosscoder.planted import Planted, plant

SIDES = ("ancestor", "baseline", "candidate")
SPARSITIES = ("batch_topk", "topk", "l1", "jumprelu")
ACTIVE = 3
"""Of the planted directions, on every token."""
K = {"batch_topk": ACTIVE, "topk": ACTIVE, "jumprelu": ACTIVE, "l1": ACTIVE + 1}
"""L1 shrinks what it keeps, so it gets a latent more for what it lost."""
MIXED = {"n_shared": 24, "n_rotated": 6, "n_only": (5, 5)}
"""Directions: shared, shared but turned between the models, in one model only."""


def planted(seed: int = 0, n_tokens: int = 12_000, **dictionary: Any) -> Planted:
    return plant(n_tokens, **{**MIXED, **dictionary}, k=ACTIVE, noise=0.02, seed=seed)


def trained(data: Planted, sparsity: str, *, layers: tuple[int, ...] = (), **changes: Any) -> Crosscoder:
    quick = {"n_latents": 64, "n_steps": 600, "batch_tokens": 256, "learning_rate": 1e-2, "k": K[sparsity]}
    settings = TrainingSettings.model_validate({**quick, "sparsity": sparsity, **changes})
    n_sides = data.x_NMD.shape[1] // max(1, len(layers))
    beyond_MD = (data.x_NMD == 0).all(dim=0)
    widths = tuple((~beyond_MD).sum(dim=1).tolist())
    few_NMD = data.x_NMD[::3]
    return train(data.x_NMD, settings, sides=SIDES[-n_sides:], heldout_NMD=few_NMD, layers=layers, widths=widths)


def row_cosine(crosscoder: Crosscoder, data: Planted) -> float:
    """Mean over models and the directions that they have: the largest cosine with a decoder row of that model."""
    found_LMD, known_PMD = normalize(crosscoder.W_dec_LMD, dim=-1), normalize(data.directions_LMD, dim=-1)
    best_PM = torch.einsum("lmd,pmd->plm", found_LMD, known_PMD).amax(dim=1)
    return float(best_PM[data.present_LM].mean())


def matches(crosscoder: Crosscoder, data: Planted) -> tuple[Tensor, Tensor]:
    """Of each planted direction: the largest cosine with one latent's decoders of all models, and that latent."""
    found_LX = normalize(crosscoder.W_dec_LMD.flatten(1), dim=-1)
    best = (normalize(data.directions_LMD.flatten(1), dim=-1) @ found_LX.T).max(dim=1)
    return best.values, best.indices


def split_share(crosscoder: Crosscoder, data: Planted) -> float:
    """Share of planted directions whose latent has Δnorm within 0.1 of 0, ½ or 1, whichever is true of it."""
    first_P, second_P = data.present_LM.T
    true_P = (1 + second_P.double() - first_P.double()) / 2
    found_P = delta_norm(crosscoder)[matches(crosscoder, data)[1]]
    return float(((found_P - true_P).abs() < 0.1).double().mean())


def pattern_share(crosscoder: Crosscoder, data: Planted) -> float:
    """Share of planted directions whose latent is as large in each model that has it, and absent elsewhere."""
    norm_PM = crosscoder.decoder_norm_LM[matches(crosscoder, data)[1]]
    relative_PM = norm_PM / norm_PM.amax(dim=1, keepdim=True)
    return float(((relative_PM - data.present_LM.float()).abs() < 0.2).all(dim=1).double().mean())


def explained(crosscoder: Crosscoder, data: Planted, n_first: int | None = None) -> float:
    """Share of the normalised activations' square that the first latents (all of them) reconstruct."""
    z_NMD = crosscoder.normalize(data.x_NMD)
    f_NL = crosscoder.encode(data.x_NMD)
    f_NL = f_NL * (torch.arange(f_NL.shape[1]) < (n_first or f_NL.shape[1]))
    return 1 - float((z_NMD - crosscoder.decode_normalized(f_NL)).square().sum() / z_NMD.square().sum())


def l0(crosscoder: Crosscoder, data: Planted) -> float:
    return float((crosscoder.encode(data.x_NMD) > 0).double().sum(dim=1).mean())


def n_exclusive(crosscoder: Crosscoder, data: Planted) -> int:
    """Latents that fire and are in one model only, by Δnorm."""
    alive_L = (crosscoder.encode(data.x_NMD) > 0).any(dim=0)
    return int(((delta_norm(crosscoder)[alive_L] - 0.5).abs() > 0.4).sum())


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_directions_and_whose_they_are_are_recovered_at_the_wanted_l0(sparsity: str, seed: int) -> None:
    data, heldout = planted(), planted(seed=1, n_tokens=4_000)
    crosscoder = trained(data, sparsity, seed=seed)
    assert row_cosine(crosscoder, data) > 0.98
    assert matches(crosscoder, data)[0].mean() > 0.98
    assert split_share(crosscoder, data) >= 0.95
    assert l0(crosscoder, heldout) == pytest.approx(K[sparsity], rel=0.12)
    assert explained(crosscoder, heldout) > (0.85 if sparsity == "l1" else 0.98)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_latents_of_two_of_three_models_are_found_as_such(sparsity: str) -> None:
    data = planted(n_shared=20, n_rotated=0, n_only=(3, 3, 3), n_of_models={(0, 1): 4, (0, 2): 4, (1, 2): 4})
    crosscoder = trained(data, sparsity)
    assert crosscoder.config.sides == SIDES
    assert matches(crosscoder, data)[0].mean() > 0.97
    assert pattern_share(crosscoder, data) >= 0.9


def test_latents_of_one_model_or_one_layer_are_found_where_several_layers_are_read() -> None:
    of_models = {(0, 1): 5, (2, 3): 5, (1, 3): 4}
    data = planted(n_shared=16, n_rotated=0, n_only=(0, 0, 0, 0), n_of_models=of_models)
    crosscoder = trained(data, "batch_topk", layers=(3, 5), n_dedicated=(6, 6))
    assert crosscoder.config.columns == ("baseline@3", "baseline@5", "candidate@3", "candidate@5")
    assert matches(crosscoder, data)[0].mean() > 0.97
    assert pattern_share(crosscoder, data) >= 0.9
    for weight_LMD in (crosscoder.W_enc_LMD, crosscoder.W_dec_LMD):
        assert (weight_LMD[:6, 2:] == 0).all()
        assert (weight_LMD[6:12, :2] == 0).all()
        assert (weight_LMD[:6, :2] != 0).any(dim=-1).all()


@pytest.mark.parametrize("sparsity", ["batch_topk", "l1", "jumprelu"])
def test_narrower_models_are_padded_with_exact_zeros(sparsity: str) -> None:
    data = planted(widths=(32, 24))
    crosscoder = trained(data, sparsity)
    assert crosscoder.config.widths == (32, 24)
    for tensor in (crosscoder.W_enc_LMD, crosscoder.W_dec_LMD, crosscoder.b_dec_MD, crosscoder.mean_MD):
        assert (tensor[..., 1, 24:] == 0).all()
    assert (crosscoder.decode(crosscoder.encode(data.x_NMD))[:, 1, 24:] == 0).all()
    assert row_cosine(crosscoder, data) > 0.97


@pytest.mark.parametrize("sparsity", ["batch_topk", "topk"])
def test_the_first_nested_dictionary_explains_more_than_as_many_latents_of_a_single_one(sparsity: str) -> None:
    data = planted()
    nested, single = trained(data, sparsity, groups=(16, 64)), trained(data, sparsity)
    assert explained(nested, data, 16) > explained(single, data, 16) + 0.12
    assert explained(nested, data) > 0.94
    assert matches(nested, data)[0].mean() > 0.94


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_designated_shared_latents_stay_tied_and_the_rest_find_what_is_specific(sparsity: str) -> None:
    data = planted(n_rotated=0)
    crosscoder = trained(data, sparsity, n_tied=20)
    assert torch.equal(crosscoder.W_dec_LMD[:20, 0], crosscoder.W_dec_LMD[:20, 1])
    assert (crosscoder.W_dec_LMD[20:, 0] != crosscoder.W_dec_LMD[20:, 1]).any(dim=-1).all()
    _, latent_P = matches(crosscoder, data)
    assert (latent_P[24:] >= 20).double().mean() >= 0.9
    assert split_share(crosscoder, data) >= 0.9
    assert row_cosine(crosscoder, data) > 0.9


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_dedicated_latents_know_their_own_model_only_and_find_what_it_alone_has(sparsity: str) -> None:
    """All others are tied, so that nothing else can hold what is specific."""
    data = planted(n_shared=30, n_rotated=0)
    crosscoder = trained(data, sparsity, n_dedicated=(8, 8), n_tied=48)
    for weight_LMD in (crosscoder.W_enc_LMD, crosscoder.W_dec_LMD):
        assert (weight_LMD[:8, 1] == 0).all()
        assert (weight_LMD[8:16, 0] == 0).all()
    assert torch.equal(crosscoder.W_dec_LMD[16:, 0], crosscoder.W_dec_LMD[16:, 1])
    found_LMD, known_PMD = normalize(crosscoder.W_dec_LMD, dim=-1), data.directions_LMD
    of_first_P = (known_PMD[30:35, 0] @ found_LMD[:8, 0].T).amax(dim=1)
    of_second_P = (known_PMD[35:40, 1] @ found_LMD[8:16, 1].T).amax(dim=1)
    assert (torch.cat([of_first_P, of_second_P]) > 0.9).sum() >= 7
    assert matches(crosscoder, data)[0].mean() > 0.95


@pytest.mark.parametrize("sparsity", ["l1", "jumprelu"])
def test_a_larger_penalty_leaves_fewer_active(sparsity: str) -> None:
    data = planted(n_tokens=4_000)
    weights = {"l1": (0.3, 3.0), "jumprelu": (0.1, 10.0)}[sparsity]
    light, heavy = (trained(data, sparsity, penalty=weight, n_steps=300) for weight in weights)
    assert l0(light, data) > 1.5 * l0(heavy, data)


def test_batch_topk_makes_fewer_latents_exclusive_than_l1_at_equal_l0() -> None:
    """Directions that both models have, a third of them fainter in one: no latent should be exclusive.

    L1 shrinks the fainter decoder to nothing (complete shrinkage, Minder et al. 2504.02922).
    """
    data = planted(n_shared=24, n_rotated=0, n_faint=12, faintness=0.35, n_only=(0, 0))
    chosen, penalised = (trained(data, sparsity, k=ACTIVE) for sparsity in ("batch_topk", "l1"))
    assert l0(penalised, data) == pytest.approx(l0(chosen, data), rel=0.12)
    assert n_exclusive(chosen, data) <= 1
    assert n_exclusive(penalised, data) >= 6
    assert explained(chosen, data) > explained(penalised, data) + 0.1


def test_gradient_of_a_tied_decoder_is_the_sum_over_models() -> None:
    crosscoder = trained(planted(n_tokens=200), "batch_topk", n_dedicated=(2, 1), n_tied=4, n_steps=1)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(crosscoder.W_dec_LMD.shape, generator=generator) for _ in range(2)]
    crosscoder.W_enc_LMD.grad, crosscoder.W_dec_LMD.grad = given[0].clone(), given[1].clone()
    constrain_gradients(crosscoder)
    encoder_LMD, decoder_LMD = given
    for gradient_LMD in given:
        gradient_LMD[:2, 1] = 0
        gradient_LMD[2, 0] = 0
    decoder_LMD[3:7] = decoder_LMD[3:7].sum(dim=1, keepdim=True).expand(-1, 2, -1)
    torch.testing.assert_close(crosscoder.W_enc_LMD.grad, encoder_LMD, rtol=0, atol=0)
    torch.testing.assert_close(crosscoder.W_dec_LMD.grad, decoder_LMD, rtol=0, atol=0)
