"""Codes of texts against dense codes and the direct least-squares solution, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder import normalisation
from diffharness.crosscoder.config import CrosscoderConfig, Rule
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents.codes import TextCodes, TextEncoder

N_LATENTS, D_MODEL = 14, 6
LENGTHS = (0, 5, 1, 0, 9, 3, 0)
N_TOKENS = sum(LENGTHS)
RULES: tuple[Rule, ...] = ("relu", "threshold", "topk")


def made(rule: Rule = "threshold", n_models: int = 2, seed: int = 0) -> tuple[Crosscoder, Tensor]:
    """A random crosscoder and activations; latent 0 in the first model only, 1 in the last only, 2 in none."""
    generator = torch.Generator().manual_seed(seed)
    config = CrosscoderConfig(
        sides=("ancestor", "baseline", "candidate")[-n_models:], d_model=D_MODEL, n_latents=N_LATENTS, k=3,
        activation=rule,
    )  # fmt: skip
    crosscoder = Crosscoder(config).requires_grad_(False).double()
    for tensor in crosscoder.state_dict().values():
        tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    crosscoder.scale_M.abs_().add_(0.5)
    crosscoder.threshold.fill_(1.0)
    crosscoder.W_dec_LMD[0, 1:] = 0
    crosscoder.W_dec_LMD[1, :-1] = 0
    crosscoder.W_dec_LMD[2] = 0
    return crosscoder, torch.randn(N_TOKENS, n_models, D_MODEL, generator=generator, dtype=torch.float64)


def dense(codes: TextCodes, values_E: Tensor) -> Tensor:
    """Values of entries in their places, zero elsewhere."""
    found = values_E.new_zeros(codes.n_tokens, codes.entries.n_latents)
    return found.index_put((codes.entries.token_E, codes.entries.latent_E), values_E)


def texts_of(values_NL: Tensor) -> list[Tensor]:
    return list(values_NL.split(LENGTHS))


@pytest.fixture(params=[(rule, 2, (0, 1)) for rule in RULES] + [("threshold", 3, (2, 1)), ("topk", 3, (0, 2))])
def coded(request):
    rule, n_models, pair = request.param
    crosscoder, x_NMD = made(rule, n_models)
    return crosscoder, x_NMD, pair, TextEncoder(crosscoder, pair)(x_NMD, LENGTHS, near=True)


@pytest.fixture(params=[1, 4 * N_LATENTS, 1 << 22], ids=["a token a piece", "four tokens", "one piece"], autouse=True)
def _pieces(request, monkeypatch):
    monkeypatch.setattr(normalisation, "CODE_VALUES", request.param)


def test_entries_are_the_dense_code_in_value_and_place(coded):
    crosscoder, x_NMD, _, codes = coded
    f_NL = crosscoder.encode(x_NMD)
    assert torch.equal(dense(codes, codes.f_E) != 0, f_NL != 0)
    torch.testing.assert_close(dense(codes, codes.f_E), f_NL, rtol=1e-12, atol=1e-12)
    token_E, latent_E = codes.entries.token_E, codes.entries.latent_E
    assert ((token_E * N_LATENTS + latent_E).diff() > 0).all()
    counts = torch.diff(codes.entries.bounds)
    assert counts.tolist() == (f_NL != 0).sum(dim=1).tolist()


def test_an_activation_is_the_code_in_units_of_all_models_decoders(coded):
    crosscoder, x_NMD, _, codes = coded
    expected_NL = crosscoder.encode(x_NMD) * crosscoder.decoder_norm_LM.sum(dim=1)
    torch.testing.assert_close(dense(codes, codes.activation_E), expected_NL, rtol=1e-12, atol=1e-12)


def test_error_and_reconstruction_are_the_dense_ones_along_the_larger_decoder(coded):
    crosscoder, x_NMD, pair, codes = coded
    z_NMD, decoded_NMD = crosscoder.normalize(x_NMD), crosscoder.decode_normalized(crosscoder.encode(x_NMD))
    probe_LD = larger_decoder(crosscoder, pair)
    for place, m in enumerate(pair):
        for found_EM, y_ND in (
            (codes.error_EM, z_NMD[:, m] - decoded_NMD[:, m]),
            (codes.reconstruction_EM, decoded_NMD[:, m]),
        ):
            expected_E = (y_ND @ probe_LD.T)[codes.entries.token_E, codes.entries.latent_E]
            torch.testing.assert_close(found_EM[:, place], expected_E, rtol=1e-10, atol=1e-10)


def larger_decoder(crosscoder: Crosscoder, pair: tuple[int, int]) -> Tensor:
    d_LMD = crosscoder.W_dec_LMD
    first_L1 = d_LMD[:, pair[0]].norm(dim=1, keepdim=True) > d_LMD[:, pair[1]].norm(dim=1, keepdim=True)
    return torch.where(first_L1, d_LMD[:, pair[0]], d_LMD[:, pair[1]])


def test_presence_is_the_direct_least_squares_size_of_the_latent_in_what_the_others_leave(coded):
    crosscoder, x_NMD, pair, codes = coded
    z_NMD, f_NL = crosscoder.normalize(x_NMD), crosscoder.encode(x_NMD)
    decoded_NMD, probe_LD = crosscoder.decode_normalized(f_NL), larger_decoder(crosscoder, pair)
    n_checked = 0
    for e, (n, j) in enumerate(zip(codes.entries.token_E.tolist(), codes.entries.latent_E.tolist(), strict=True)):
        for place, m in enumerate(pair):
            if not probe_LD[j].any():
                assert codes.presence_EM[e, place] == 0
                continue
            left_D = z_NMD[n, m] - (decoded_NMD[n, m] - f_NL[n, j] * crosscoder.W_dec_LMD[j, m])
            size = torch.linalg.lstsq(probe_LD[j][:, None], left_D[:, None]).solution.item()
            expected = size * float(crosscoder.decoder_norm_LM[j].sum())
            assert float(codes.presence_EM[e, place]) == pytest.approx(expected, rel=1e-8, abs=1e-9)
            n_checked += 1
    assert n_checked > 40


def test_near_is_the_largest_dense_scaled_pre_activation_of_every_text(coded):
    crosscoder, x_NMD, _, codes = coded
    scaled_NL = crosscoder.scaled(crosscoder.pre_activations(crosscoder.normalize(x_NMD)))
    for text, values_TL in enumerate(texts_of(scaled_NL)):
        if len(values_TL):
            torch.testing.assert_close(codes.near_BL[text], values_TL.amax(dim=0).float())
        else:
            assert (codes.near_BL[text] == -torch.inf).all()


def test_near_is_made_only_where_it_is_wanted():
    crosscoder, x_NMD = made()
    assert TextEncoder(crosscoder)(x_NMD, LENGTHS).near_BL is None


def test_peaks_are_those_of_a_search_text_by_text(coded):
    crosscoder, x_NMD, _, codes = coded
    activation_NL = crosscoder.encode(x_NMD) * crosscoder.decoder_norm_LM.sum(dim=1)
    is_active_NL = crosscoder.encode(x_NMD) != 0
    expected, start = [], 0
    for text, length in enumerate(LENGTHS):
        for j in range(N_LATENTS):
            active = [n for n in range(start, start + length) if is_active_NL[n, j]]
            if active:
                values = [float(activation_NL[n, j]) for n in active]
                peak = max(values)
                expected.append((text, j, peak, active[values.index(peak)], sum(values), len(active)))
        start += length
    peaks = codes.peaks
    columns = (peaks.text_P, peaks.latent_P, peaks.peak_P, peaks.place_P, peaks.mass_P, peaks.n_active_P)
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    assert [(*row[:2], row[3], row[5]) for row in found] == [(*row[:2], row[3], row[5]) for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    assert [row[4] for row in found] == pytest.approx([row[4] for row in expected])
    assert peaks.mass_P.dtype == torch.float64


def test_of_equal_peaks_the_first_token_has_the_place():
    crosscoder, x_NMD = made("relu")
    for tensor in (crosscoder.W_enc_LMD, crosscoder.b_enc_L, crosscoder.mean_MD, x_NMD):
        tensor.mul_(4).round_()  # whole numbers, whose sums are the same in any order
    crosscoder.scale_M.fill_(1)
    x_NMD[:] = x_NMD[0]
    peaks = TextEncoder(crosscoder)(x_NMD, LENGTHS).peaks
    start_B = [sum(LENGTHS[:text]) for text in range(len(LENGTHS))]
    assert peaks.place_P.tolist() == [start_B[text] for text in peaks.text_P.tolist()]
    assert peaks.n_active_P.tolist() == [LENGTHS[text] for text in peaks.text_P.tolist()]


def test_texts_are_told_by_their_tokens(coded):
    *_, codes = coded
    expected_N = [text for text, length in enumerate(LENGTHS) for _ in range(length)]
    assert codes.text_N.tolist() == expected_N
    assert codes.text_E.tolist() == [expected_N[n] for n in codes.entries.token_E.tolist()]
    assert codes.start_B.tolist() == [0, 0, 5, 6, 6, 15, 18]
    assert codes.n_tokens == N_TOKENS


def test_where_nothing_fires_there_are_no_entries_and_no_peaks():
    crosscoder, x_NMD = made()
    crosscoder.threshold.fill_(1e9)
    codes = TextEncoder(crosscoder)(x_NMD, LENGTHS, near=True)
    assert codes.presence_EM.shape == codes.error_EM.shape == codes.reconstruction_EM.shape == (0, 2)
    assert len(codes.f_E) == len(codes.activation_E) == len(codes.text_E) == 0
    assert codes.entries.bounds.tolist() == [0] * (N_TOKENS + 1)
    assert codes.near_BL is not None
    assert torch.isfinite(codes.near_BL[1]).all()


def test_where_nothing_fires_there_are_no_peaks():
    crosscoder, x_NMD = made()
    crosscoder.threshold.fill_(1e9)
    peaks = TextEncoder(crosscoder)(x_NMD, LENGTHS).peaks
    assert len(peaks.text_P) == len(peaks.peak_P) == len(peaks.place_P) == len(peaks.mass_P) == 0


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_texts_without_any_token_have_codes_too(lengths):
    crosscoder, x_NMD = made()
    codes = TextEncoder(crosscoder)(x_NMD[:0], lengths)
    assert codes.n_tokens == len(codes.f_E) == len(codes.text_E) == 0
    assert codes.presence_EM.shape == (0, 2)


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_nothing_is_near_in_texts_without_any_token(lengths):
    crosscoder, x_NMD = made()
    codes = TextEncoder(crosscoder)(x_NMD[:0], lengths, near=True)
    assert codes.near_BL is not None
    assert codes.near_BL.shape == (len(lengths), N_LATENTS)
    assert (codes.near_BL == -torch.inf).all()


def test_a_latent_without_a_decoder_is_present_in_no_model():
    crosscoder, x_NMD = made("relu")  # fires without a decoder, as its code is not scaled before it is cut off
    codes = TextEncoder(crosscoder)(x_NMD, LENGTHS)
    silent_E = codes.entries.latent_E == 2
    assert silent_E.any()
    for values in (codes.activation_E, codes.presence_EM, codes.error_EM, codes.reconstruction_EM):
        assert (values[silent_E] == 0).all()
    assert torch.isfinite(codes.presence_EM).all()


def test_a_model_that_has_the_latent_holds_the_activation_and_one_that_has_not_holds_none():
    """Activations made of the dictionary itself, with nothing left over."""
    crosscoder, _ = made()
    crosscoder.W_dec_LMD[3:, 1] = crosscoder.W_dec_LMD[3:, 0]
    generator = torch.Generator().manual_seed(7)
    f_NL = torch.rand(N_TOKENS, N_LATENTS, generator=generator, dtype=torch.float64) + 1
    crosscoder.W_enc_LMD.zero_()
    crosscoder.b_enc_L.copy_(f_NL[0])
    crosscoder.threshold.fill_(0.0)
    z_NMD = crosscoder.decode_normalized(f_NL[:1]).expand(N_TOKENS, -1, -1)
    codes = TextEncoder(crosscoder)(crosscoder.denormalize(z_NMD), LENGTHS)
    latent_E = codes.entries.latent_E
    for latent, held in ((0, (1.0, 0.0)), (1, (0.0, 1.0)), (5, (1.0, 1.0))):
        rows = latent_E == latent
        share_EM = codes.presence_EM[rows] / codes.activation_E[rows, None]
        torch.testing.assert_close(share_EM, torch.tensor(held).double().expand_as(share_EM), rtol=0, atol=1e-9)


def test_swapping_the_pair_swaps_the_columns_only():
    crosscoder, x_NMD = made(n_models=3)
    one, two = (TextEncoder(crosscoder, pair)(x_NMD, LENGTHS) for pair in ((1, 2), (2, 1)))
    torch.testing.assert_close(one.presence_EM, two.presence_EM.flip(1))
    assert torch.equal(one.f_E, two.f_E)


def test_the_split_of_a_latent_between_code_and_decoder_changes_no_figure_of_texts():
    crosscoder, x_NMD = made()
    before = TextEncoder(crosscoder)(x_NMD, LENGTHS, near=True)
    factor_L = torch.linspace(0.2, 5, N_LATENTS).double()
    crosscoder.W_enc_LMD.mul_(factor_L[:, None, None])
    crosscoder.b_enc_L.mul_(factor_L)
    crosscoder.W_dec_LMD.div_(factor_L[:, None, None])
    after = TextEncoder(crosscoder)(x_NMD, LENGTHS, near=True)
    assert torch.equal(before.entries.latent_E, after.entries.latent_E)
    for name in ("activation_E", "presence_EM", "near_BL"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))


def test_lengths_that_do_not_fit_the_tokens_are_refused():
    crosscoder, x_NMD = made()
    with pytest.raises(ValueError, match=f"lengths sum to 4, but there are {N_TOKENS} tokens"):
        TextEncoder(crosscoder)(x_NMD, (1, 3))
