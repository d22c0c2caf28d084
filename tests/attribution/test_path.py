"""The account of a document against an independent one: float64, forward hooks, a fine midpoint rule, dense sums."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from diffharness.activations.layers import decoder_layers
from diffharness.attribution import path as room
from diffharness.attribution.batches import DocumentForm, Span
from diffharness.attribution.path import account_for
from diffharness.attribution.references import References
from diffharness.attribution.states import ModelPair
from diffharness.attribution.surrogates import LogLikelihood
from tests.attribution.test_states import LAYER, SKIPPED, dense_code, exact, pair_of, random_crosscoder
from tests.attribution.test_surrogates import TABLE

STEPS = 300
FINE = {"written_nodes": (16,), "read_nodes": (48,)}
"""So many nodes that parts, not only their sums, are what they converge to."""


def spans(*answers: tuple[int, ...]) -> tuple[Span, ...]:
    prompt = (1, 5, SKIPPED, 12, 7)
    return tuple(Span((prompt + answer)[:-1], len(prompt) - 1, answer) for answer in answers)


TWO = spans((8, 10), (6, 11, 9))
SPANS = {
    "choice": TWO,
    "choice by length": TWO,
    "target": spans((8,)),
    "text": (*spans((8, 10, 14)), Span((1, 20, 5), 0, (20, 5, 6))),
    "answers": spans((8, 10), (6, 11)),
    "several right choices": spans((8,), (6,), (11, 4)),
    "mutual information": (*TWO, *(Span((1, *s.targets[:-1]), 0, s.targets) for s in TWO)),
    "perplexity": spans((8, 10, 14)),
    "repeats": spans((8, 10), (6, 11), (4,), (14, 3)),
}
FORMS = {name: DocumentForm(i, SPANS[name], TABLE[name].surrogate) for i, name in enumerate(SPANS)}


@pytest.fixture(scope="module")
def exact_models(tiny_models):
    return [exact(m.hf_model) for m in tiny_models]


@pytest.fixture(scope="module")
def pair(exact_models) -> ModelPair:
    return pair_of(exact_models)


@pytest.fixture(scope="module")
def accounts(pair):
    return dict(zip(FORMS, account_for(pair, list(FORMS.values()), **FINE), strict=True))


@pytest.fixture(scope="module")
def against_others(pair):
    """The same read against other texts."""
    found = account_for(pair, list(FORMS.values()), References(OTHERS, (SKIPPED,)), **FINE)
    return dict(zip(FORMS, found, strict=True))


@pytest.fixture(scope="module")
def ordinary(tiny_models):
    """Accounts as they are made in a run: float32, with as many nodes as it takes."""
    pair = pair_of([m.hf_model for m in tiny_models])
    return dict(zip(FORMS, account_for(pair, list(FORMS.values())), strict=True))


def with_state(model, ids, state):
    """Logits when the layer's output is replaced, by a forward hook on the whole model."""
    handle = decoder_layers(model)[1][LAYER].register_forward_hook(lambda *_: state)
    try:
        return model(torch.tensor([ids]).expand(len(state), -1), use_cache=False).logits.squeeze(0)
    finally:
        handle.remove()


def states_of(model, form):
    with torch.no_grad():
        return [
            model(torch.tensor([s.ids]), output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1]
            for s in form.spans
        ]


def m_of(model, name, states):
    """m of a document for many states of the layer at once; `states`: one (n, T, D) a span."""
    likelihoods = []
    for span, state_nTD in zip(FORMS[name].spans, states, strict=True):
        log_p = with_state(model, span.ids, state_nTD).reshape(*state_nTD.shape[:2], -1).log_softmax(-1)
        likelihoods.append(sum(log_p[:, span.start + i, t] for i, t in enumerate(span.targets)))
    return TABLE[name].m(torch.stack(likelihoods))


def mean_gradients(model, name, starts, ends):
    """Of m along straight lines, a span each, by the midpoint rule."""
    alphas = ((torch.arange(STEPS, dtype=torch.float64) + 0.5) / STEPS)[:, None, None]
    states = [(a + alphas * (b - a)).requires_grad_(True) for a, b in zip(starts, ends, strict=True)]
    gradients = torch.autograd.grad(m_of(model, name, states).sum(), states)
    return [g.mean(dim=0).numpy() for g in gradients]


