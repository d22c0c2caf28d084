"""The account by position: sums that are the document's own, and single tokens against an independent integral."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.attribution.account import collect, contributions
from diffharness.attribution.forms import TaskForms
from diffharness.attribution.path import account_for
from diffharness.attribution.references import References
from diffharness.attribution.tokens import BIAS, ERROR, token_accounts
from tests.attribution.test_path import FINE, FORMS, OTHERS, SKIPPED, mean_gradients, start_at, states_of
from tests.attribution.test_states import N_LATENTS, dense_code, exact, pair_of, random_crosscoder

NAMES = ("night", "animals", "unclear", "nobody")
CATEGORIES = tuple(NAMES[(7 * j) % 3] for j in range(N_LATENTS))
"""No latent is of the last."""
FEW: dict[str, tuple[int, ...]] = {"written_nodes": (2,), "read_nodes": (3,)}
"""Sums are the same at any number of nodes; parts are not what they converge to."""


@pytest.fixture(scope="module")
def models(tiny_models):
    return [exact(m.hf_model) for m in tiny_models]


@pytest.fixture(scope="module", params=[False, True], ids=["one code", "a code a model"])
def pair(models, request):
    return pair_of(models, random_crosscoder(decoupled=request.param, skipped=(SKIPPED,)))


@pytest.fixture(scope="module", params=[None, References(OTHERS, (SKIPPED,), 2)], ids=["from the bias", "others"])
def references(request):
    return request.param


@pytest.fixture(scope="module")
def tokens(pair, references):
    found = token_accounts(pair, list(FORMS.values()), CATEGORIES, NAMES, references, **FEW)
    return dict(zip(FORMS, found, strict=True))


def own_account(form, account):
    """The document's components by label, as the report has them."""
    task = TaskForms("m", "m", True, (form,), {}, {form.doc_id: 1.0})
    parts = contributions(collect("task", task, [account], N_LATENTS), CATEGORIES, NAMES)
    sums: dict[str, float] = {}
    for key, value in zip(parts.keys, parts.values_NC[0], strict=True):
        name = key.category or key.kind
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


@pytest.mark.parametrize("name", FORMS)
def test_positions_sum_to_the_documents_own_account(pair, references, tokens, name):
    (alone,) = account_for(pair, [FORMS[name]], references, **FEW)
    wanted, found = own_account(FORMS[name], alone), tokens[name]
    for column, category in enumerate(NAMES):
        assert found.sums[column] == pytest.approx(wanted[category], abs=1e-9)
    assert found.sums[BIAS] == pytest.approx(wanted["bias"], abs=1e-9)
    assert found.sums[ERROR] == pytest.approx(wanted["error"], abs=1e-9)
    assert found.prior == pytest.approx(wanted["prior"], abs=1e-9)
    assert found.sums[3] == 0
    assert np.abs(found.sums[:3]).min() > 1e-6, "the comparison is of something"


@pytest.mark.parametrize("name", FORMS)
def test_columns_prior_and_residual_are_the_documents_gap(tokens, name):
    found, surrogate = tokens[name], FORMS[name].surrogate
    gap = surrogate.metric(found.account.m_candidate) - surrogate.metric(found.account.m_baseline)
    assert found.sums.sum() + found.prior + found.residual == pytest.approx(gap, abs=1e-9)
    assert abs(gap) > 1e-4


