"""The crosscoder's forward pass: identities, the inference rule and what may not change it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError


def random_crosscoder(seed: int = 0, n_models: int = 2, n_tokens: int = 40) -> tuple[Crosscoder, Tensor]:
    """Random weights in float64, and random tokens."""
    generator = torch.Generator().manual_seed(seed)
    config = CrosscoderConfig(sides=("ancestor", "baseline", "candidate")[:n_models], d_model=6, n_latents=15, k=4)
    crosscoder = Crosscoder(config).requires_grad_(False).double()
    for tensor in crosscoder.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    crosscoder.scale_M.abs_().add_(0.1)
    crosscoder.threshold.fill_(2.0)
    x_NMD = torch.randn(n_tokens, n_models, 6, generator=generator, dtype=torch.float64)
    return crosscoder, x_NMD


def test_raw_decoder_and_bias_give_the_reconstruction_in_raw_units() -> None:
    for n_models in (2, 3):
        crosscoder, x_NMD = random_crosscoder(n_models=n_models)
        f_NL = crosscoder.encode(x_NMD)
        parts_NMD = torch.einsum("nl,lmd->nmd", f_NL, crosscoder.raw_decoder()) + crosscoder.raw_bias()
        error_NMD = x_NMD - crosscoder.decode(f_NL)
        torch.testing.assert_close(parts_NMD + error_NMD, x_NMD, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(crosscoder.denormalize(crosscoder.normalize(x_NMD)), x_NMD)


def test_an_activation_at_the_threshold_is_dropped_and_one_above_it_kept() -> None:
    crosscoder = Crosscoder(CrosscoderConfig(sides=("a", "b"), d_model=1, n_latents=3, k=1))
    crosscoder.requires_grad_(False)
    crosscoder.b_enc_L.copy_(torch.tensor([1.0, 1.5, -1.0]))
    crosscoder.W_dec_LMD.copy_(torch.tensor([[[1.0], [1.0]], [[1.0], [1.0]], [[9.0], [9.0]]]))
    crosscoder.threshold.fill_(2.0)
    assert crosscoder.encode(torch.zeros(1, 2, 1)).tolist() == [[0.0, 1.5, 0.0]]
    crosscoder.threshold.fill_(-1.0)
    assert crosscoder.encode(torch.zeros(1, 2, 1)).tolist() == [[1.0, 1.5, 0.0]]


def test_selection_does_not_depend_on_how_size_is_split_between_code_and_decoder() -> None:
    crosscoder, x_NMD = random_crosscoder()
    coded_NL = crosscoder.encode(x_NMD)
    reconstruction_NMD = crosscoder(x_NMD)
    factor_L = torch.logspace(-2, 2, 15, dtype=torch.float64)
    crosscoder.W_enc_MDL.mul_(factor_L)
    crosscoder.b_enc_L.mul_(factor_L)
    crosscoder.W_dec_LMD.div_(factor_L[:, None, None])
    torch.testing.assert_close(crosscoder.encode(x_NMD), coded_NL * factor_L)
    torch.testing.assert_close(crosscoder(x_NMD), reconstruction_NMD)


def test_delta_norm_runs_from_the_first_model_to_the_second_and_is_undefined_without_decoders() -> None:
    crosscoder = Crosscoder(CrosscoderConfig(sides=("a", "b"), d_model=2, n_latents=5, k=1))
    crosscoder.requires_grad_(False)
    norms_LM = torch.tensor([[1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [1.0, 4.0], [0.0, 0.0]])
    crosscoder.W_dec_LMD[:, 0, 0] = norms_LM[:, 0]
    crosscoder.W_dec_LMD[:, 1, 1] = norms_LM[:, 1]
    expected_L = torch.tensor([0.0, 0.25, 0.5, 0.875, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(delta_norm(crosscoder), expected_L, equal_nan=True)
    torch.testing.assert_close(delta_norm(crosscoder, (1, 0)), 1 - expected_L, equal_nan=True)
    assert decoder_cosine(crosscoder)[1:4].tolist() == [0.0, 0.0, 0.0]
    assert decoder_cosine(crosscoder)[[0, 4]].isnan().all()


def test_activations_of_another_shape_are_refused_in_words() -> None:
    crosscoder, x_NMD = random_crosscoder()
    for wrong in (x_NMD[:, :1], x_NMD[..., :5], x_NMD[:, 0]):
        with pytest.raises(UsageError, match=r"the crosscoder reads \(tokens, 2, 6\): ancestor, baseline"):
            crosscoder.encode(wrong)
