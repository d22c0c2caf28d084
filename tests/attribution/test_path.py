"""The account of a document against an independent one: float64, forward hooks, a fine midpoint rule, a dense sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import decoder_layers
from diffharness.attribution import path as room
from diffharness.attribution.path import DocumentForm, ModelPair, Span, account_for
from diffharness.attribution.surrogates import Choice, LogLikelihood, Preference, TargetProbability
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder

LAYER = 1
STEPS = 400


def random_crosscoder(d_model: int = 16, n_latents: int = 24) -> Crosscoder:
    generator = torch.Generator().manual_seed(3)
    config = CrosscoderConfig(sides=("baseline", "candidate"), d_model=d_model, n_latents=n_latents, k=4)
    crosscoder = Crosscoder(config).requires_grad_(False)
    for tensor in (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.b_enc_L, crosscoder.b_dec_MD):
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    crosscoder.mean_MD.copy_(0.1 * torch.randn(2, d_model, generator=generator))
    crosscoder.scale_M.copy_(torch.tensor([0.8, 1.3]))
    crosscoder.threshold.fill_(0.4)
    return crosscoder


@pytest.fixture(scope="module")
def pair(tiny_models):
    models = [m.hf_model for m in tiny_models]
    return ModelPair(
        tuple(LayerReader(m, LAYER) for m in models),
        tuple(UpperStack(m, LAYER) for m in models),
        random_crosscoder(),
    )


def spans(*answers: tuple[int, ...]) -> tuple[Span, ...]:
    prompt = (1, 5, 9, 12, 7)
    return tuple(Span((prompt + answer)[:-1], len(prompt) - 1, answer) for answer in answers)


FORMS = {
    "choice": DocumentForm(0, spans((8, 10), (6, 11, 9)), Choice((0,), (1.0, 1.0))),
    "choice by length": DocumentForm(1, spans((8, 10), (6, 11, 9)), Choice((1,), (2.0, 3.0))),
    "target": DocumentForm(2, spans((8,)), TargetProbability()),
    "text": DocumentForm(3, spans((8, 10, 14)), LogLikelihood(1.0, -0.1)),
    "answers": DocumentForm(4, spans((8, 10), (6, 11)), Preference(1.0, 0.0)),
}


def with_state(model, ids, state):
    """Logits when the layer's output is replaced, by a forward hook on the whole model."""
    handle = decoder_layers(model)[1][LAYER].register_forward_hook(lambda *_: state)
    try:
        return model(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def m_of(model, form, states):
    """m of a document when the layer holds these states, one a span."""
    lls = []
    for span, state in zip(form.spans, states, strict=True):
        log_p = with_state(model, span.ids, state).double().log_softmax(-1)
        lls.append(torch.stack([log_p[span.start + i, t] for i, t in enumerate(span.targets)]).sum())
    return form.surrogate.path(torch.stack(lls))


def states_of(model, form):
    with torch.no_grad():
        return [
            model(torch.tensor([s.ids]), output_hidden_states=True, use_cache=False).hidden_states[LAYER + 1]
            for s in form.spans
        ]


def reference(pair, form):
    """Latents, bias and error by a midpoint rule of many steps and the plain definition of each part."""
    base, cand = (r.model for r in pair.readers)
    crosscoder = pair.crosscoder
    x_b, x_c = states_of(base, form), states_of(cand, form)
    gradients = [torch.zeros_like(x, dtype=torch.float64) for x in x_b]
    for step in range(STEPS):
        alpha = (step + 0.5) / STEPS
        xs = [(b + alpha * (c - b)).detach().requires_grad_(True) for b, c in zip(x_b, x_c, strict=True)]
        for total, g in zip(gradients, torch.autograd.grad(m_of(cand, form, xs), xs), strict=True):
            total += g.double() / STEPS
    decoder, bias = crosscoder.raw_decoder().double(), crosscoder.raw_bias().double()
    latents = np.zeros(crosscoder.n_latents)
    sums = {"bias": 0.0, "error": 0.0}
    for b, c, g in zip(x_b, x_c, gradients, strict=True):
        for t in range(b.shape[1]):
            if t == 0:
                sums["error"] += float(g[0, t] @ (c - b)[0, t].double())
                continue
            f = crosscoder.encode(torch.stack([b[0, t], c[0, t]])[None])[0].double()
            for j in range(crosscoder.n_latents):
                latents[j] += float(f[j] * (g[0, t] @ (decoder[j, 1] - decoder[j, 0])))
            sums["bias"] += float(g[0, t] @ (bias[1] - bias[0]))
            error = [x[0, t].double() - f @ decoder[:, m] - bias[m] for m, x in enumerate((b, c))]
            sums["error"] += float(g[0, t] @ (error[1] - error[0]))
    return latents, sums["bias"], sums["error"]


@pytest.mark.parametrize("name", FORMS)
def test_every_part_equals_an_independent_integral(pair, name):
    form = FORMS[name]
    (account,) = account_for(pair, [form])
    latents, bias, error = reference(pair, form)
    size = np.abs(latents).sum() + abs(bias) + abs(error)
    np.testing.assert_allclose(account.written_L, latents, atol=5e-4 * size)
    assert account.bias == pytest.approx(bias, abs=5e-4 * size)
    assert account.error == pytest.approx(error, abs=5e-4 * size)
    assert np.abs(latents).max() > 0


@pytest.mark.parametrize("name", FORMS)
def test_ends_of_the_path_are_the_models_themselves(pair, name):
    form = FORMS[name]
    (account,) = account_for(pair, [form])
    base, cand = (r.model for r in pair.readers)
    with torch.no_grad():
        ends = [float(m_of(model, form, states_of(model, form))) for model in (base, cand)]
        spliced = float(m_of(cand, form, states_of(base, form)))
    assert [account.m_baseline, account.m_candidate] == pytest.approx(ends, abs=1e-4)
    assert account.m_spliced == pytest.approx(spliced, abs=1e-4)


def test_parts_sum_to_the_gap(pair):
    for account in account_for(pair, list(FORMS.values())):
        gap = account.m_candidate - account.m_baseline
        size = abs(account.written) + abs(account.upper)
        assert account.written + account.upper == pytest.approx(gap, abs=room.TOLERANCE * size + 1e-4)
        assert account.incompleteness <= room.TOLERANCE


def test_a_broken_gradient_shows_as_incompleteness(pair, monkeypatch):
    whole = room._mean_gradient  # pyright: ignore[reportPrivateUsage]

    def halved(*args, **kwargs):
        return 0.5 * whole(*args, **kwargs)

    monkeypatch.setattr(room, "_mean_gradient", halved)
    (account,) = account_for(pair, [FORMS["text"]])
    assert account.incompleteness > 0.05


def test_batches_do_not_change_an_account(pair):
    forms = list(FORMS.values())
    together = account_for(pair, forms)
    for form, account in zip(forms, together, strict=True):
        (alone,) = account_for(pair, [form], batch_tokens=1)
        np.testing.assert_allclose(account.written_L, alone.written_L, atol=1e-5)
        assert account.doc_id == form.doc_id


def test_equal_models_have_nothing_to_account_for(tiny_models):
    model = tiny_models[0].hf_model
    same = ModelPair(
        (LayerReader(model, LAYER), LayerReader(model, LAYER)),
        (UpperStack(model, LAYER), UpperStack(model, LAYER)),
        random_crosscoder(),
    )
    (account,) = account_for(same, [FORMS["choice"]])
    assert account.upper == 0
    assert account.m_candidate == account.m_baseline
    assert account.written == pytest.approx(0, abs=1e-6)
