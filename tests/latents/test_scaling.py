"""Latent scaling against the direct least-squares solution and the identities that its formulas imply."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents.scaling import LatentScaling, ScalingSums, leaning, scale

N_TOKENS, N_LATENTS, D_MODEL = 300, 12, 8


def blank(n_models: int = 2, n_latents: int = N_LATENTS, d_model: int = D_MODEL) -> Crosscoder:
    sides = ("baseline", "candidate", "ancestor")[:n_models]
    config = CrosscoderConfig(sides=sides, d_model=d_model, n_latents=n_latents, k=3)
    return Crosscoder(config).requires_grad_(False).double()


def random_pair(seed: int = 0, n_models: int = 2) -> tuple[Crosscoder, Tensor]:
    """A crosscoder with random weights, latent 0 in the first model only, latent 1 in the second only."""
    generator = torch.Generator().manual_seed(seed)
    crosscoder = blank(n_models)
    for tensor in crosscoder.state_dict().values():
        tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    crosscoder.scale_M.abs_().add_(0.5)
    crosscoder.threshold.fill_(1.0)
    crosscoder.W_dec_LMD[0, 1:] = 0
    crosscoder.W_dec_LMD[1, 0] = 0
    x_NMD = torch.randn(N_TOKENS, n_models, D_MODEL, generator=generator, dtype=torch.float64)
    return crosscoder, x_NMD


def direct(crosscoder: Crosscoder, x_NMD: Tensor, f_NL: Tensor, probe_L: np.ndarray) -> dict[str, np.ndarray]:
    """β by least squares over materialised (token, width) targets, latent by latent."""
    z_NMD, d_LMD = crosscoder.normalize(x_NMD), crosscoder.W_dec_LMD
    reconstruction_NMD = crosscoder.decode_normalized(f_NL)
    n_models = d_LMD.shape[1]
    names = ("error", "reconstruction", "activation", "activation_no_bias")
    found = {name: np.full((len(d_LMD), n_models), np.nan) for name in names}
    for j in range(len(d_LMD)):
        column = (f_NL[:, j, None] * d_LMD[j, probe_L[j]]).reshape(-1, 1)
        if not column.any():
            continue
        for m in range(n_models):
            part = f_NL[:, j, None] * d_LMD[j, m]
            targets = {
                "error": z_NMD[:, m] - reconstruction_NMD[:, m] + part,
                "reconstruction": reconstruction_NMD[:, m],
                "activation": z_NMD[:, m],
                "activation_no_bias": z_NMD[:, m] - crosscoder.b_dec_MD[m],
            }
            for name, y_ND in targets.items():
                found[name][j, m] = torch.linalg.lstsq(column, y_ND.reshape(-1, 1)).solution.item()
    return found


def all_beta(scaling: LatentScaling) -> np.ndarray:
    return np.stack(
        [
            scaling.error_LM,
            scaling.reconstruction_LM,
            scaling.activation_LM,
            scaling.activation_no_bias_LM,
        ]
    )


@pytest.mark.parametrize(("n_models", "pair"), [(2, (0, 1)), (3, (0, 1)), (3, (2, 1))])
def test_every_target_equals_the_direct_least_squares_solution(n_models: int, pair: tuple[int, int]) -> None:
    crosscoder, x_NMD = random_pair(n_models=n_models)
    scaling = scale(crosscoder, x_NMD, pair)
    f_NL = crosscoder.encode(x_NMD)
    for name, beta_LM in direct(crosscoder, x_NMD, f_NL, scaling.probe_L).items():
        np.testing.assert_allclose(getattr(scaling, f"{name}_LM"), beta_LM, rtol=1e-9, atol=1e-9)


def test_sums_of_documents_add_up_to_those_of_all_tokens() -> None:
    crosscoder, x_NMD = random_pair()
    total = ScalingSums.zeros(crosscoder)
    for start, stop in ((0, 40), (40, 41), (41, N_TOKENS)):
        document = ScalingSums.zeros(crosscoder)
        document.update(crosscoder, x_NMD[start:stop])
        total = total + document
    parts, whole = total.finish(crosscoder, leaning(crosscoder)), scale(crosscoder, x_NMD)
    np.testing.assert_allclose(all_beta(parts), all_beta(whole), rtol=1e-12)
    np.testing.assert_allclose(parts.mass_L, whole.mass_L)
    assert parts.n_tokens == N_TOKENS
    assert parts.n_active_L.tolist() == whole.n_active_L.tolist()


def test_probe_is_the_decoder_of_the_side_that_a_latent_leans_to() -> None:
    crosscoder, x_NMD = random_pair()
    scaling = scale(crosscoder, x_NMD)
    assert scaling.probe_L[:2].tolist() == [0, 1]
    assert np.isfinite(scaling.activation_LM[:2]).all()


def test_at_a_squared_error_optimum_error_scaling_is_cosine_times_norm_ratio() -> None:
    crosscoder, x_NMD = random_pair()
    f_NL = crosscoder.encode(x_NMD)
    design = torch.cat([f_NL, torch.ones(N_TOKENS, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, crosscoder.normalize(x_NMD).flatten(1)).solution
    crosscoder.W_dec_LMD.copy_(solution[:-1].view_as(crosscoder.W_dec_LMD))
    crosscoder.b_dec_MD.copy_(solution[-1].view_as(crosscoder.b_dec_MD))
    sums = ScalingSums.zeros(crosscoder)
    sums.update(crosscoder, x_NMD, f_NL)
    scaling = sums.finish(crosscoder, leaning(crosscoder))
    own = scaling.error_LM[np.arange(N_LATENTS), scaling.probe_L]
    np.testing.assert_allclose(own, 1, rtol=1e-8)
    norm_LM = crosscoder.decoder_norm_LM.numpy()
    ratio_L = norm_LM.min(axis=1) / norm_LM.max(axis=1)
    np.testing.assert_allclose(scaling.nu_error(), decoder_cosine(crosscoder).numpy() * ratio_L, rtol=1e-8, atol=1e-10)


def test_rescaling_a_latent_changes_no_ratio_no_norm_difference_and_no_selection() -> None:
    crosscoder, x_NMD = random_pair()
    before, f_NL = scale(crosscoder, x_NMD), crosscoder.encode(x_NMD)
    delta_L = delta_norm(crosscoder)
    factor_L = torch.linspace(0.1, 7, N_LATENTS, dtype=torch.float64)
    crosscoder.W_enc_MDL.mul_(factor_L)
    crosscoder.b_enc_L.mul_(factor_L)
    crosscoder.W_dec_LMD.div_(factor_L[:, None, None])
    after = scale(crosscoder, x_NMD)
    torch.testing.assert_close(crosscoder.encode(x_NMD), f_NL * factor_L)
    np.testing.assert_allclose(all_beta(after), all_beta(before), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.nu_error(), before.nu_error(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.mean_activation_L, before.mean_activation_L)
    torch.testing.assert_close(delta_norm(crosscoder), delta_L)


def test_reconstruction_scaling_is_the_sum_over_coactive_latents_and_the_bias() -> None:
    crosscoder, x_NMD = random_pair()
    f_NL, scaling = crosscoder.encode(x_NMD), scale(crosscoder, x_NMD)
    d_LMD = crosscoder.W_dec_LMD
    probe_LD = d_LMD[torch.arange(N_LATENTS), torch.from_numpy(scaling.probe_L)]
    expected_LM = torch.einsum("ji,imd,jd->jm", f_NL.T @ f_NL, d_LMD, probe_LD)
    expected_LM += f_NL.sum(0)[:, None] * torch.einsum("md,jd->jm", crosscoder.b_dec_MD, probe_LD)
    expected_LM /= (f_NL.square().sum(0) * probe_LD.square().sum(-1))[:, None]
    np.testing.assert_allclose(scaling.reconstruction_LM, expected_LM.numpy(), rtol=1e-9)


def test_identical_models_with_tied_decoders_give_ratios_of_one_and_delta_norm_one_half() -> None:
    crosscoder, x_NMD = random_pair()
    for tensor in (crosscoder.mean_MD, crosscoder.b_dec_MD, crosscoder.scale_M):
        tensor[1] = tensor[0]
    crosscoder.W_dec_LMD[:2] = crosscoder.W_dec_LMD[2:4]
    crosscoder.W_dec_LMD[:, 1] = crosscoder.W_dec_LMD[:, 0]
    x_NMD[:, 1] = x_NMD[:, 0]
    scaling = scale(crosscoder, x_NMD)
    for nu_L in (scaling.nu_error(), scaling.nu_reconstruction()):
        assert np.isfinite(nu_L).any()
        np.testing.assert_allclose(nu_L[np.isfinite(nu_L)], 1, rtol=1e-10)
    np.testing.assert_allclose(delta_norm(crosscoder).numpy(), 0.5)


def test_planted_size_of_a_latent_is_recovered_exactly() -> None:
    generator = torch.Generator().manual_seed(3)
    crosscoder = blank(n_latents=1)
    direction_D = torch.randn(D_MODEL, generator=generator, dtype=torch.float64)
    crosscoder.W_dec_LMD[0, 1] = direction_D
    f_NL = torch.rand(N_TOKENS, 1, generator=generator, dtype=torch.float64)
    f_NL *= torch.rand(N_TOKENS, 1, generator=generator, dtype=torch.float64) < 0.1
    u_ND = torch.randn(N_TOKENS, D_MODEL, generator=generator, dtype=torch.float64)
    u_ND -= (u_ND @ direction_D)[:, None] * direction_D / direction_D.square().sum()
    x_NMD = torch.stack([u_ND, u_ND + 1.7 * f_NL * direction_D], dim=1)
    sums = ScalingSums.zeros(crosscoder)
    sums.update(crosscoder, x_NMD, f_NL)
    scaling = sums.finish(crosscoder, leaning(crosscoder))
    np.testing.assert_allclose(scaling.activation_LM, [[0, 1.7]], atol=1e-12)
    np.testing.assert_allclose(scaling.error_LM, [[0, 1.7]], atol=1e-12)
    assert scaling.nu_error()[0] == pytest.approx(0, abs=1e-12)


def test_a_latent_that_never_fires_or_has_no_decoder_is_not_a_number_and_others_are() -> None:
    crosscoder, x_NMD = random_pair()
    crosscoder.b_enc_L[2] = -1e6
    crosscoder.W_dec_LMD[3] = 0
    scaling = scale(crosscoder, x_NMD)
    finite_L = np.isfinite(scaling.error_LM).all(axis=1)
    assert np.flatnonzero(~finite_L).tolist() == [2, 3]
    assert np.isnan(scaling.mean_activation_L[2])
    assert scaling.density_L[2] == 0
