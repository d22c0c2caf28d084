"""What the crosscoder makes of both models' states, against dense sums with its formulas written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.attribution import states as room
from diffharness.attribution.batches import Batch, DocumentForm, Span
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder

LAYER = 1
SKIPPED = 9
N_LATENTS = 24


def random_crosscoder(d_model: int = 16, decoupled: bool = False, skipped: tuple[int, ...] = ()) -> Crosscoder:
    generator = torch.Generator().manual_seed(3)
    config = CrosscoderConfig(
        sides=("baseline", "candidate"), d_model=d_model, n_latents=N_LATENTS, k=4,
        code_norm="per_model" if decoupled else "sum", skipped_ids=skipped,
    )  # fmt: skip
    crosscoder = Crosscoder(config).requires_grad_(False)
    for tensor in (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.b_enc_L, crosscoder.b_dec_MD):
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    crosscoder.mean_MD.copy_(0.1 * torch.randn(2, d_model, generator=generator))
    crosscoder.scale_M.copy_(torch.tensor([0.8, 1.3]))
    crosscoder.threshold.fill_(1.5)
    return crosscoder


def exact(model: nn.Module) -> nn.Module:
    """A float64 copy; the norms of transformers' models compute in float32 whatever they are given."""
    made = copy.deepcopy(model).double()
    for name, module in list(made.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            norm = nn.RMSNorm(len(module.weight), eps=module.variance_epsilon, dtype=torch.float64)
            norm.weight.data.copy_(module.weight.data)
            made.set_submodule(name, norm)
    return made


def pair_of(models, crosscoder: Crosscoder | None = None) -> ModelPair:
    baseline, candidate = models
    return ModelPair(
        (LayerReader(baseline, LAYER), LayerReader(candidate, LAYER)),
        (UpperStack(baseline, LAYER), UpperStack(candidate, LAYER)),
        crosscoder or random_crosscoder(skipped=(SKIPPED,)),
    )


def read(doc_id: int, *sequences: tuple[int, ...]) -> DocumentForm:
    """A document whose every sequence is scored on its last token."""
    return DocumentForm(doc_id, tuple(Span(s[:-1], len(s) - 2, s[-1:]) for s in sequences), LogLikelihood(1.0, 1.0))


DOCUMENTS = (read(0, (1, 5, 9, 12, 7, 8)), read(1, (1, 5, 6), (1, 14, 9, 3)), read(2, (1, 11, 5, 10, 4, 9, 20, 6)))


@pytest.fixture(scope="module", params=[False, True], ids=["one code", "a code a model"])
def states(tiny_models, request) -> tuple[ModelPair, PairStates]:
    crosscoder = random_crosscoder(decoupled=request.param, skipped=(SKIPPED,))
    pair = pair_of([exact(m.hf_model) for m in tiny_models], crosscoder)
    return pair, PairStates(pair, Batch(DOCUMENTS, pair.device))


def dense_code(crosscoder: Crosscoder, x_NMD: torch.Tensor) -> np.ndarray:
    """The code of every token, (N, M, L), by the formula of the crosscoder's own docstring in float64."""
    tensors = (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.mean_MD, crosscoder.scale_M, crosscoder.b_enc_L)
    W_MDL, d_LMD, mean_MD, scale_M, b_L = (t.double().numpy() for t in tensors)
    z_NMD = (x_NMD.double().numpy() - mean_MD) * scale_M[:, None]
    f_NL = np.maximum(np.einsum("nmd,mdl->nl", z_NMD, W_MDL) + b_L, 0)
    norm_ML = np.linalg.norm(d_LMD, axis=-1).T
    if not crosscoder.config.decoupled:
        norm_ML = np.broadcast_to(norm_ML.sum(axis=0), norm_ML.shape)
    return f_NL[:, None] * (f_NL[:, None] * norm_ML > float(crosscoder.threshold))


def dense(pair: ModelPair, states: PairStates) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """f (B, T, M, L) with zeros where there is no code, coded (B, T), raw decoders (L, M, D), raw bias (M, D)."""
    crosscoder, ids_BT = pair.crosscoder, states.rows.ids_BT
    read_BT = np.array([[t < length for t in range(ids_BT.shape[1])] for length in states.rows.lengths])
    coded_BT = read_BT & (np.arange(ids_BT.shape[1]) > 0) & (ids_BT.numpy() != SKIPPED)
    x_BTMD = torch.stack(list(states.x_BTD), dim=2)
    f_BTML = dense_code(crosscoder, x_BTMD.flatten(0, 1)).reshape(*ids_BT.shape, 2, N_LATENTS)
    scale_M = crosscoder.scale_M.double().numpy()
    decoder_LMD = crosscoder.W_dec_LMD.double().numpy() / scale_M[:, None]
    bias_MD = crosscoder.b_dec_MD.double().numpy() / scale_M[:, None] + crosscoder.mean_MD.double().numpy()
    return f_BTML * coded_BT[..., None, None], coded_BT, decoder_LMD, bias_MD


def test_states_are_what_each_model_writes_at_the_layer(states):
    pair, found = states
    for m, reader in enumerate(pair.readers):
        for row, length in enumerate(found.rows.lengths):
            ids_1T = found.rows.ids_BT[row : row + 1, :length]
            with torch.no_grad():
                own = reader.model(ids_1T, output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1]
            torch.testing.assert_close(found.x_BTD[m][row, :length], own[0])


def test_first_tokens_skipped_ids_and_padding_have_no_code(states):
    pair, found = states
    _, coded_BT, _, _ = dense(pair, found)
    assert np.array_equal(found.coded_BT.numpy(), coded_BT)
    assert coded_BT.sum() == sum(len(s.ids) - 1 - s.ids.count(SKIPPED) for d in DOCUMENTS for s in d.spans)


def test_entries_are_the_active_latents_of_every_coded_token(states):
    pair, found = states
    f_BTML, coded_BT, _, _ = dense(pair, found)
    f_NML = f_BTML[coded_BT]
    token_E, latent_E = (index.numpy() for index in (found.token_E, found.latent_E))
    assert set(zip(token_E, latent_E, strict=True)) == set(zip(*f_NML.any(axis=1).nonzero(), strict=True))
    np.testing.assert_allclose(found.value_EM.numpy(), f_NML[token_E, :, latent_E], rtol=1e-4, atol=1e-6)
    assert 0 < len(token_E) < f_NML[:, 0].size, "some latents are active, not all"
    if pair.crosscoder.config.decoupled:
        assert (f_NML[token_E, 0, latent_E] != f_NML[token_E, 1, latent_E]).any(), "the models' codes differ"


@pytest.mark.parametrize("model", [0, 1])
def test_decoded_is_the_dense_sum_of_all_or_some_latents(states, model, monkeypatch):
    pair, found = states
    f_BTML, coded_BT, decoder_LMD, bias_MD = dense(pair, found)
    some_L = np.arange(N_LATENTS) % 3 == 0
    for chosen_L in (np.ones(N_LATENTS, dtype=bool), some_L, ~some_L, np.zeros(N_LATENTS, dtype=bool)):
        wanted = f_BTML[:, :, model, chosen_L] @ decoder_LMD[chosen_L, model]
        np.testing.assert_allclose(found.decoded(model, torch.tensor(chosen_L)).numpy(), wanted, atol=1e-5)
    whole = found.decoded(model)
    np.testing.assert_allclose(whole.numpy(), f_BTML[:, :, model] @ decoder_LMD[:, model], atol=1e-5)
    np.testing.assert_allclose(found.bias(model).numpy(), coded_BT[..., None] * bias_MD[model], atol=1e-6)
    monkeypatch.setattr(room, "_CHUNK_CELLS", 40)
    torch.testing.assert_close(found.decoded(model), whole)
    in_chunks = PairStates(pair, found.rows)
    torch.testing.assert_close(in_chunks.value_EM, found.value_EM, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", [0, 1])
def test_the_read_line_starts_at_the_bias_and_at_the_own_state_where_there_is_no_code(states, model):
    pair, found = states
    _, coded_BT, _, bias_MD = dense(pair, found)
    start_BTD = found.start(model).numpy()
    np.testing.assert_allclose(start_BTD[coded_BT], np.tile(bias_MD[model], (coded_BT.sum(), 1)), atol=1e-6)
    assert np.array_equal(start_BTD[~coded_BT], found.x_BTD[model].numpy()[~coded_BT])


def test_numbers_a_position_are_summed_to_documents_without_padding(states):
    _, found = states
    parts_BT = torch.arange(found.rows.ids_BT.numel(), dtype=torch.float64).reshape(found.rows.ids_BT.shape) + 1
    rows = iter(parts_BT)
    wanted = [sum(float(next(rows)[: len(s.ids)].sum()) for s in d.spans) for d in DOCUMENTS]
    assert found.by_document(parts_BT).tolist() == wanted


def test_latents_by_document_are_the_dense_products_of_code_decoder_and_gradient(states):
    pair, found = states
    f_BTML, _, decoder_LMD, _ = dense(pair, found)
    rng = np.random.default_rng(0)
    g_MBTD = rng.normal(size=(2, *found.x_BTD[0].shape))
    each_MBTL = np.einsum("btml,mbtd,lmd->mbtl", f_BTML, g_MBTD, decoder_LMD).sum(axis=2)
    document_B = [0, 1, 1, 2]
    for given in ((True, True), (True, False), (False, True)):
        wanted = np.zeros((len(DOCUMENTS), N_LATENTS))
        np.add.at(wanted, document_B, each_MBTL[list(given)].sum(axis=0))
        gradients = tuple(torch.tensor(g) if use else None for g, use in zip(g_MBTD, given, strict=True))
        np.testing.assert_allclose(found.latents_by_document(gradients).toarray(), wanted, atol=1e-4)


@pytest.mark.parametrize("document", [read(0, (1, 8)), read(0, (1, SKIPPED, 8))], ids=["one token", "skipped"])
def test_documents_without_any_code_can_be_read(tiny_models, document):
    pair = pair_of([m.hf_model for m in tiny_models])
    found = PairStates(pair, Batch([document], pair.device))
    assert not found.decoded(0).any()
    assert found.latents_by_document((found.x_BTD[0].double(), None)).nnz == 0


def test_documents_without_an_active_latent_can_be_read(tiny_models):
    crosscoder = random_crosscoder()
    crosscoder.threshold.fill_(1e6)
    pair = pair_of([m.hf_model for m in tiny_models], crosscoder)
    found = PairStates(pair, Batch(DOCUMENTS, pair.device))
    assert not found.decoded(0).any()
    assert found.latents_by_document((found.x_BTD[0].double(), None)).nnz == 0
