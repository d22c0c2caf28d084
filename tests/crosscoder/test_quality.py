"""Quality measures against their definitions, and the control with a random encoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder import geometry, normalisation
from diffharness.crosscoder.config import CrosscoderConfig, TrainingSettings
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import code_chunk_tokens
from diffharness.crosscoder.quality import QualityMeasures, measure, reconstruct, staleness
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
    assert quality.threshold == 2.0
    assert torch.equal(quality.fired_L, (f_NL > 0).any(dim=0))
    with pytest.raises(RunError, match="held-out"):
        measure(crosscoder, x_NMD[:0])
    with pytest.raises(RunError, match="of baseline have variance 0"):
        measure(crosscoder, x_NMD * torch.tensor([1.0, 0.0])[:, None])
    with pytest.raises(RunError, match="of ancestor have variance nan"):
        measure(crosscoder, x_NMD * torch.tensor([float("nan"), 1.0])[:, None])


def changed(crosscoder: Crosscoder, **update: object) -> Crosscoder:
    """The same weights under another configuration."""
    made = Crosscoder(CrosscoderConfig.model_validate({**crosscoder.config.model_dump(), **update}))
    made = made.requires_grad_(False).double()
    for name, tensor in crosscoder.state_dict().items():
        target = made.state_dict()[name]
        target.copy_(tensor.broadcast_to(target.shape))
    return made


def tokens(n_models: int = 2, n: int = 200) -> Tensor:
    return 3 + torch.randn(n, n_models, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_every_two_models_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "BLOCK_VALUES", 6 * 4)  # four latents at a time
    crosscoder, _ = random_crosscoder(n_models=3)
    crosscoder.W_dec_LMD[0, :2] = 0
    found = measure(crosscoder, tokens(3))
    assert [(p.first, p.second) for p in found.pairs] == [
        ("ancestor", "baseline"), ("ancestor", "candidate"), ("baseline", "candidate"),
    ]  # fmt: skip
    for pair, places in zip(found.pairs, ((0, 1), (0, 2), (1, 2)), strict=True):
        delta_L, cosine_L = delta_norm(crosscoder, places), decoder_cosine(crosscoder, places)
        delta_L, cosine_L = delta_L[delta_L.isfinite()], cosine_L[found.fired_L & cosine_L.isfinite()]
        edges = torch.tensor(found.delta_norm_edges, dtype=torch.float64)
        assert list(pair.delta_norm_counts) == torch.histogram(delta_L, edges).hist.tolist()
        edges = torch.tensor(found.cosine_edges, dtype=torch.float64)
        assert list(pair.cosine_counts) == torch.histogram(cosine_L, edges).hist.tolist()
        assert pair.cosine_median == pytest.approx(float(cosine_L.median()))
    assert [sum(p.delta_norm_counts) for p in found.pairs] == [14, 15, 15]
    alone, _ = random_crosscoder(n_models=1)
    assert measure(alone, tokens(1)).pairs == ()


def test_models_are_told_by_layer_where_there_are_several() -> None:
    single, _ = random_crosscoder()
    config = CrosscoderConfig(sides=("baseline", "candidate"), layers=(3, 5), d_model=6, n_latents=15, k=4)
    crosscoder = Crosscoder(config).requires_grad_(False).double()
    for name, tensor in crosscoder.state_dict().items():
        tensor.normal_(generator=torch.Generator().manual_seed(len(name)))
    crosscoder.scale_M.abs_().add_(0.1)
    found = measure(crosscoder, tokens(4))
    assert list(found.explained_variance) == ["baseline@3", "baseline@5", "candidate@3", "candidate@5"]
    assert [(p.first, p.second) for p in found.pairs] == [("baseline@3", "candidate@3"), ("baseline@5", "candidate@5")]
    assert list(measure(single, tokens()).explained_variance) == ["ancestor", "baseline"]


def test_codes_of_each_model_are_counted_by_model() -> None:
    shared, _ = random_crosscoder()
    crosscoder = changed(shared, code_norm="per_model")
    f_NML = crosscoder.encode(tokens())
    found = measure(crosscoder, tokens())
    assert found.l0 == pytest.approx(float((f_NML > 0).sum(dim=-1).double().mean()))
    assert found.dead_share == pytest.approx(float((~(f_NML > 0).any(dim=0).any(dim=0)).double().mean()))


def test_padding_of_a_narrower_model_changes_nothing() -> None:
    wide, x_NMD = random_crosscoder()
    x_NMD = tokens()
    x_NMD[:, 0, 4:] = 0
    for tensor in (wide.W_enc_LMD, wide.W_dec_LMD):
        tensor[:, 0, 4:] = 0
    wide.b_dec_MD[0, 4:] = 0
    wide.mean_MD[0, 4:] = 0
    found = measure(changed(wide, widths=(4, 6)), x_NMD)
    error_N4 = (x_NMD - wide(x_NMD))[:, 0, :4]
    expected = 1 - error_N4.square().sum() / (x_NMD[:, 0, :4] - x_NMD[:, 0, :4].mean(dim=0)).square().sum()
    assert found.explained_variance["ancestor"] == pytest.approx(float(expected))


def test_a_threshold_is_told_where_there_is_one_for_all() -> None:
    crosscoder, _ = random_crosscoder()
    assert measure(changed(crosscoder, threshold_shape=(15,)), tokens()).threshold is None
    assert measure(changed(crosscoder, activation="topk"), tokens()).threshold is None


def test_memory_bounds_the_chunks_and_they_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    crosscoder, _ = random_crosscoder()
    whole, x_NMD = measure(crosscoder, tokens()), tokens()
    monkeypatch.setattr(normalisation, "CODE_VALUES", 15 * 7)
    assert code_chunk_tokens(crosscoder.config) == 7
    assert code_chunk_tokens(changed(crosscoder, code_norm="per_model").config) == 3
    pieces = measure(crosscoder, x_NMD)
    assert list(pieces.explained_variance.values()) == pytest.approx(list(whole.explained_variance.values()))
    assert (pieces.l0, pieces.pairs) == (whole.l0, whole.pairs)
    torch.testing.assert_close(reconstruct(crosscoder, x_NMD), crosscoder(x_NMD), rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(normalisation, "CODE_VALUES", 1)
    assert code_chunk_tokens(crosscoder.config) == 1


def measured(**explained: float) -> QualityMeasures:
    crosscoder, _ = random_crosscoder()
    return dataclasses.replace(measure(crosscoder, tokens()), explained_variance=explained)


def test_a_crosscoder_that_explains_little_is_stale() -> None:
    assert staleness(measured(baseline=0.6, candidate=0.93)) is None
    reason = staleness(measured(baseline=0.93, candidate=0.412))
    assert reason == "it explains 41.2\u00a0% of the variance of the candidate's activations, less than 60\u00a0%"
    assert "−120.0\u00a0%" in (staleness(measured(baseline=-1.2)) or "")
    assert staleness(measured(baseline=float("nan"))) is not None


def test_a_crosscoder_that_explains_less_than_it_states_is_stale() -> None:
    assert staleness(measured(baseline=0.84, candidate=0.9), {"baseline": 0.93, "other": 1.0}) is None
    reason = staleness(measured(baseline=0.82, candidate=0.5), {"baseline": 0.93, "candidate": 0.93})
    assert reason == (
        "it explains 82.0\u00a0% of the variance of the baseline's activations, more than 10 points below the "
        "93.0\u00a0% that its own quality.json states; it explains 50.0\u00a0% of the variance of the candidate's "
        "activations, less than 60\u00a0%"
    )


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
