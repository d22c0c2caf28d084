"""Quality measures against their definitions, and the control with a random encoder."""

from __future__ import annotations

import pytest
import torch

from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.quality import measure
from diffharness.crosscoder.random_encoder import random_encoder
from diffharness.crosscoder.training import train
from diffharness.errors import RunError
from tests.crosscoder.planted import plant
from tests.crosscoder.test_model import random_crosscoder


def test_measures_are_ratios_of_sums_over_all_tokens() -> None:
    crosscoder, _ = random_crosscoder()
    crosscoder.W_dec_LMD[0] = 0
    x_NMD = 3 + torch.randn(9_000, 2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    quality, f_NL = measure(crosscoder, x_NMD), crosscoder.encode(x_NMD)
    error_M = (x_NMD - crosscoder.decode(f_NL)).square().sum(dim=(0, 2))
    variance_M = (x_NMD - x_NMD.mean(dim=0)).square().sum(dim=(0, 2))
    assert list(quality.explained_variance) == ["ancestor", "baseline"]
    assert list(quality.explained_variance.values()) == pytest.approx((1 - error_M / variance_M).tolist())
    assert quality.l0 == pytest.approx(float((f_NL > 0).sum(dim=1).double().mean()))
    assert quality.dead_share == pytest.approx(float((~(f_NL > 0).any(dim=0)).double().mean()))
    assert sum(quality.delta_norm_counts) == 14
    assert len(quality.delta_norm_edges) == len(quality.delta_norm_counts) + 1
    with pytest.raises(RunError, match="held-out"):
        measure(crosscoder, x_NMD[:0])


def test_random_encoder_has_fitted_decoders_the_same_l0_and_explains_less() -> None:
    planted, heldout = plant(8_000), plant(4_000, seed=1)
    quick = TrainingSettings(n_latents=48, k=2, n_steps=300, batch_tokens=512, learning_rate=1e-2)
    crosscoder = train(planted.x_NMD, quick, sides=("baseline", "candidate"), heldout_NMD=heldout.x_NMD)
    control = random_encoder(crosscoder, planted.x_NMD, heldout_NMD=heldout.x_NMD, seed=3)
    real, random = measure(crosscoder, heldout.x_NMD), measure(control, heldout.x_NMD)
    assert random.l0 == pytest.approx(2, rel=0.01)
    assert random.explained_variance["candidate"] < real.explained_variance["candidate"] - 0.2
    assert random.explained_variance["candidate"] > 0.05
    assert torch.equal(control.scale_M, crosscoder.scale_M)
    again = random_encoder(crosscoder, planted.x_NMD, heldout_NMD=heldout.x_NMD, seed=3)
    assert torch.equal(again.W_enc_MDL, control.W_enc_MDL)
    f_NL = control.encode(planted.x_NMD).double()
    residual_NMD = control.normalize(planted.x_NMD) - control.decode_normalized(f_NL.float())
    assert residual_NMD.double().mean(dim=0).abs().max() < 0.05