@dataclass
class Parts:
    """The parts of a bracket."""

    latents: np.ndarray
    bias: float = 0.0
    error: float = 0.0


@pytest.fixture(scope="module")
def references(pair):
    return {name: reference(pair, name) for name in FORMS}


OTHERS = ((1, 10, 14, 4, 18, 20, 2, 11, 4), (2, 16, 15, 10, 10, 4, 19, 13))
"""Texts to read documents against, as long as the longest of them."""


def reference(pair, name, others=()):
    """Written and read by order and m, each by its plain definition; read against some texts, or from the bias."""
    models = [r.model for r in pair.readers]
    x = [states_of(model, FORMS[name]) for model in models]
    crosscoder = pair.crosscoder
    scale_M = crosscoder.scale_M.double().numpy()
    decoder_LMD = crosscoder.W_dec_LMD.double().numpy() / scale_M[:, None]
    bias_MD = crosscoder.b_dec_MD.double().numpy() / scale_M[:, None] + crosscoder.mean_MD.double().numpy()
    spans, readings = range(len(x[0])), FORMS[name].spans
    coded = [
        np.array([i > 0 and t not in crosscoder.config.skipped_ids for i, t in enumerate(s.ids)]) for s in readings
    ]
    f = [dense_code(crosscoder, torch.stack([b[0], c[0]], dim=1)) * coded[i][:, None, None]
         for i, (b, c) in enumerate(zip(*x, strict=True))]  # fmt: skip
    bias = [[coded[i][:, None] * bias_MD[m] for i in spans] for m in (0, 1)]
    decoded = [[f[i][:, m] @ decoder_LMD[:, m] for i in spans] for m in (0, 1)]
    error = [[x[m][i][0].numpy() - decoded[m][i] - bias[m][i] for i in spans] for m in (0, 1)]
    starts = [start_at(crosscoder, models, readings, coded, x, text, bias_MD) for text in others or (None,)]
    second = [[x[m][i] - torch.tensor(decoded[m][i]) for i in spans] for m in (0, 1)]
    with torch.no_grad():
        m_SX = np.array([[float(m_of(top, name, s)) for s in (*x, *x, *second)] for top in models])
        m_SX[:, 2:4] = np.mean([[[float(m_of(top, name, s)) for s in r] for top in models] for r, _ in starts], axis=0)
    written, read = [], []
    for order in (0, 1):
        g = mean_gradients(models[1 - order], name, x[0], x[1])
        part = Parts(np.zeros(crosscoder.n_latents))
        for i in spans:
            meets = [np.einsum("td,tj,jd->j", g[i], f[i][:, m], decoder_LMD[:, m]) for m in (0, 1)]
            part.latents += meets[1] - meets[0]
            part.bias += float((g[i] * (bias[1][i] - bias[0][i])).sum())
            part.error += float((g[i] * (error[1][i] - error[0][i])).sum())
        written.append(part)
        part = Parts(np.zeros(crosscoder.n_latents))
        for start, f_start in starts:
            gs = [mean_gradients(top, name, start[order], x[order]) for top in models]
            for i in spans:
                g_TD, f_TL = gs[1][i] - gs[0][i], (f[i] - f_start[i])[:, order]
                change_TD = (x[order][i][0] - start[order][i][0]).numpy() - f_TL @ decoder_LMD[:, order]
                part.latents += np.einsum("td,tj,jd->j", g_TD, f_TL, decoder_LMD[:, order]) / len(starts)
                part.error += float((g_TD * change_TD)[coded[i]].sum()) / len(starts)
        read.append(part)
    return written, read, m_SX


def start_at(crosscoder, models, readings, coded, x, text, bias_MD):
    """Both models' states of a line's start, and their code; without a text the bias, and no code."""
    starts, code = ([], []), []
    for i, span in enumerate(readings):
        own = torch.tensor(coded[i])[:, None]
        if text is None:
            states = [torch.tensor(bias_MD[m])[None] for m in (0, 1)]
            code.append(np.zeros((len(span.ids), 2, crosscoder.n_latents)))
        else:
            ids = torch.tensor([text[: len(span.ids)]])
            with torch.no_grad():
                read = [m(ids, output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1] for m in models]
            states = [r[0] for r in read]
            code.append(dense_code(crosscoder, torch.stack(states, dim=1)) * coded[i][:, None, None])
        for m in (0, 1):
            starts[m].append(torch.where(own, states[m], x[m][i][0])[None])
    return starts, code


