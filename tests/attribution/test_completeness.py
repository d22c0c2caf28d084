"""Nothing in an account is a remainder: what is broken on purpose, or integrated too coarsely, is seen to lack."""

# The quadrature itself is broken here.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from diffharness.attribution import line as room
from diffharness.attribution.batches import DocumentForm, Span
from diffharness.attribution.path import account_for
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import TargetProbability
from tests.attribution.test_path import FINE, FORMS
from tests.attribution.test_states import LAYER, exact, pair_of


@pytest.fixture(scope="module")
def exact_models(tiny_models):
    return [exact(m.hf_model) for m in tiny_models]


@pytest.fixture(scope="module")
def pair(exact_models) -> ModelPair:
    return pair_of(exact_models)


@pytest.fixture(scope="module")
def accounts(pair):
    return dict(zip(FORMS, account_for(pair, list(FORMS.values()), **FINE), strict=True))


def residuals(pair) -> tuple[np.ndarray, np.ndarray]:
    """Written and read: each document's |residual| by order over what the bracket has to sum to."""
    written, read = [], []
    for a in account_for(pair, list(FORMS.values())[::2], **FINE):
        gap = a.m_candidate - a.m_baseline
        written.append([w.residual / (gap - upper) for w, upper in zip(a.written, a.upper, strict=True)])
        read.append([r.residual / (u - prior) for r, u, prior in zip(a.read, a.upper, a.prior, strict=True)])
    return np.abs(written), np.abs(read)


def test_a_gradient_that_is_5_percent_off_shows_as_incompleteness(pair, monkeypatch):
    whole = room._gradient
    monkeypatch.setattr(room, "_gradient", lambda *args: 1.05 * whole(*args))
    for found in residuals(pair):
        np.testing.assert_allclose(found, 0.05, rtol=0.01)
    form = FORMS["perplexity"]
    (account,) = account_for(pair, [form], written_nodes=(8, 16), read_nodes=(24, 48))
    assert account.incompleteness > room.TOLERANCE
    assert [b.n_nodes for b in account.written + account.read] == [16, 16, 48, 48], "more nodes were tried"


@pytest.mark.parametrize("broken", ["written", "read"])
def test_a_gradient_that_is_5_percent_off_in_one_bracket_shows_there_only(pair, monkeypatch, broken):
    whole = room.Line._mean_gradient

    def scaled(line, *args):
        is_written = len(line.uppers) == 1
        return (1.05 if broken == ("written" if is_written else "read") else 1.0) * whole(line, *args)

    monkeypatch.setattr(room.Line, "_mean_gradient", scaled)
    for kind, found in zip(("written", "read"), residuals(pair), strict=True):
        if broken == kind:
            np.testing.assert_allclose(found, 0.05, rtol=0.01)
        else:
            assert found.max() < 1e-3


def test_a_branch_without_gradient_shows_in_every_bracket_that_it_is_part_of(exact_models, pair):
    sound = residuals(pair)
    assert max(found.max() for found in sound) < 1e-3
    branch = exact_models[1].model.layers[LAYER + 1].mlp
    handle = branch.register_forward_hook(lambda _module, _args, output: output.detach())
    try:
        written, read = residuals(pair)
        accounts = account_for(pair, list(FORMS.values())[:4], **FINE)
    finally:
        handle.remove()
    assert written[:, 0].min() > 0.01, "the candidate's stack is integrated in the first order"
    assert written[:, 1].max() < 1e-3, "the baseline's, which is sound, in the second"
    assert read.min() > 0.01
    assert min(a.incompleteness for a in accounts) > room.TOLERANCE


