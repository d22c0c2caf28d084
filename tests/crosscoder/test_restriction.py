"""A crosscoder over many models cut down to two: the code, the decoders and the threshold, as they have to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import measure
from diffharness.crosscoder.restriction import restrict
from diffharness.crosscoder.training import train
from tests.crosscoder.planted import plant

SIDES = ("baseline", "a", "b", "c")
SETTINGS = TrainingSettings(n_latents=64, k=4, n_steps=400, batch_tokens=256, seed=0)


def trained(x_NMD: Tensor, heldout_NMD: Tensor, settings: TrainingSettings = SETTINGS) -> Crosscoder:
    sides = SIDES[: x_NMD.shape[1]]
    found = train(x_NMD, settings, sides=sides, heldout_NMD=heldout_NMD, layers=(1,), models=sides, device="cpu")
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor]:
    """Three models with directions of their own and of every two."""
    options = {
        "n_shared": 16, "n_only": (3, 3, 3), "n_of_models": {(0, 1): 3, (0, 2): 3, (1, 2): 3}, "n_rotated": 4,
        "d_model": 32, "dictionary_seed": 3,
    }  # fmt: skip
    return plant(12_000, seed=1, **options).x_NMD, plant(3_000, seed=2, **options).x_NMD


@pytest.fixture(scope="module")
def joint(planted) -> Crosscoder:
    return trained(*planted)


def test_of_candidates_that_are_the_same_one_stands_in_for_the_others_exactly():
    """The selection's rule, a threshold on what is scaled by two norms instead of three, is all that may differ."""
    x_NMD, heldout_NMD = (
        plant(n, seed=seed, n_shared=16, n_only=(3, 3)).x_NMD[:, [0, 1, 1]] for n, seed in ((8_000, 1), (2_000, 2))
    )
    joint = trained(x_NMD, heldout_NMD)
    assert torch.allclose(joint.W_dec_LMD[:, 1], joint.W_dec_LMD[:, 2], atol=1e-5), "the same models, the same decoders"
    pair = restrict(joint, ("baseline", "a"), x_NMD, heldout_NMD)
    pre_NL = joint.pre_activations(joint.normalize(heldout_NMD))
    found_NL = pair.pre_activations(pair.normalize(heldout_NMD[:, :2]))
    assert torch.allclose(found_NL, pre_NL, atol=0.02 * float(pre_NL.std()))
    both = (pair.encode(heldout_NMD[:, :2]) > 0) & (joint.encode(heldout_NMD) > 0)
    either = (pair.encode(heldout_NMD[:, :2]) > 0) | (joint.encode(heldout_NMD) > 0)
    assert both.sum() / either.sum() > 0.85


def test_models_that_are_all_the_same_have_the_joint_code():
    one, heldout = (plant(n, seed=seed, n_only=(0, 0)).x_NMD[:, [0, 0, 0]] for n, seed in ((8_000, 1), (2_000, 2)))
    joint = trained(one, heldout)
    pair = restrict(joint, ("baseline", "b"), one, heldout)
    expected_NL, found_NL = joint.encode(heldout), pair.encode(heldout[:, :2])
    assert (
        torch.allclose(found_NL, expected_NL, atol=1e-3) or ((found_NL > 0) != (expected_NL > 0)).float().mean() < 1e-4
    )
    assert float(pair.threshold) == pytest.approx(float(joint.threshold) * 2 / 3, rel=1e-3)


@pytest.mark.parametrize("candidate", ["a", "b"])
def test_a_pair_is_explained_almost_as_well_as_by_all_models(joint, planted, candidate):
    x_NMD, heldout_NMD = planted
    pair = restrict(joint, ("baseline", candidate), x_NMD, heldout_NMD)
    whole, cut = measure(joint, heldout_NMD), measure(pair, heldout_NMD[:, [0, SIDES.index(candidate)]])
    assert cut.l0 == pytest.approx(whole.l0, rel=0.01)
    assert list(cut.explained_variance) == ["baseline", "candidate"]
    for own, side in (("baseline", "baseline"), (candidate, "candidate")):
        assert cut.explained_variance[side] > whole.explained_variance[own] - 0.06


