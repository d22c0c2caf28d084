"""Latent scaling against the direct least-squares solution, slow bootstraps, and the identities of its formulas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.config import CrosscoderConfig, Rule
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents import scaling as room
from diffharness.latents.codes import TextEncoder
from diffharness.latents.scaling import MINIMUM_GROUPS, N_GROUPS, N_RESAMPLES, LatentScaling, ScalingSums

N_LATENTS, D_MODEL = 12, 8
LENGTHS = (17, 0, 40, 1, 22, 9, 31, 5, 60, 14, 2, 48, 27, 24)
N_TOKENS = sum(LENGTHS)
BETAS = ("error_LM", "reconstruction_LM", "activation_LM", "activation_no_bias_LM")


def blank(n_models: int = 2, n_latents: int = N_LATENTS, d_model: int = D_MODEL, rule: Rule = "threshold"):
    sides = ("baseline", "candidate", "ancestor")[:n_models]
    config = CrosscoderConfig(sides=sides, d_model=d_model, n_latents=n_latents, k=3, activation=rule)
    return Crosscoder(config).requires_grad_(False).double()


def made(seed: int = 0, n_models: int = 2, rule: Rule = "threshold") -> tuple[Crosscoder, Tensor]:
    """A crosscoder with random weights, latent 0 in the first model only, latent 1 in the second only."""
    generator = torch.Generator().manual_seed(seed)
    crosscoder = blank(n_models, rule=rule)
    for tensor in crosscoder.state_dict().values():
        tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    crosscoder.scale_M.abs_().add_(0.5)
    crosscoder.threshold.fill_(1.0)
    crosscoder.W_dec_LMD[0, 1:] = 0
    crosscoder.W_dec_LMD[1, 0] = 0
    crosscoder.W_dec_LMD[1, 2:] = 0
    return crosscoder, torch.randn(N_TOKENS, n_models, D_MODEL, generator=generator, dtype=torch.float64)


def summed(
    crosscoder: Crosscoder,
    x_NMD: Tensor,
    lengths: Sequence[int] = LENGTHS,
    documents: Sequence[int] | None = None,
    pair: tuple[int, int] = (0, 1),
    **sizes: int,
) -> ScalingSums:
    """All texts in one update, each a document unless said otherwise."""
    encoder = TextEncoder(crosscoder, pair)
    sums = ScalingSums(encoder, **sizes)
    sums.update(encoder(x_NMD, lengths), range(len(lengths)) if documents is None else documents)
    return sums


def scaled(*args, seed: int = 0, **more) -> LatentScaling:
    return summed(*args, **more).finish(np.random.default_rng(seed))


def probes(crosscoder: Crosscoder, pair: tuple[int, int]) -> Tensor:
    """The larger decoder of the pair, latent by latent."""
    d_LMD = crosscoder.W_dec_LMD
    first_L1 = d_LMD[:, pair[0]].norm(dim=1, keepdim=True) > d_LMD[:, pair[1]].norm(dim=1, keepdim=True)
    return torch.where(first_L1, d_LMD[:, pair[0]], d_LMD[:, pair[1]])


def direct(crosscoder: Crosscoder, x_NMD: Tensor, pair: tuple[int, int]) -> dict[str, np.ndarray]:
    """β by least squares over materialised (token, width) targets, latent by latent."""
    z_NMD, d_LMD, f_NL = crosscoder.normalize(x_NMD), crosscoder.W_dec_LMD, crosscoder.encode(x_NMD)
    decoded_NMD, probe_LD = crosscoder.decode_normalized(f_NL), probes(crosscoder, pair)
    found = {name: np.full((len(d_LMD), 2), np.nan) for name in BETAS}
    for j in range(len(d_LMD)):
        column_X1 = (f_NL[:, j, None] * probe_LD[j]).reshape(-1, 1)
        if not column_X1.any():
            continue
        for place, m in enumerate(pair):
            targets = (
                z_NMD[:, m] - decoded_NMD[:, m] + f_NL[:, j, None] * d_LMD[j, m],
                decoded_NMD[:, m],
                z_NMD[:, m],
                z_NMD[:, m] - crosscoder.b_dec_MD[m],
            )
            for name, y_ND in zip(BETAS, targets, strict=True):
                found[name][j, place] = torch.linalg.lstsq(column_X1, y_ND.reshape(-1, 1)).solution.item()
    return found


def all_beta(scaling: LatentScaling) -> np.ndarray:
    return np.stack([getattr(scaling, name) for name in BETAS])


def all_ends(scaling: LatentScaling) -> np.ndarray:
    ratios = (scaling.nu_error, scaling.nu_reconstruction)
    return np.stack([getattr(nu, name) for nu in ratios for name in ("value_L", "low_L", "high_L")])


def assert_alike(one: LatentScaling, other: LatentScaling, rtol: float = 1e-9) -> None:
    for name in vars(one):
        if name in ("pair", "nu_error", "nu_reconstruction"):
            continue
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(all_ends(one), all_ends(other), rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("rule", ["relu", "threshold", "topk"])
@pytest.mark.parametrize(("n_models", "pair"), [(2, (0, 1)), (3, (0, 1)), (3, (2, 1))])
def test_every_target_equals_the_direct_least_squares_solution(
    n_models: int, pair: tuple[int, int], rule: Rule
) -> None:
    crosscoder, x_NMD = made(n_models=n_models, rule=rule)
    scaling = scaled(crosscoder, x_NMD, pair=pair)
    for name, beta_LM in direct(crosscoder, x_NMD, pair).items():
        assert np.isfinite(beta_LM).sum() > 16
        np.testing.assert_allclose(getattr(scaling, name), beta_LM, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (2, 1)])
def test_ratios_are_of_the_other_model_over_the_one_leant_to_and_nothing_where_that_is_unexplained(pair) -> None:
    crosscoder, x_NMD = made(n_models=3)
    crosscoder.b_dec_MD.mul_(4)
    scaling, beta = scaled(crosscoder, x_NMD, pair=pair), direct(crosscoder, x_NMD, pair)
    assert scaling.pair == tuple(crosscoder.sides[m] for m in pair)
    n_unexplained = 0
    for ratios, name in ((scaling.nu_error, "error_LM"), (scaling.nu_reconstruction, "reconstruction_LM")):
        for j, lean in enumerate(scaling.leans_L):
            own, other = beta[name][j, lean], beta[name][j, 1 - lean]
            if own > 0:
                assert ratios.value_L[j] == pytest.approx(other / own, rel=1e-8, abs=1e-9)
            else:
                assert np.isnan(ratios.value_L[j])
                n_unexplained += 1
    assert n_unexplained > 0


def test_probe_is_the_decoder_of_the_side_that_a_latent_leans_to() -> None:
    crosscoder, x_NMD = made(n_models=3)
    assert scaled(crosscoder, x_NMD).leans_L[:2].tolist() == [0, 1]
    assert scaled(crosscoder, x_NMD, pair=(1, 0)).leans_L[:2].tolist() == [1, 0]
    crosscoder.W_dec_LMD[3, 1] = crosscoder.W_dec_LMD[3, 0]
    scaling = scaled(crosscoder, x_NMD)
    norm_LM = crosscoder.decoder_norm_LM[:, :2].numpy()
    np.testing.assert_array_equal(scaling.leans_L, norm_LM[:, 1] >= norm_LM[:, 0])
    assert np.isfinite(scaling.activation_LM[:2]).all()


def test_counts_masses_and_presence_are_those_of_a_loop_over_texts() -> None:
    crosscoder, x_NMD = made(n_models=3)
    pair, rng = (2, 1), np.random.default_rng(4)
    kind_N = rng.integers(0, 4, N_TOKENS).astype(np.uint8)
    encoder = TextEncoder(crosscoder, pair)
    sums = ScalingSums(encoder)
    sums.update(encoder(x_NMD, LENGTHS), range(len(LENGTHS)), kind_N)
    scaling = sums.finish(rng)
    f_NL, z_NMD, d_LMD = crosscoder.encode(x_NMD), crosscoder.normalize(x_NMD), crosscoder.W_dec_LMD
    decoded_NMD, probe_LD = crosscoder.decode_normalized(f_NL), probes(crosscoder, pair)
    assert scaling.n_tokens == N_TOKENS
    for j in range(N_LATENTS):
        norm = float(d_LMD[j].norm(dim=-1).sum())
        active = [n for n in range(N_TOKENS) if f_NL[n, j] > 0]
        mass = sum(float(f_NL[n, j]) * norm for n in active)
        assert scaling.n_active_L[j] == len(active)
        assert scaling.n_texts_L[j] == sum(bool((text_TL[:, j] > 0).any()) for text_TL in f_NL.split(LENGTHS))
        assert scaling.density_L[j] == pytest.approx(len(active) / N_TOKENS)
        assert scaling.mass_L[j] == pytest.approx(mass)
        assert scaling.mean_activation_L[j] == pytest.approx(mass / len(active))
        by_kind = [sum(float(f_NL[n, j]) * norm for n in active if kind_N[n] == kind) for kind in range(4)]
        np.testing.assert_allclose(scaling.kind_share_LK[j], np.array(by_kind) / mass)
        for place, m in enumerate(pair):
            held = 0.0
            for n in active:
                left_D = z_NMD[n, m] - decoded_NMD[n, m] + f_NL[n, j] * d_LMD[j, m]
                held += float(left_D @ probe_LD[j] / probe_LD[j].square().sum().clamp(min=1e-9)) * norm
            assert scaling.presence_LM[j, place] == pytest.approx(held, rel=1e-8, abs=1e-8)


def test_without_kinds_all_tokens_are_content() -> None:
    share_LK = scaled(*made()).kind_share_LK
    assert share_LK.shape == (N_LATENTS, 4)
    np.testing.assert_allclose(share_LK, np.eye(4)[:1].repeat(N_LATENTS, axis=0))


def test_chunks_and_the_order_of_texts_change_nothing() -> None:
    crosscoder, x_NMD = made()
    documents = [i // 2 for i in range(len(LENGTHS))]
    whole = scaled(crosscoder, x_NMD, documents=documents)
    assert np.isfinite(all_ends(whole)).any(axis=1).all()
    texts, order = x_NMD.split(LENGTHS), np.random.default_rng(1).permutation(len(LENGTHS)).tolist()
    encoder = TextEncoder(crosscoder)
    for chunks in ([order], [[i] for i in order], [order[:5], order[5:6], order[6:]]):
        sums = ScalingSums(encoder)
        for chunk in chunks:
            codes = encoder(torch.cat([texts[i] for i in chunk]), [LENGTHS[i] for i in chunk])
            sums.update(codes, [documents[i] for i in chunk])
        assert_alike(sums.finish(np.random.default_rng(0)), whole)


def test_weights_in_single_precision_agree_to_a_hundred_thousandth() -> None:
    crosscoder, x_NMD = made()
    exact = scaled(crosscoder, x_NMD)
    single = scaled(crosscoder.float(), x_NMD.float())
    assert single.error_LM.dtype == single.presence_LM.dtype == np.float64
    np.testing.assert_array_equal(single.n_active_L, exact.n_active_L)
    for name in (*BETAS, "mass_L", "presence_LM", "mean_activation_L"):
        one, other = getattr(single, name), getattr(exact, name)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(other)), err_msg=name)


def test_at_a_squared_error_optimum_error_scaling_is_cosine_times_norm_ratio() -> None:
    crosscoder, x_NMD = made(rule="relu")  # whose code does not depend on the decoder
    f_NL = crosscoder.encode(x_NMD)
    design = torch.cat([f_NL, torch.ones(N_TOKENS, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, crosscoder.normalize(x_NMD).flatten(1)).solution
    crosscoder.W_dec_LMD.copy_(solution[:-1].view_as(crosscoder.W_dec_LMD))
    crosscoder.b_dec_MD.copy_(solution[-1].view_as(crosscoder.b_dec_MD))
    scaling = scaled(crosscoder, x_NMD)
    own_L = scaling.error_LM[np.arange(N_LATENTS), scaling.leans_L]
    np.testing.assert_allclose(own_L, 1, rtol=1e-8)
    norm_LM = crosscoder.decoder_norm_LM.numpy()
    expected_L = decoder_cosine(crosscoder).numpy() * norm_LM.min(axis=1) / norm_LM.max(axis=1)
    np.testing.assert_allclose(scaling.nu_error.value_L, expected_L, rtol=1e-8, atol=1e-10)


def test_rescaling_a_latent_changes_no_figure_but_the_codes() -> None:
    crosscoder, x_NMD = made()
    before, f_NL, delta_L = scaled(crosscoder, x_NMD), crosscoder.encode(x_NMD), delta_norm(crosscoder)
    factor_L = torch.linspace(0.1, 7, N_LATENTS, dtype=torch.float64)
    crosscoder.W_enc_MDL.mul_(factor_L)
    crosscoder.b_enc_L.mul_(factor_L)
    crosscoder.W_dec_LMD.div_(factor_L[:, None, None])
    torch.testing.assert_close(crosscoder.encode(x_NMD), f_NL * factor_L)
    assert_alike(scaled(crosscoder, x_NMD), before)
    torch.testing.assert_close(delta_norm(crosscoder), delta_L)


def test_reconstruction_scaling_is_the_sum_over_coactive_latents_and_the_bias() -> None:
    crosscoder, x_NMD = made()
    f_NL, probe_LD = crosscoder.encode(x_NMD), probes(crosscoder, (0, 1))
    expected_LM = torch.einsum("ji,imd,jd->jm", f_NL.T @ f_NL, crosscoder.W_dec_LMD, probe_LD)
    expected_LM += f_NL.sum(0)[:, None] * torch.einsum("md,jd->jm", crosscoder.b_dec_MD, probe_LD)
    expected_LM /= (f_NL.square().sum(0) * probe_LD.square().sum(-1))[:, None]
    np.testing.assert_allclose(scaled(crosscoder, x_NMD).reconstruction_LM, expected_LM.numpy(), rtol=1e-9)


def test_identical_models_with_tied_decoders_give_ratios_of_one_and_delta_norm_one_half() -> None:
    crosscoder, x_NMD = made()
    for tensor in (crosscoder.mean_MD, crosscoder.b_dec_MD, crosscoder.scale_M):
        tensor[1] = tensor[0]
    crosscoder.W_dec_LMD[:2] = crosscoder.W_dec_LMD[2:4]
    crosscoder.W_dec_LMD[:, 1] = crosscoder.W_dec_LMD[:, 0]
    x_NMD[:, 1] = x_NMD[:, 0]
    scaling = scaled(crosscoder, x_NMD)
    for nu in (scaling.nu_error, scaling.nu_reconstruction):
        for ends_L in (nu.value_L, nu.low_L, nu.high_L):
            assert np.isfinite(ends_L).any()
            np.testing.assert_allclose(ends_L[np.isfinite(ends_L)], 1, rtol=1e-9)
    np.testing.assert_allclose(delta_norm(crosscoder).numpy(), 0.5)


def test_planted_size_of_a_latent_is_recovered_exactly() -> None:
    generator = torch.Generator().manual_seed(3)
    crosscoder = blank(n_latents=1, rule="relu")
    d_D = torch.randn(D_MODEL, generator=generator, dtype=torch.float64)
    crosscoder.W_dec_LMD[0, 1] = d_D
    crosscoder.W_enc_LMD[0, 1] = d_D / (1.7 * d_D.square().sum())  # reads the code off what was planted
    f_N1 = torch.rand(N_TOKENS, 1, generator=generator, dtype=torch.float64)
    f_N1 *= torch.rand(N_TOKENS, 1, generator=generator, dtype=torch.float64) < 0.1
    u_ND = torch.randn(N_TOKENS, D_MODEL, generator=generator, dtype=torch.float64)
    u_ND -= (u_ND @ d_D)[:, None] * d_D / d_D.square().sum()
    scaling = scaled(crosscoder, torch.stack([u_ND, u_ND + 1.7 * f_N1 * d_D], dim=1))
    np.testing.assert_allclose(scaling.activation_LM, [[0, 1.7]], atol=1e-12)
    np.testing.assert_allclose(scaling.error_LM, [[0, 1.7]], atol=1e-12)
    assert scaling.nu_error.value_L[0] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(scaling.presence_LM[0], [0, 1.7 * scaling.mass_L[0]], atol=1e-9)


def test_a_latent_that_never_fires_or_has_no_decoder_is_not_a_number_and_others_are() -> None:
    crosscoder, x_NMD = made(rule="relu")  # so that a latent without decoder fires
    crosscoder.b_enc_L[2] = -1e6
    crosscoder.W_dec_LMD[3] = 0
    scaling = scaled(crosscoder, x_NMD)
    assert np.flatnonzero(~np.isfinite(all_beta(scaling)).all(axis=(0, 2))).tolist() == [2, 3]
    assert np.isnan(all_beta(scaling)[:, 2:4]).all()
    assert np.isnan(all_ends(scaling)[:, 2:4]).all()
    assert scaling.n_active_L[2] == scaling.n_texts_L[2] == scaling.density_L[2] == scaling.mass_L[2] == 0
    assert scaling.n_active_L[3] > 0
    assert scaling.presence_LM[2:4].tolist() == [[0, 0], [0, 0]]
    assert np.isnan(scaling.mean_activation_L[2])
    assert np.isnan(scaling.kind_share_LK[2]).all()


def test_nothing_read_is_nothing_known() -> None:
    crosscoder, _ = made()
    scaling = ScalingSums(TextEncoder(crosscoder)).finish(np.random.default_rng(0))
    assert np.isnan(all_beta(scaling)).all()
    assert np.isnan(all_ends(scaling)).all()
    assert scaling.n_tokens == scaling.density_L.sum() == 0


def slow_bootstrap(
    crosscoder: Crosscoder, x_NMD: Tensor, latent: int, lean: int, draws_RG: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ν^ε and ν^r of a latent, worked out anew from the tokens of each resample's documents."""
    z_NMD, f_NL = crosscoder.normalize(x_NMD).numpy(), crosscoder.encode(x_NMD)
    decoded_NMD, d_MD = crosscoder.decode_normalized(f_NL).numpy(), crosscoder.W_dec_LMD[latent].numpy()
    f_N = f_NL[:, latent].numpy()
    column_ND = f_N[:, None] * d_MD[lean]
    targets = z_NMD - decoded_NMD + f_N[:, None, None] * d_MD, decoded_NMD
    tokens_of = np.split(np.arange(len(f_N)), np.cumsum(LENGTHS)[:-1])
    found = np.full((2, len(draws_RG)), np.nan)
    for r, draw_G in enumerate(draws_RG):
        rows = np.concatenate([np.tile(rows, times) for rows, times in zip(tokens_of, draw_G, strict=True)])
        column_X = column_ND[rows].ravel()
        if not column_X.any():
            continue
        for target, y_NMD in enumerate(targets):
            beta_M = [column_X @ y_NMD[rows, m].ravel() / (column_X @ column_X) for m in (0, 1)]
            if beta_M[lean] > 0:
                found[target, r] = beta_M[1 - lean] / beta_M[lean]
    return found[0], found[1]