def test_a_latent_that_is_left_out_of_the_split_shows_in_both_brackets(pair, accounts, monkeypatch):
    whole = PairStates.latents_by_document
    brackets = [b for a in accounts.values() for b in (*a.written, *a.read)]
    size_L = np.sum([np.abs(b.latents.toarray()[0]) for b in brackets], axis=0)
    largest = int(np.argmax(size_L))
    kept = sparse.diags_array(np.arange(len(size_L)) != largest, dtype=float)
    monkeypatch.setattr(PairStates, "latents_by_document", lambda *args: (whole(*args) @ kept).tocsr())
    for name, account in zip(FORMS, account_for(pair, list(FORMS.values()), **FINE), strict=True):
        for kind in ("written", "read"):
            for less, own in zip(getattr(account, kind), getattr(accounts[name], kind), strict=True):
                lost = float(own.latents[0, largest])
                assert less.residual == pytest.approx(own.residual + lost, abs=1e-6)
    assert size_L[largest] > 0.1


def tolerated(account) -> float:
    """1 % of max(|written| + |upper|, 0.01 unit) in units of m, half of it for either bracket; of the smaller order."""
    gap = account.m_candidate - account.m_baseline
    size = min(max(abs(account.scale) * (abs(gap - u) + abs(u)), 0.01) for u in account.upper)
    return 0.01 * size / abs(account.scale) / 2


def test_only_incomplete_documents_are_done_again_with_more_nodes(pair):
    forms = list(FORMS.values())
    few, more = account_for(pair, forms, written_nodes=(2,), read_nodes=(6,)), account_for(pair, forms, **FINE)
    rising = account_for(pair, forms, written_nodes=(2, 16), read_nodes=(6, 48))
    seen = {"written": set(), "read": set()}
    for one, two, found in zip(few, more, rising, strict=True):
        assert found.incompleteness <= room.TOLERANCE
        for kind, nodes in seen.items():
            for first, second, used in zip(getattr(one, kind), getattr(two, kind), getattr(found, kind), strict=True):
                complete = abs(first.residual) <= tolerated(one)
                wanted = first if complete else second
                assert used.n_nodes == wanted.n_nodes
                np.testing.assert_allclose(used.latents.toarray(), wanted.latents.toarray(), atol=1e-5)
                assert (used.bias, used.error) == pytest.approx((wanted.bias, wanted.error), abs=1e-5)
                nodes.add(used.n_nodes)
    assert seen == {"written": {2, 16}, "read": {6, 48}}, "some documents were done again, and some were not"


def test_what_too_few_nodes_miss_is_kept_as_the_residual(pair, accounts):
    forms = list(FORMS.values())
    for name, account in zip(FORMS, account_for(pair, forms, written_nodes=(1,), read_nodes=(2,)), strict=True):
        fine = accounts[name].written + accounts[name].read
        for found, whole in zip(account.written + account.read, fine, strict=True):
            parts, wanted = (b.latents_sum + b.bias + b.error for b in (found, whole))
            assert found.residual == pytest.approx(wanted + whole.residual - parts, abs=1e-5)
        gap = account.m_candidate - account.m_baseline
        worst = 0.0
        for written, read, upper in zip(account.written, account.read, account.upper, strict=True):
            size = max(abs(account.scale) * (abs(gap - upper) + abs(upper)), 0.01)
            worst = max(worst, abs(account.scale) * (abs(written.residual) + abs(read.residual)) / size)
        assert account.incompleteness == pytest.approx(worst)
        assert account.incompleteness > room.TOLERANCE


@pytest.mark.parametrize("log_odds", [12, 20])
def test_a_target_that_becomes_all_but_certain_is_complete(tiny_models, log_odds):
    models = [copy.deepcopy(m.hf_model) for m in tiny_models]
    prompt = (1, 5, 9)
    with torch.no_grad():
        logits_V = models[1](torch.tensor([prompt])).logits[0, -1].double()
        top, second = logits_V.topk(2).values.tolist()
        models[1].lm_head.weight *= log_odds / (top - second)
        logits_V = models[1](torch.tensor([prompt])).logits[0, -1].double()
    target = int(logits_V.argmax())
    others_V = torch.cat([logits_V[:target], logits_V[target + 1 :]])
    form = DocumentForm(0, (Span(prompt, len(prompt) - 1, (target,)),), TargetProbability())
    (account,) = account_for(pair_of(models), [form])
    assert account.m_candidate == pytest.approx(float(logits_V[target] - others_V.logsumexp(0)), rel=1e-3)
    assert account.incompleteness <= 0.02