def test_latents_mean_the_same_in_all_pairs(joint, planted):
    pairs = {name: restrict(joint, ("baseline", name), *planted) for name in ("a", "b")}
    for name, pair in pairs.items():
        place = SIDES.index(name)
        assert torch.equal(pair.raw_decoder()[:, 0], joint.raw_decoder()[:, 0])
        assert torch.equal(pair.raw_decoder()[:, 1], joint.raw_decoder()[:, place])
        assert torch.equal(pair.raw_bias(), joint.raw_bias()[[0, place]])
        assert pair.config.sides == ("baseline", "candidate")
        assert pair.config.models == ("baseline", name)
        assert pair.config.layers == (1,)
    x_NMD = planted[1]
    codes = [pairs[name].encode(x_NMD[:, [0, SIDES.index(name)]]) for name in pairs]
    joint_NL = joint.encode(x_NMD)
    for code_NL in codes:
        correlation = torch.corrcoef(torch.stack([code_NL.flatten(), joint_NL.flatten()]))[0, 1]
        assert correlation > 0.9
    shuffled_NL = codes[0][:, torch.randperm(joint.n_latents, generator=torch.Generator().manual_seed(0))]
    assert torch.corrcoef(torch.stack([shuffled_NL.flatten(), joint_NL.flatten()]))[0, 1] < 0.2


def test_the_stand_in_is_the_best_linear_one_and_the_mean_where_nothing_beats_it():
    """A third model that is a rotation of the first is found from the two; noise is stood in for by the mean."""
    generator = torch.Generator().manual_seed(0)
    two_NPD = torch.randn(6_000, 2, 8, generator=generator)
    rotation_DD = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    config = CrosscoderConfig(sides=SIDES[:3], layers=(0,), d_model=8, n_latents=12, k=3)
    blank = Crosscoder(config).requires_grad_(False)
    blank.W_enc_LMD.normal_(generator=generator)
    blank.W_dec_LMD.normal_(generator=generator)
    x_NMD = torch.cat([two_NPD, two_NPD[:, :1] @ rotation_DD], dim=1)
    pair = restrict(blank, ("baseline", "a"), x_NMD[:4_000], x_NMD[4_000:])
    expected_LD = blank.W_enc_LMD[:, 0] + blank.W_enc_LMD[:, 2] @ rotation_DD.T
    assert torch.allclose(pair.W_enc_LMD[:, 0], expected_LD, atol=0.01)
    assert torch.allclose(pair.W_enc_LMD[:, 1], blank.W_enc_LMD[:, 1], atol=0.01)

    few_NMD = torch.cat([two_NPD, two_NPD.mean(dim=1, keepdim=True)], dim=1)
    few_NMD[:, 2] += torch.randn(6_000, 8, generator=generator)
    pair = restrict(blank, ("baseline", "a"), few_NMD[:20], few_NMD[4_000:])
    mean_LPD = blank.W_enc_LMD[:, :2] + blank.W_enc_LMD[:, 2:] / 2
    assert torch.allclose(pair.W_enc_LMD, mean_LPD)


def test_thresholds_by_latent_keep_their_proportions(planted):
    x_NMD, heldout_NMD = planted
    settings = SETTINGS.model_copy(update={"sparsity": "jumprelu", "n_steps": 150})
    joint = trained(x_NMD, heldout_NMD, settings)
    pair = restrict(joint, ("baseline", "b"), x_NMD, heldout_NMD)
    assert measure(pair, heldout_NMD[:, [0, 2]]).l0 == pytest.approx(measure(joint, heldout_NMD).l0, rel=0.02)
    ratio_L = (pair.threshold / pair.code_norm_L) / (joint.threshold / joint.code_norm_L)
    alive_L = joint.threshold > 1e-6
    assert alive_L.sum() > 10
    assert torch.allclose(ratio_L[alive_L], ratio_L[alive_L].mean(), rtol=1e-3)


def test_dedicated_latents_of_absent_models_stay_silent(planted):
    x_NMD, heldout_NMD = planted
    joint = trained(x_NMD, heldout_NMD, SETTINGS.model_copy(update={"n_dedicated": (4, 4, 4), "n_steps": 150}))
    pair = restrict(joint, ("baseline", "b"), x_NMD, heldout_NMD)
    code_NL = pair.encode(heldout_NMD[:, [0, 2]])
    assert not code_NL[:, 4:8].any()
    assert code_NL[:, :4].any()
    assert pair.config.n_dedicated == ()


@pytest.mark.parametrize("pair", [("baseline", "c"), ("baseline", "baseline")])
def test_what_is_no_pair_is_refused(joint, planted, pair):
    with pytest.raises(ValueError, match="not two of baseline, a, b"):
        restrict(joint, pair, *planted)
