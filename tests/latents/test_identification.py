"""Statuses from Δnorm and ν, on hand-made evidence and on a crosscoder trained on planted activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.training import train
from diffharness.errors import UsageError
from diffharness.latents.identification import IdentificationSettings, identify
from diffharness.latents.scaling import LatentScaling, leaning, scale
from tests.crosscoder.planted import plant


def hand_made(sides: tuple[str, str] = ("baseline", "candidate")) -> tuple[Crosscoder, LatentScaling]:
    """Six latents: candidate only, baseline only, shared, dead, few tokens, leaning but explained elsewhere."""
    norms_LM = torch.tensor([[0.5, 1.0], [1.0, 0.5], [1.0, 1.0], [1.0, 1.0], [0.5, 1.0], [0.5, 1.0]])
    crosscoder = Crosscoder(CrosscoderConfig(sides=sides, d_model=1, n_latents=6, k=1)).requires_grad_(False)
    crosscoder.W_dec_LMD.copy_(norms_LM[..., None])
    reconstruction_LM = np.array([[0.1, 1.0], [1.0, 0.1], [0.9, 1.0], [np.nan] * 2, [0.1, 1.0], [0.8, 1.0]])
    error_LM = np.array([[0.1, 1.0], [1.0, 0.1], [0.9, 1.0], [np.nan] * 2, [0.1, 1.0], [0.1, 1.0]])
    n_active_L = np.array([100, 100, 100, 0, 5, 100])
    scaling = LatentScaling(
        sides=sides,
        probe_L=leaning(crosscoder),
        error_LM=error_LM,
        reconstruction_LM=reconstruction_LM,
        activation_LM=reconstruction_LM,
        activation_no_bias_LM=reconstruction_LM,
        n_tokens=1000,
        n_active_L=n_active_L,
        density_L=n_active_L / 1000,
        mass_L=n_active_L * 1.0,
        mean_activation_L=np.ones(6),
    )
    return crosscoder, scaling


def test_each_latent_gets_the_status_that_its_evidence_says() -> None:
    identity = identify(*hand_made())
    assert identity.status == (
        "candidate-specific",
        "baseline-specific",
        "shared",
        "dead",
        "other",
        "other",
    )
    assert identity.counts() == {
        "baseline-specific": 1,
        "candidate-specific": 1,
        "shared": 1,
        "other": 2,
        "dead": 1,
    }
    assert identity.specific_to("candidate").tolist() == [0]
    np.testing.assert_allclose(identity.nu_error[:2], 0.1)
    np.testing.assert_allclose(identity.delta_norm, [0.75, 0.25, 0.5, 0.5, 0.75, 0.75])


def test_sides_name_the_statuses_and_thresholds_move_them() -> None:
    crosscoder, scaling = hand_made(("ancestor", "candidate"))
    assert identify(crosscoder, scaling).status[1] == "ancestor-specific"
    generous = IdentificationSettings(nu_reconstruction=0.9, minimum_active=1)
    assert identify(crosscoder, scaling, generous).specific_to("candidate").tolist() == [0, 4, 5]
    assert not len(identify(crosscoder, scaling, IdentificationSettings(nu_error=0.05)).specific_to("candidate"))


def test_a_latent_that_does_not_explain_its_own_side_is_never_specific() -> None:
    crosscoder, scaling = hand_made()
    scaling.error_LM[0] = [0.1, -1.0]
    identity = identify(crosscoder, scaling)
    assert identity.status[0] == "other"
    assert np.isnan(identity.nu_error[0])


def test_a_side_that_the_crosscoder_lacks_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no side 'ancestor'"):
        identify(*hand_made(), pair=("ancestor", "candidate"))


def test_planted_directions_of_one_model_are_found_specific_to_it_and_shared_ones_shared() -> None:
    planted, heldout = plant(20_000), plant(6_000, seed=1)
    settings = TrainingSettings(n_latents=64, k=2, n_steps=700, batch_tokens=512, learning_rate=1e-2)
    crosscoder = train(planted.x_NMD, settings, sides=("baseline", "candidate"), heldout_NMD=heldout.x_NMD)
    identity = identify(crosscoder, scale(crosscoder, heldout.x_NMD))
    found_LX = torch.nn.functional.normalize(crosscoder.W_dec_LMD.flatten(1), dim=-1)
    known_LX = torch.nn.functional.normalize(planted.directions_LMD.flatten(1), dim=-1)
    match_L = (known_LX @ found_LX.T).argmax(dim=1).tolist()
    statuses = [identity.status[j] for j in match_L]
    assert statuses[:24] == ["shared"] * 24
    assert statuses[24:] == ["baseline-specific"] * 4 + ["candidate-specific"] * 4