def assert_equal_parts(bracket, wanted: Parts, share: float):
    size = np.abs(wanted.latents).sum() + abs(wanted.bias) + abs(wanted.error)
    np.testing.assert_allclose(bracket.latents.toarray()[0], wanted.latents, atol=share * size)
    assert bracket.latents_sum == pytest.approx(wanted.latents.sum(), abs=share * size)
    assert bracket.bias == pytest.approx(wanted.bias, abs=share * size)
    assert bracket.error == pytest.approx(wanted.error, abs=share * size)
    assert np.abs(wanted.latents).max() > 0.01 * size, "the comparison is of something"


def assert_equal_accounts(account, wanted, share: float):
    written, read, m_SX = wanted
    np.testing.assert_allclose(account.m_SX, m_SX, atol=share)
    for order in (0, 1):
        assert_equal_parts(account.written[order], written[order], share)
        assert_equal_parts(account.read[order], read[order], share)
        assert account.prior[order] == pytest.approx(m_SX[1, 2 + order] - m_SX[0, 2 + order], abs=share)
        assert account.second_prior[order] == pytest.approx(m_SX[1, 4 + order] - m_SX[0, 4 + order], abs=share)
        assert account.upper[order] == pytest.approx(m_SX[1, order] - m_SX[0, order], abs=share)
    assert (account.m_baseline, account.m_candidate) == pytest.approx((m_SX[0, 0], m_SX[1, 1]), abs=share)


@pytest.mark.parametrize("name", FORMS)
def test_every_part_equals_an_independent_integral(references, accounts, name):
    assert_equal_accounts(accounts[name], references[name], 1e-5)


@pytest.mark.parametrize("name", ["choice", "mutual information", "repeats"])
@pytest.mark.parametrize("n", [1, 2])
def test_every_part_read_against_other_texts_equals_an_independent_integral(pair, name, n):
    (account,) = account_for(pair, [FORMS[name]], References(OTHERS[:n], (SKIPPED,), n), **FINE)
    assert_equal_accounts(account, reference(pair, name, OTHERS[:n]), 1e-5)