@pytest.mark.parametrize("text", [None, OTHERS[0]], ids=["from the bias", "others"])
def test_single_tokens_equal_an_independent_integral(models, text):
    """By the plain definition, position by position, of a document with two sequences."""
    name = "choice"
    pair = pair_of(models, random_crosscoder(skipped=(SKIPPED,)))
    references = None if text is None else References([text], (SKIPPED,))
    (found,) = token_accounts(pair, [FORMS[name]], CATEGORIES, NAMES, references, **FINE)
    x = [states_of(model, FORMS[name]) for model in models]
    crosscoder = pair.crosscoder
    scale_M = crosscoder.scale_M.double().numpy()
    decoder_LMD = crosscoder.W_dec_LMD.double().numpy() / scale_M[:, None]
    bias_MD = crosscoder.b_dec_MD.double().numpy() / scale_M[:, None] + crosscoder.mean_MD.double().numpy()
    group_LK = np.array([[own == other for other in NAMES] for own in CATEGORIES], dtype=float)
    coded = [np.array([t > 0 and i != SKIPPED for t, i in enumerate(s.ids)]) for s in FORMS[name].spans]
    starts, f_start = start_at(crosscoder, models, FORMS[name].spans, coded, x, text, bias_MD)
    for i, span in enumerate(FORMS[name].spans):
        coded_T1 = np.array([[t > 0 and token != SKIPPED] for t, token in enumerate(span.ids)], dtype=float)
        f_TML = dense_code(crosscoder, torch.stack([x[0][i][0], x[1][i][0]], dim=1)) * coded_T1[..., None]
        latents_TL, bias_T = np.zeros((len(span.ids), N_LATENTS)), np.zeros(len(span.ids))
        for order in (0, 1):
            g_TD = mean_gradients(models[1 - order], name, x[0], x[1])[i]
            for m, sign in ((0, -1), (1, 1)):
                latents_TL += sign * f_TML[:, m] * (g_TD @ decoder_LMD[:, m].T) / 2
                bias_T += sign * (coded_T1 * g_TD * bias_MD[m]).sum(axis=1) / 2
            above = [mean_gradients(top, name, starts[order], x[order])[i] for top in models]
            latents_TL += (f_TML - f_start[i])[:, order] * ((above[1] - above[0]) @ decoder_LMD[:, order].T) / 2
        wanted_TK = found.account.scale * latents_TL @ group_LK
        size = np.abs(wanted_TK).max()
        np.testing.assert_allclose(found.values[i][:, :BIAS], wanted_TK, atol=1e-4 * size)
        np.testing.assert_allclose(found.values[i][:, BIAS], found.account.scale * bias_T, atol=1e-4 * size)
        assert np.abs(wanted_TK).sum(axis=1).astype(bool).tolist() == [
            bool(f_TML[t].any() or f_start[i][t].any()) for t in range(len(span.ids))
        ], "tokens without a code get nothing"


def test_first_tokens_and_skipped_ids_have_error_alone(tokens):
    for found in tokens.values():
        for ids, values_TC in zip(found.sequences, found.values, strict=True):
            for t, token in enumerate(ids):
                if t == 0 or token == SKIPPED:
                    assert not values_TC[t, :ERROR].any()


def test_sequences_are_those_of_the_readings_without_repeats_and_without_padding(tokens):
    for name, found in tokens.items():
        assert found.sequences == tuple(dict.fromkeys(s.ids for s in FORMS[name].spans))
        assert [len(v) for v in found.values] == [len(s) for s in found.sequences]


def test_batches_and_padding_do_not_change_a_token(pair, references, tokens):
    done: list[tuple[int, int]] = []
    forms = list(FORMS.values())[::-1]
    found = token_accounts(
        pair, forms, CATEGORIES, NAMES, references, batch_tokens=40, progress=lambda *n: done.append(n), **FEW
    )
    assert done[-1] == (len(FORMS), len(FORMS))
    assert len(done) > 2
    for form, own in zip(forms, found, strict=True):
        other = next(t for name, t in tokens.items() if FORMS[name] is form)
        for a, b in zip(own.values, other.values, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)


def test_parts_of_equal_models_cancel_at_every_token(models):
    """Their states are alike; what the crosscoder's two decoders differ by is taken back by bias and error."""
    (found,) = token_accounts(pair_of([models[0], models[0]]), [FORMS["choice"]], CATEGORIES, NAMES, **FEW)
    for values_TC in found.values:
        assert np.abs(values_TC).max() > 1e-5
        np.testing.assert_allclose(values_TC.sum(axis=1), 0, atol=1e-12)
    assert found.prior == 0
    assert found.residual == pytest.approx(0, abs=1e-12)


def test_no_document_is_no_account(pair):
    assert token_accounts(pair, [], CATEGORIES, NAMES) == []