def test_intervals_are_percentiles_of_a_slow_bootstrap_with_the_same_draws() -> None:
    crosscoder, x_NMD = made()
    scaling = scaled(crosscoder, x_NMD, seed=7)
    n = len(LENGTHS)
    draws_RG = np.random.default_rng(7).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
    n_compared = n_without = 0
    for j in range(0, N_LATENTS, 2):
        slow = slow_bootstrap(crosscoder, x_NMD, j, int(scaling.leans_L[j]), draws_RG)
        for nu, slow_R in zip((scaling.nu_error, scaling.nu_reconstruction), slow, strict=True):
            if np.isnan(slow_R).mean() > room.MAXIMUM_UNDEFINED:
                assert np.isnan([nu.low_L[j], nu.high_L[j]]).all()
                n_without += 1
            else:
                ends = np.nanquantile(slow_R, (0.025, 0.975), method="nearest")
                np.testing.assert_allclose([nu.low_L[j], nu.high_L[j]], ends, rtol=1e-8)
                assert nu.low_L[j] <= nu.value_L[j] <= nu.high_L[j]
                n_compared += 1
    assert n_compared >= 6
    assert n_without >= 1


def test_documents_and_not_texts_are_resampled() -> None:
    """Every document's texts are copies of one: as documents they are as uncertain as one copy alone."""
    crosscoder, x_NMD = made()
    texts = x_NMD.split(LENGTHS)
    copies_NMD, lengths = torch.cat([t for t in texts for _ in range(4)]), [n for n in LENGTHS for _ in range(4)]
    once = scaled(crosscoder, x_NMD)
    copied = scaled(crosscoder, copies_NMD, lengths, documents=[i // 4 for i in range(len(lengths))])
    np.testing.assert_allclose(all_ends(copied), all_ends(once), rtol=1e-9)
    apart = scaled(crosscoder, copies_NMD, lengths)
    widths = [s.nu_error.high_L - s.nu_error.low_L for s in (once, apart)]
    assert np.nanmedian(widths[1] / widths[0]) == pytest.approx(0.5, abs=0.15)


def test_a_latent_in_too_few_groups_of_documents_has_ratios_but_no_interval() -> None:
    crosscoder, x_NMD = made()
    for n_documents, expected in ((MINIMUM_GROUPS - 1, False), (MINIMUM_GROUPS, True)):
        scaling = scaled(crosscoder, x_NMD, documents=[i % n_documents for i in range(len(LENGTHS))])
        assert np.isfinite(scaling.nu_error.value_L).any()
        assert np.isfinite(scaling.nu_error.high_L).any() == expected
        assert np.isfinite(scaling.nu_reconstruction.low_L).any() == expected
    same_group = [N_GROUPS * i for i in range(len(LENGTHS))]
    assert np.isnan(scaled(crosscoder, x_NMD, documents=same_group).nu_error.high_L).all()


@pytest.mark.parametrize("n_firing", [MINIMUM_GROUPS - 1, MINIMUM_GROUPS])
def test_only_the_groups_in_which_a_latent_fires_count(n_firing: int) -> None:
    world = World(n_documents=40)
    x_NMD = world.draw(0)
    x_NMD[n_firing * world.n_tokens :, :, world.CODE] = 0
    scaling = world.scaled(x_NMD)
    assert scaling.n_texts_L[0] == n_firing
    assert np.isfinite(scaling.nu_error.value_L[0])
    # of 40 documents five may all be missing from a resample, but hardly ever
    assert np.isfinite(scaling.nu_error.high_L[0]) == (n_firing == MINIMUM_GROUPS)


class World:
    """Documents whose sizes of latent 0 in the baseline vary about a known mean, and so does what is active with it.

    Of width 4: the latents write along axis 0 and are read off axes 1 and 2; noise is on axis 0 and 3.
    """

    CODE, OTHER_CODE = 1, 2
    SIZE, OWN, OTHER, OTHER_MEAN = 0.3, 0.2, 0.5, 0.4

    def __init__(self, n_documents: int, n_tokens: int = 8) -> None:
        self.n_documents, self.n_tokens = n_documents, n_tokens
        crosscoder = blank(n_latents=2, d_model=4, rule="relu")
        crosscoder.W_enc_LMD[0, 1, self.CODE] = crosscoder.W_enc_LMD[1, 1, self.OTHER_CODE] = 1
        crosscoder.W_dec_LMD[0, :, 0] = torch.tensor([self.OWN, 1.0])
        crosscoder.W_dec_LMD[1, 0, 0] = self.OTHER
        self.crosscoder = crosscoder
        self.encoder = TextEncoder(crosscoder)
        self.nu_error = self.SIZE
        self.nu_reconstruction = self.OWN + self.OTHER * self.OTHER_MEAN / (1 + 1 / 12)

    def draw(self, seed: int) -> Tensor:
        """Activations of so many documents, one after the other; f is uniform in ½ to 1½, so that E f² = 1 + 1/12."""
        rng = np.random.default_rng(seed)
        shape, document = (self.n_documents, self.n_tokens), (self.n_documents, 1)
        f_DT = rng.uniform(0.5, 1.5, shape)
        other_DT = np.repeat(self.OTHER_MEAN * rng.exponential(size=document), self.n_tokens, axis=1)
        size_DT = np.broadcast_to(self.SIZE + 0.4 * rng.standard_normal(document), shape)
        x_DTMD = np.zeros((*shape, 2, 4))
        x_DTMD[..., self.CODE], x_DTMD[..., self.OTHER_CODE] = f_DT[..., None], other_DT[..., None]
        x_DTMD[..., 0, 0] = size_DT * f_DT + self.OTHER * other_DT
        x_DTMD[..., 1, 0] = f_DT
        x_DTMD[..., [0, 3]] += 0.2 * rng.standard_normal((*shape, 2, 2))
        return torch.from_numpy(x_DTMD).flatten(0, 1)

    def scaled(self, x_NMD: Tensor, seed: int = 0, by_token: bool = False) -> LatentScaling:
        lengths = [1] * len(x_NMD) if by_token else [self.n_tokens] * self.n_documents
        sums = ScalingSums(self.encoder, len(x_NMD) if by_token else N_GROUPS)
        sums.update(self.encoder(x_NMD, lengths), range(len(lengths)))
        return sums.finish(np.random.default_rng(seed))


def covered(scaling: LatentScaling, world: World) -> tuple[bool, ...]:
    return tuple(
        bool(nu.low_L[0] <= truth <= nu.high_L[0])
        for nu, truth in (
            (scaling.nu_error, world.nu_error),
            (scaling.nu_reconstruction, world.nu_reconstruction),
        )
    )


@pytest.mark.parametrize("n_documents", [60, 300])
def test_intervals_cover_planted_ratios_about_as_often_as_they_say(n_documents: int) -> None:
    """With 300 documents several share a group. 176 of 200 is 3.1 standard deviations below 93.5 %."""
    world, n = World(n_documents, n_tokens=4), 200
    hits = np.sum([covered(world.scaled(world.draw(seed), seed), world) for seed in range(n)], axis=0)
    assert (hits >= 0.88 * n).all(), hits
    assert (hits < n).all(), hits


def test_tokens_taken_for_documents_would_cover_too_rarely() -> None:
    world, n = World(60), 40
    hits = np.sum([covered(world.scaled(world.draw(seed), seed, by_token=True), world) for seed in range(n)], axis=0)
    assert (hits < 0.8 * n).all(), hits


def test_four_times_the_documents_halve_the_interval_also_where_they_share_groups() -> None:
    widths = []
    for n_documents in (64, 256, 1024):
        world = World(n_documents, n_tokens=4)
        found = [world.scaled(world.draw(seed), seed) for seed in range(12)]
        nus = [(s.nu_error, s.nu_reconstruction) for s in found]
        widths.append(np.mean([[nu.high_L[0] - nu.low_L[0] for nu in pair] for pair in nus], axis=0))
    for wide, narrow in pairwise(widths):
        np.testing.assert_allclose(wide / narrow, 2, rtol=0.2)


def test_blocks_of_latents_have_the_intervals_of_all_together(monkeypatch) -> None:
    crosscoder, x_NMD = made()
    whole = scaled(crosscoder, x_NMD)
    monkeypatch.setattr(room, "_BLOCK_VALUES", 1)
    np.testing.assert_allclose(all_ends(scaled(crosscoder, x_NMD)), all_ends(whole), rtol=1e-12)


def accumulated_bytes(sums: ScalingSums) -> int:
    return sum(value.nbytes for value in vars(sums).values() if isinstance(value, torch.Tensor))


def test_seventy_thousand_latents_take_less_than_two_gigabytes_however_many_tokens() -> None:
    crosscoder, x_NMD = made()
    sums = summed(crosscoder, x_NMD)
    per_latent = accumulated_bytes(sums) / N_LATENTS
    assert per_latent > 8 * 4 * N_GROUPS  # the sums by group are among them
    assert per_latent * 70_000 < 2e9
    encoder = TextEncoder(crosscoder)
    sums.update(encoder(x_NMD, LENGTHS), range(100, 100 + len(LENGTHS)))
    assert accumulated_bytes(sums) / N_LATENTS == per_latent
