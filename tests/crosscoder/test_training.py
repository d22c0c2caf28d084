"""Training on planted activations: what is recovered, what is calibrated, what is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from diffharness.crosscoder.calibration import calibrate
from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.geometry import delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.quality import measure
from diffharness.crosscoder.schedule import number_of_steps
from diffharness.crosscoder.topk import TopKObjective
from diffharness.crosscoder.training import train
from diffharness.errors import RunError, UsageError
from tests.crosscoder.dense import dense_code
from tests.crosscoder.planted import plant

SIDES = ("ancestor", "baseline", "candidate")
QUICK = {"n_latents": 64, "k": 2, "n_steps": 700, "batch_tokens": 512, "learning_rate": 1e-2}


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate({**QUICK, **changes})


def matches(crosscoder: Crosscoder, directions_LMD: Tensor) -> tuple[Tensor, Tensor]:
    """Of each planted direction: the best cosine with a decoder over all models, and that latent."""
    found_LX = torch.nn.functional.normalize(crosscoder.W_dec_LMD.flatten(1), dim=-1)
    known_LX = torch.nn.functional.normalize(directions_LMD.flatten(1), dim=-1)
    best = (known_LX @ found_LX.T).max(dim=1)
    return best.values, best.indices


@pytest.mark.parametrize("n_only", [(4, 4), (3, 3, 3)])
def test_planted_dictionary_and_what_each_model_lacks_are_recovered(n_only: tuple[int, ...]) -> None:
    planted, heldout = plant(20_000, n_only=n_only), plant(6_000, n_only=n_only, seed=1)
    sides = SIDES[-len(n_only) :]
    crosscoder = train(planted.x_NMD, settings(), sides=sides, heldout_NMD=heldout.x_NMD, layers=(2,))
    cosine_L, latent_L = matches(crosscoder, planted.directions_LMD)
    assert cosine_L.mean() >= 0.97
    delta_L = delta_norm(crosscoder)[latent_L]
    assert ((delta_L[:24] - 0.5).abs() < 0.1).all()
    assert (delta_L[24 : 24 + n_only[0]] < 0.1).all()
    assert (delta_L[24 + n_only[0] : 24 + n_only[0] + n_only[1]] > 0.9).all()
    quality = measure(crosscoder, heldout.x_NMD)
    assert min(quality.explained_variance.values()) > 0.95
    assert quality.l0 == pytest.approx(2, rel=0.01)
    assert crosscoder.config.layer == 2
    assert crosscoder.config.sides == sides


def test_normalised_activations_have_mean_zero_and_the_width_as_mean_square() -> None:
    planted = plant(3_000)
    crosscoder = train(planted.x_NMD, settings(n_steps=1), sides=SIDES[1:], heldout_NMD=planted.x_NMD)
    z_NMD = crosscoder.normalize(planted.x_NMD).double()
    assert z_NMD.mean(dim=0).abs().max() < 1e-5
    torch.testing.assert_close(z_NMD.square().sum(-1).mean(0), torch.full((2,), 32.0).double(), rtol=1e-4, atol=0)


def test_calibration_reaches_the_wanted_mean_l0_on_heldout_tokens() -> None:
    planted, heldout = plant(3_000), plant(5_000, seed=1)
    crosscoder = train(planted.x_NMD, settings(n_steps=20, k=5), sides=SIDES[1:], heldout_NMD=heldout.x_NMD)
    assert float((crosscoder.encode(heldout.x_NMD) > 0).sum()) / 5_000 == pytest.approx(5, rel=0.01)
    crosscoder.threshold.fill_(0)
    calibrate(crosscoder, planted.x_NMD)
    assert float((crosscoder.encode(planted.x_NMD) > 0).sum()) / 3_000 == pytest.approx(5, rel=0.01)


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    planted = plant(2_000)

    def trained(seed: int) -> dict[str, Tensor]:
        quick = settings(n_steps=15, seed=seed)
        crosscoder = train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD)
        return crosscoder.state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["W_dec_LMD"], other["W_dec_LMD"])


def test_training_leaves_the_global_random_state_alone() -> None:
    planted = plant(500)
    state = torch.get_rng_state()
    train(planted.x_NMD, settings(n_steps=2), sides=SIDES[1:], heldout_NMD=planted.x_NMD)
    assert torch.equal(torch.get_rng_state(), state)


def test_dead_latents_revive_by_the_auxiliary_loss_only() -> None:
    planted = plant(1_000)

    def share_firing(aux_coefficient: float) -> float:
        """Of 32 latents that start too small to be chosen, after 200 steps."""
        crosscoder = train(planted.x_NMD, settings(n_steps=1), sides=SIDES[1:], heldout_NMD=planted.x_NMD)
        dead_L = torch.arange(64) < 32
        crosscoder.W_dec_LMD[dead_L] *= 1e-3
        z_NMD = crosscoder.normalize(planted.x_NMD)
        optimiser = torch.optim.Adam(crosscoder.parameters(), lr=1e-2, eps=1e-12)
        fired_L = torch.zeros_like(dead_L)
        objective = TopKObjective(crosscoder, settings(aux_coefficient=aux_coefficient))
        for _ in range(200):
            step = objective.gradients(z_NMD, share=0.5, dead_L=dead_L & ~fired_L)
            fired_L |= step.fired_L
            optimiser.step()
        return float(fired_L[dead_L].double().mean())

    assert share_firing(0.0) == 0
    assert share_firing(1 / 32) > 0.9


def test_fewer_tokens_than_a_batch_and_other_dtypes_are_trained_on_all_the_same() -> None:
    seen: list[tuple[int, int]] = []
    x_NMD = plant(37).x_NMD.to(torch.bfloat16)
    crosscoder = train(
        x_NMD,
        settings(n_steps=3),
        sides=SIDES[1:],
        heldout_NMD=x_NMD[:5],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert crosscoder.W_dec_LMD.isfinite().all()
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_steps_follow_from_the_tokens_unless_they_are_given() -> None:
    assert number_of_steps(TrainingSettings(n_epochs=6, batch_tokens=2000), 1_000_000) == 3000
    assert number_of_steps(TrainingSettings(), 10) == 400
    assert number_of_steps(TrainingSettings(n_steps=7), 1_000_000) == 7


@pytest.mark.parametrize("annealing_share", [0.0, 0.5, 1.0])
def test_annealed_k_moves_in_a_line_and_reaches_its_target(annealing_share: float) -> None:
    planted, records = plant(2_000), []
    quick = settings(initial_k=40, annealing_share=annealing_share, n_steps=101, dead_after_tokens=10**9)
    train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD, log=records.append)
    middle = {0.0: 2, 0.5: 10, 1.0: 25}[annealing_share]
    assert {record["step"]: record["k"] for record in records}[40] == pytest.approx(middle, abs=1)
    assert records[-1]["step"] == 101
    assert records[-1]["k"] == 2
    assert records[-1]["l0"] == pytest.approx(2)


def test_a_training_with_annealed_k_explains_the_plant() -> None:
    planted = plant(4_000)
    quick = settings(initial_k=20, annealing_share=0.5)
    crosscoder = train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD)
    quality = measure(crosscoder, planted.x_NMD)
    assert quality.l0 == pytest.approx(2, rel=0.01)
    assert min(quality.explained_variance.values()) > 0.9


def test_training_stops_when_heldout_variance_has_stopped_rising() -> None:
    planted, heldout, steps = plant(2_000), plant(1_000, seed=1), []
    train(
        planted.x_NMD,
        settings(n_steps=5_000, evaluate_every=10, stop_patience=3, decay_share=0.0),
        sides=SIDES[1:],
        heldout_NMD=heldout.x_NMD,
        progress=lambda done, _: steps.append(done),
    )
    assert 40 <= steps[-1] < 5_000
    assert steps[-1] % 10 == 0


def test_the_log_says_what_training_shows_and_changes_nothing() -> None:
    planted, records = plant(2_000), []
    quick = settings(n_steps=45, evaluate_every=15, initial_k=10)
    logged = train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD, log=records.append)
    silent = train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD)
    assert all(torch.equal(logged.state()[name], tensor) for name, tensor in silent.state().items())
    assert [record["step"] for record in records] == [15, 20, 30, 40, 45]
    evaluated = [record["heldout_explained_variance"] for record in records if record["step"] % 15 == 0]
    assert evaluated == sorted(evaluated)
    last = records[-1]
    assert last["k"] == 2
    assert last["l0"] == pytest.approx(2)
    assert last["tokens"] == 45 * 512
    assert 0 < last["unexplained"] < 1
    assert {"n_steps", "dead_share", "learning_rate", "gradient_norm", "tokens_per_second"} <= last.keys()
    assert "heldout_explained_variance" not in records[1]


def test_explained_variance_in_the_log_is_that_of_the_dense_formula() -> None:
    planted, records = plant(2_000), []
    quick = settings(n_steps=15, evaluate_every=15)
    crosscoder = train(planted.x_NMD, quick, sides=SIDES[1:], heldout_NMD=planted.x_NMD, log=records.append)
    z_NMD = crosscoder.normalize(planted.x_NMD)
    error_NMD = z_NMD - crosscoder.decode_normalized(dense_code(crosscoder, z_NMD, 2))
    explained = 1 - float(error_NMD.square().sum() / z_NMD.square().sum())
    assert records[-1]["heldout_explained_variance"] == pytest.approx(explained, rel=1e-5)


def test_misfits_are_refused_in_words() -> None:
    x_NMD = plant(50).x_NMD
    with pytest.raises(UsageError, match="2 models"):
        train(torch.zeros(10, 3, 4), settings(), sides=SIDES[1:], heldout_NMD=x_NMD)
    with pytest.raises(UsageError, match="no held-out tokens"):
        train(x_NMD, settings(), sides=SIDES[1:], heldout_NMD=x_NMD[:0])
    with pytest.raises(RunError, match="candidate"):
        train(x_NMD * torch.tensor([1.0, 0.0])[:, None], settings(), sides=SIDES[1:], heldout_NMD=x_NMD)
    with pytest.raises(ValidationError, match="must not exceed"):
        TrainingSettings(n_latents=4, k=5)