def test_every_part_of_decoupled_codes_equals_an_independent_integral(exact_models):
    pair = pair_of(exact_models, random_crosscoder(decoupled=True, skipped=(SKIPPED,)))
    for references, texts in ((None, ()), (References(OTHERS, (SKIPPED,), 2), OTHERS)):
        (account,) = account_for(pair, [FORMS["choice"]], references, **FINE)
        assert_equal_accounts(account, reference(pair, "choice", texts), 1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_models_of_float32_at_the_nodes_that_are_used_come_near_the_independent_integral(references, ordinary, name):
    account = ordinary[name]
    assert_equal_accounts(account, references[name], 2e-3)
    assert account.incompleteness <= room.TOLERANCE


def test_each_order_sums_to_the_gap(accounts, against_others):
    for account in [*accounts.values(), *against_others.values()]:
        gap = account.m_candidate - account.m_baseline
        assert abs(gap) > 1e-3
        for written, read, prior in zip(account.written, account.read, account.prior, strict=True):
            parts = written.latents_sum + written.bias + written.error + read.latents_sum + read.error + prior
            assert parts + written.residual + read.residual == pytest.approx(gap, abs=1e-12)
            assert parts == pytest.approx(gap, rel=1e-4, abs=1e-4)
            assert read.bias == 0
        surrogate = FORMS[next(n for n, f in FORMS.items() if f.doc_id == account.doc_id)].surrogate
        moved = surrogate.metric(account.m_candidate) - surrogate.metric(account.m_baseline)
        assert account.scale * gap == pytest.approx(moved, rel=1e-9)
        assert account.incompleteness <= 1e-3


def mirrored(crosscoder):
    """The same crosscoder with its sides swapped."""
    made = random_crosscoder(decoupled=crosscoder.config.decoupled, skipped=crosscoder.config.skipped_ids)
    for of, to in zip((crosscoder.W_enc_LMD, crosscoder.W_dec_LMD), (made.W_enc_LMD, made.W_dec_LMD), strict=True):
        to.copy_(of.flip(1))
    for name in ("b_dec_MD", "mean_MD", "scale_M"):
        getattr(made, name).copy_(getattr(crosscoder, name).flip(0))
    return made


def test_the_mirrored_pair_negates_the_account_and_exchanges_the_orders(exact_models, pair, accounts):
    swapped = account_for(pair_of(exact_models[::-1], mirrored(pair.crosscoder)), list(FORMS.values()), **FINE)
    for account, mirror in zip(accounts.values(), swapped, strict=True):
        assert mirror.m_candidate - mirror.m_baseline == pytest.approx(account.m_baseline - account.m_candidate)
        for order in (0, 1):
            assert mirror.prior[1 - order] == pytest.approx(-account.prior[order], abs=1e-6)
            assert mirror.second_prior[1 - order] == pytest.approx(-account.second_prior[order], abs=1e-6)
            for kind in ("written", "read"):
                own, other = getattr(account, kind)[order], getattr(mirror, kind)[1 - order]
                wanted = Parts(-own.latents.toarray()[0], -own.bias, -own.error)
                assert_equal_parts(other, wanted, 1e-5)


def test_equal_models_have_nothing_to_account_for(exact_models):
    model = exact_models[0]
    for account in account_for(pair_of([model, model]), list(FORMS.values())):
        assert account.m_candidate == account.m_baseline
        assert account.prior == account.second_prior == account.upper == (0, 0)
        for written, read in zip(account.written, account.read, strict=True):
            assert written.latents_sum + written.bias + written.error == pytest.approx(0, abs=1e-12)
            assert written.residual == pytest.approx(0, abs=1e-12)
            assert (read.latents.count_nonzero(), read.error, read.residual) == (0, 0, 0)


def test_models_that_differ_above_the_layer_only_write_nothing(exact_models):
    upper = copy.deepcopy(exact_models[0])
    upper.model.layers[LAYER + 1].load_state_dict(exact_models[1].model.layers[LAYER + 1].state_dict())
    crosscoder = random_crosscoder(skipped=(SKIPPED,))
    for equal in (False, True):
        if equal:  # decoders and biases of both sides are one
            crosscoder.W_dec_LMD[:, 1] = crosscoder.W_dec_LMD[:, 0]
            for tensor in (crosscoder.b_dec_MD, crosscoder.mean_MD, crosscoder.scale_M):
                tensor[1] = tensor[0]
        for account in account_for(pair_of([exact_models[0], upper], crosscoder), list(FORMS.values())[:4]):
            assert abs(account.m_candidate - account.m_baseline) > 1e-4
            for written, read in zip(account.written, account.read, strict=True):
                assert written.latents_sum + written.bias + written.error == pytest.approx(0, abs=1e-9)
                assert (np.abs(written.latents.data).max() > 1e-4) != equal, "with unequal decoders parts cancel"
                assert np.abs(read.latents.data).max() > 1e-4
                if equal:
                    assert (written.latents.count_nonzero(), written.bias, written.error) == (0, 0, 0)


@pytest.mark.parametrize("references", [None, References(OTHERS, (SKIPPED,))], ids=["bias", "other texts"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_batches_padding_and_shared_sequences_do_not_change_an_account(pair, budget, references):
    nodes = {"written_nodes": (2,), "read_nodes": (3,)}
    wide = DocumentForm(20, spans(tuple(range(3, 20))), LogLikelihood(1.0, 1.0))
    order = [FORMS["text"], wide, *reversed(FORMS.values()), FORMS["text"]]
    done = []
    found = account_for(pair, order, references, batch_tokens=budget, progress=lambda *n: done.append(n), **nodes)
    assert [a.doc_id for a in found] == [f.doc_id for f in order]
    assert done[-1] == (len(order), len(order))
    for form, account in zip(order, found, strict=True):
        (alone,) = account_for(pair, [form], references, **nodes)
        np.testing.assert_allclose(account.m_SX, alone.m_SX, atol=2e-6)
        for own, other in zip(account.written + account.read, alone.written + alone.read, strict=True):
            assert_equal_parts(own, Parts(other.latents.toarray()[0], other.bias, other.error), 2e-6)
