"""Statuses from Δnorm and ν with their reasons, on hand-made evidence and on a crosscoder trained on planted data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.training import train
from diffharness.latents.codes import TextEncoder
from diffharness.latents.identification import IdentificationSettings, LatentIdentity, identify
from diffharness.latents.scaling import LatentScaling, Ratios, ScalingSums
from tests.crosscoder.planted import plant

NAMES = (
    "candidate only", "baseline only", "shared", "silent", "few tokens", "decoupled", "shrunk", "no decoder",
    "unexplained", "wide", "rare", "norms alike",
)  # fmt: skip
J = {name: j for j, name in enumerate(NAMES)}
NORMS = (
    (0.05, 1.0), (1.0, 0.05), (1.0, 1.0), (1.0, 1.0), (0.5, 1.0), (0.5, 1.0), (0.02, 1.0), (0.0, 0.0),
    (0.02, 1.0), (0.3, 1.0), (0.3, 1.0), (0.9, 1.0),
)  # fmt: skip
NAN = math.nan
NU_ERROR = (0.1, 0.1, 0.9, NAN, 0.1, 0.1, 0.6, NAN, NAN, 0.15, 0.1, 0.05)
HIGH_ERROR = (0.15, 0.15, 1.0, NAN, 0.15, 0.15, 0.7, NAN, NAN, 0.25, NAN, 0.1)
NU_RECONSTRUCTION = (0.1, 0.1, 0.9, NAN, 0.1, 0.8, 0.1, NAN, 0.3, 0.4, 0.1, -0.3)
HIGH_RECONSTRUCTION = (0.3, 0.3, 1.0, NAN, 0.3, 0.9, 0.3, NAN, 0.4, 0.45, NAN, 0.1)
N_ACTIVE = (100, 100, 100, 0, 5, 100, 100, 100, 100, 100, 30, 100)


def hand_made(pair: tuple[str, str] = ("baseline", "candidate")) -> tuple[Crosscoder, LatentScaling]:
    """One latent a name of `NAMES`."""
    n = len(NAMES)
    crosscoder = Crosscoder(CrosscoderConfig(sides=pair, d_model=1, n_latents=n, k=1)).requires_grad_(False)
    crosscoder.W_dec_LMD.copy_(torch.tensor(NORMS)[..., None])
    n_active_L, nothing_LM = np.array(N_ACTIVE), np.full((n, 2), np.nan)

    def ratios(value: tuple[float, ...], high: tuple[float, ...]) -> Ratios:
        return Ratios(np.array(value), np.array(high) - 0.4, np.array(high))

    scaling = LatentScaling(
        pair=pair,
        leans_L=np.array([int(second >= first) for first, second in NORMS]),
        error_LM=nothing_LM,
        reconstruction_LM=nothing_LM,
        activation_LM=nothing_LM,
        activation_no_bias_LM=nothing_LM,
        nu_error=ratios(NU_ERROR, HIGH_ERROR),
        nu_reconstruction=ratios(NU_RECONSTRUCTION, HIGH_RECONSTRUCTION),
        n_tokens=1000,
        n_active_L=n_active_L,
        n_texts_L=n_active_L,
        density_L=n_active_L / 1000,
        mass_L=n_active_L * 1.0,
        presence_LM=nothing_LM,
        mean_activation_L=np.ones(n),
        kind_share_LK=np.full((n, 4), 0.25),
    )
    return crosscoder, scaling


def status(identity: LatentIdentity) -> dict[str, tuple[str, str]]:
    """By ν and by norms alone."""
    return dict(zip(NAMES, zip(identity.status, identity.status_by_norm, strict=True), strict=True))


def test_each_latent_gets_the_status_that_its_ratios_say_and_beside_it_that_of_its_norms() -> None:
    assert status(identify(*hand_made())) == {
        "candidate only": ("candidate-specific", "candidate-specific"),
        "baseline only": ("baseline-specific", "baseline-specific"),
        "shared": ("shared", "shared"),
        "silent": ("dead", "dead"),
        "few tokens": ("other", "other"),
        "decoupled": ("other", "other"),
        "shrunk": ("other", "candidate-specific"),
        "no decoder": ("other", "other"),
        "unexplained": ("other", "candidate-specific"),
        "wide": ("candidate-specific", "other"),
        "rare": ("candidate-specific", "other"),
        "norms alike": ("candidate-specific", "shared"),
    }


def test_what_stands_beside_the_status_is_the_evidence() -> None:
    crosscoder, scaling = hand_made()
    identity = identify(crosscoder, scaling)
    assert identity.scaling is scaling
    assert identity.side[:3] == ("candidate", "baseline", "candidate")
    np.testing.assert_allclose(identity.delta_norm[:6], [0.975, 0.025, 0.5, 0.5, 0.75, 0.75])
    assert np.flatnonzero(np.isnan(identity.delta_norm)).tolist() == [J["no decoder"]]
    assert np.flatnonzero(np.isnan(identity.cosine)).tolist() == [J["no decoder"]]
    np.testing.assert_allclose(identity.cosine[:7], 1)


def test_counts_name_every_status_and_indices_are_those_of_the_status() -> None:
    identity = identify(*hand_made())
    assert identity.counts() == {
        "baseline-specific": 1,
        "candidate-specific": 4,
        "shared": 1,
        "other": 5,
        "dead": 1,
    }
    assert identity.specific_to("candidate").tolist() == [
        J[n] for n in ("candidate only", "wide", "rare", "norms alike")
    ]
    assert identity.specific_to("baseline").tolist() == [J["baseline only"]]
    assert identity.specific_to("ancestor").tolist() == []


def test_statuses_are_named_by_the_sides_of_the_pair() -> None:
    identity = identify(*hand_made(("ancestor", "tuned")))
    assert identity.pair == ("ancestor", "tuned")
    assert identity.status[:2] == ("tuned-specific", "ancestor-specific")
    assert identity.status_by_norm[:2] == ("tuned-specific", "ancestor-specific")
    assert list(identity.counts())[:2] == ["ancestor-specific", "tuned-specific"]
    assert "does not explain the tuned, to which" in identity.reason[J["unexplained"]]


def test_norms_and_cosines_are_those_of_the_pair_also_where_there_are_more_models() -> None:
    two, scaling = hand_made(("candidate", "ancestor"))
    config = CrosscoderConfig(sides=("ancestor", "baseline", "candidate"), d_model=1, n_latents=len(NAMES), k=1)
    three = Crosscoder(config).requires_grad_(False)
    three.W_dec_LMD[:, 2], three.W_dec_LMD[:, 0] = two.W_dec_LMD[:, 0], two.W_dec_LMD[:, 1]
    three.W_dec_LMD[:, 1] = -7
    one, other = identify(two, scaling), identify(three, scaling)
    np.testing.assert_array_equal(one.delta_norm, other.delta_norm)
    np.testing.assert_array_equal(one.cosine, other.cosine)
    assert (one.status, one.status_by_norm, one.reason) == (other.status, other.status_by_norm, other.reason)


def specific(**changes: object) -> list[str]:
    identity = identify(*hand_made(), IdentificationSettings(**changes))
    return [NAMES[j] for j in identity.specific_to("candidate")]


def test_thresholds_and_the_least_number_of_tokens_move_the_statuses() -> None:
    assert specific() == ["candidate only", "wide", "rare", "norms alike"]
    assert specific(nu_error=0.12) == ["candidate only", "rare", "norms alike"]
    assert specific(nu_error=0.1) == ["norms alike"]  # below, not at
    assert specific(nu_reconstruction=0.9) == ["candidate only", "decoupled", "wide", "rare", "norms alike"]
    assert specific(nu_error=0.7) == ["candidate only", "shrunk", "wide", "rare", "norms alike"]
    assert specific(minimum_active=5) == ["candidate only", "few tokens", "wide", "rare", "norms alike"]
    assert specific(minimum_active=31) == ["candidate only", "wide", "norms alike"]
    assert specific(lowest_nu=-0.1) == ["candidate only", "wide", "rare"]


def test_thresholds_of_norms_move_what_norms_say() -> None:
    wider = identify(
        *hand_made(), IdentificationSettings(specific_delta_norm=(0.3, 0.8), shared_delta_norm=(0.45, 0.75))
    )
    found = status(wider)
    assert found["wide"][1] == "candidate-specific"
    assert found["few tokens"] == ("shared", "shared")
    strict = IdentificationSettings(shared_delta_norm=(0.5, 0.5), specific_delta_norm=(0.0, 1.0))
    found = status(identify(*hand_made(), strict))
    assert found["shared"] == ("shared", "shared")
    assert {by_norm for _, by_norm in found.values()} == {"shared", "dead", "other"}


def test_a_latent_that_does_not_explain_its_own_side_is_never_specific() -> None:
    crosscoder, scaling = hand_made()
    for name in ("nu_error", "nu_reconstruction"):
        value_L = getattr(scaling, name).value_L.copy()
        value_L[0] = NAN
        unexplained = replace(scaling, **{name: replace(getattr(scaling, name), value_L=value_L)})
        identity = identify(crosscoder, unexplained)
        assert identity.status[0] == "other"
        assert identity.reason[0].startswith("it does not explain the candidate")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("silent", "it never fired"),
        ("no decoder", "it has no decoder"),
        (
            "unexplained",
            "it does not explain the candidate, to which it leans, so ν says nothing; "
            "Δnorm = 0.99 is outside 0.4 to 0.6",
        ),
        (
            "decoupled",
            "ν^r = 0.80 and ν^ε = 0.10 are not both below 0.5 and 0.2; Δnorm = 0.75 is outside 0.4 to 0.6",
        ),
        ("shrunk", "ν^r = 0.10 and ν^ε = 0.60 are not both below 0.5 and 0.2; Δnorm = 0.99 is outside 0.4 to 0.6"),
        ("shared", "ν^r = 0.90 and ν^ε = 0.90 are not both below 0.5 and 0.2; Δnorm = 0.50 is within 0.4 to 0.6"),
        ("few tokens", "ν^r = 0.10 and ν^ε = 0.10 are below 0.5 and 0.2, but it fired on 5 of at least 20 tokens"),
        (
            "candidate only",
            "ν^r = 0.10 and ν^ε = 0.10 are below 0.5 and 0.2, so are the upper ends of both intervals",
        ),
        ("wide", "ν^r = 0.40 and ν^ε = 0.15 are below 0.5 and 0.2, but not the upper ends of both intervals"),
        ("rare", "ν^r = 0.10 and ν^ε = 0.10 are below 0.5 and 0.2, too few documents have it for an interval"),
    ],
)
def test_every_status_has_its_reason_in_words(name: str, reason: str) -> None:
    assert identify(*hand_made()).reason[J[name]] == reason


def test_a_ratio_below_the_lowest_is_the_reason_where_there_is_a_lowest() -> None:
    settings = IdentificationSettings(lowest_nu=-0.1)
    identity = identify(*hand_made(), settings)
    assert identity.status[J["norms alike"]] == "shared"
    assert identity.reason[J["norms alike"]] == (
        "ν^r = -0.30 and ν^ε = 0.05: one is below -0.1; Δnorm = 0.55 is within 0.4 to 0.6"
    )


def test_reasons_tell_the_thresholds_that_were_set() -> None:
    settings = IdentificationSettings(nu_reconstruction=0.7, nu_error=0.3, minimum_active=50)
    reason = dict(zip(NAMES, identify(*hand_made(), settings).reason, strict=True))
    assert "are not both below 0.7 and 0.3" in reason["decoupled"]
    assert reason["rare"].endswith("are below 0.7 and 0.3, but it fired on 30 of at least 50 tokens")
    assert reason["wide"].endswith("so are the upper ends of both intervals")


def test_statuses_and_reasons_agree() -> None:
    for settings in (IdentificationSettings(), IdentificationSettings(0.9, 0.7, -0.1, 40)):
        identity = identify(*hand_made(), settings)
        ends = ("ends of both intervals", "for an interval")
        for name, reason in zip(identity.status, identity.reason, strict=True):
            assert name.endswith("-specific") == reason.endswith(ends), (name, reason)


def test_planted_directions_of_one_model_are_found_specific_to_it_and_shared_ones_shared() -> None:
    planted, heldout = plant(20_000), plant(6_000, seed=1)
    settings = TrainingSettings(n_latents=64, k=2, n_steps=700, batch_tokens=512, learning_rate=1e-2)
    crosscoder = train(planted.x_NMD, settings, sides=("baseline", "candidate"), heldout_NMD=heldout.x_NMD)
    encoder = TextEncoder(crosscoder)
    sums, lengths = ScalingSums(encoder), [100] * 60
    sums.update(encoder(heldout.x_NMD, lengths), range(len(lengths)))
    identity = identify(crosscoder, sums.finish(np.random.default_rng(0)))
    found_LX = torch.nn.functional.normalize(crosscoder.W_dec_LMD.flatten(1), dim=-1)
    known_LX = torch.nn.functional.normalize(planted.directions_LMD.flatten(1), dim=-1)
    match_L = (known_LX @ found_LX.T).argmax(dim=1).tolist()
    expected = ["shared"] * 24 + ["baseline-specific"] * 4 + ["candidate-specific"] * 4
    assert [identity.status[j] for j in match_L] == expected
    assert [identity.status_by_norm[j] for j in match_L] == expected
    assert all(identity.reason[j].endswith("so are the upper ends of both intervals") for j in match_L[24:])
    low_L, high_L = identity.scaling.nu_error.low_L[match_L], identity.scaling.nu_error.high_L[match_L]
    assert (low_L[:24] > 0.8).all()
    assert (high_L[:24] < 1.2).all()
