"""What every layer carries, against planted differences of layers and a float64 reference by hooks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import decoder_layers
from diffharness.attribution.depth import DocumentDepth, read_depth, refused_layers, task_depth
from diffharness.attribution.path import X_B, X_C, account_for
from diffharness.attribution.states import ModelPair
from tests.attribution.test_path import FORMS, random_crosscoder
from tests.tiny import config

N_LAYERS = 4
ALL = range(N_LAYERS)
DOCUMENTS = tuple(FORMS.values())


def model(seed: int = 0):
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(config(num_hidden_layers=N_LAYERS)).eval().requires_grad_(False)


def tuned(baseline, *layers: int, head: bool = False, embedding: bool = False):
    """The baseline with other weights in some layers."""
    candidate = copy.deepcopy(baseline)
    generator = torch.Generator().manual_seed(5)
    parts = [candidate.model.layers[layer] for layer in layers]
    parts += [candidate.lm_head] * head + [candidate.model.embed_tokens] * embedding
    for part in parts:
        for parameter in part.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return candidate


@pytest.fixture(scope="module")
def baseline():
    return model()


def test_nothing_is_carried_where_the_models_are_still_equal(baseline):
    found = read_depth(baseline, tuned(baseline, 2, 3), DOCUMENTS, ALL)
    assert all(np.all(d.carried_raw_L[:2] == 0) for d in found), "to the bit"
    assert all(np.all(np.abs(d.carried_raw_L[2:]) > 1e-4) for d in found)
    head_only = read_depth(baseline, tuned(baseline, head=True), DOCUMENTS, ALL)
    assert all(np.all(d.carried_raw_L == 0) and d.m_candidate != d.m_baseline for d in head_only)


@pytest.mark.parametrize("last", [0, 1])
def test_the_whole_gap_is_carried_from_the_last_layer_that_differs(baseline, last):
    found = read_depth(baseline, tuned(baseline, *range(last + 1), embedding=True), DOCUMENTS, ALL)
    for d in found:
        gap = d.m_candidate - d.m_baseline
        assert abs(gap) > 1e-4
        np.testing.assert_allclose(d.carried_raw_L[last:], gap, atol=1e-5)
    if last:
        assert any(abs(d.carried_raw_L[0] - (d.m_candidate - d.m_baseline)) > 1e-3 for d in found)


def test_every_layer_agrees_with_hooks_in_float64(baseline):
    candidate = tuned(baseline, *ALL, head=True, embedding=True)
    doubles = [copy.deepcopy(m).double() for m in (baseline, candidate)]

    def m_of(form, layer: int | None):
        """m under the candidate, its layer's output replaced by the baseline's; as it is without a layer."""
        sums = []
        for span in form.spans:
            ids = torch.tensor([span.ids])
            handles = []
            if layer is not None:
                seen = []
                own = decoder_layers(doubles[0])[1][layer].register_forward_hook(lambda *a, s=seen: s.append(a[2]))
                doubles[0](ids, use_cache=False)
                own.remove()
                handles.append(decoder_layers(doubles[1])[1][layer].register_forward_hook(lambda *_, s=seen: s[0]))
            log_p = doubles[1](ids, use_cache=False).logits[0].log_softmax(-1)
            for handle in handles:
                handle.remove()
            sums.append(sum(log_p[span.start + i, token] for i, token in enumerate(span.targets)))
        return float(form.surrogate.path(torch.stack(sums)))

    for form, d in zip(DOCUMENTS, read_depth(baseline, candidate, DOCUMENTS, ALL), strict=True):
        assert d.doc_id == form.doc_id
        whole = m_of(form, None)
        assert d.m_candidate == pytest.approx(whole, abs=1e-5)
        np.testing.assert_allclose(d.carried_raw_L, [whole - m_of(form, layer) for layer in ALL], atol=2e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_carries_what_the_account_there_calls_written_with_the_candidates_stack_first(baseline, layer):
    candidate = tuned(baseline, *ALL, head=True)
    models = (baseline, candidate)
    pair = ModelPair(
        tuple(LayerReader(m, layer) for m in models), tuple(UpperStack(m, layer) for m in models), random_crosscoder()
    )
    accounts = account_for(pair, DOCUMENTS, written_nodes=(8,), read_nodes=(8,))
    for account, d in zip(accounts, read_depth(baseline, candidate, DOCUMENTS, ALL), strict=True):
        written = account.m_SX[1, X_C] - account.m_SX[1, X_B]
        assert d.carried_raw_L[layer] == pytest.approx(written, abs=1e-5)
        assert d.scale * d.carried_raw_L[layer] == pytest.approx(account.scale * written, abs=1e-5)
        bracket = account.written[0]
        parts = bracket.latents_sum + bracket.bias + bracket.error + bracket.residual
        assert d.carried_raw_L[layer] == pytest.approx(parts, abs=1e-5), "carried is what the account shares out"


def test_batches_and_order_do_not_matter(baseline):
    candidate = tuned(baseline, *ALL)
    whole = {d.doc_id: d for d in read_depth(baseline, candidate, DOCUMENTS, ALL)}
    seen = []
    one_by_one = read_depth(
        baseline, candidate, DOCUMENTS[::-1], ALL, batch_tokens=1, progress=lambda *n: seen.append(n)
    )
    assert seen == [(n, len(DOCUMENTS)) for n in range(1, len(DOCUMENTS) + 1)]
    for d in one_by_one:
        np.testing.assert_allclose(d.m_above_L, whole[d.doc_id].m_above_L, atol=1e-5)


def test_layers_below_one_that_reads_back_are_refused_with_a_reason(baseline):
    reads_back = tuned(baseline, 1)
    kept = {}
    blocks = reads_back.model.layers
    blocks[0].register_forward_hook(lambda _m, _a, out: kept.update(state=out))
    blocks[2].register_forward_hook(lambda _m, _a, out: out + kept.pop("state"))
    refused = refused_layers((baseline, reads_back), N_LAYERS)
    assert sorted(refused) == [0, 1]
    assert all("read more than its residual stream" in reason for reason in refused.values())
    assert refused_layers((baseline, tuned(baseline, 1)), N_LAYERS) == {}


def documents(gaps, carried) -> list[DocumentDepth]:
    return [
        DocumentDepth(i, 0.0, gap, np.array([gap - c for c in own]), 0.5)
        for i, (gap, own) in enumerate(zip(gaps, carried, strict=True))
    ]


def profile(found, *, strata=None, stands_for=None, n_constant=0, weights=None, seed=0):
    ids = [d.doc_id for d in found]
    return task_depth(
        found,
        strata=strata or dict.fromkeys(ids, 0),
        stands_for=stands_for or dict.fromkeys(ids, 1.0),
        n_constant=n_constant,
        weights=weights or dict.fromkeys(ids, 1.0),
        rng=np.random.default_rng(seed),
    )


def test_means_are_over_all_documents_of_the_task_in_the_metrics_unit():
    found = profile(documents([2.0, 4.0], [(1.0, 2.0), (1.0, 4.0)]), stands_for={0: 1.0, 1: 3.0}, n_constant=4)
    assert (found.n_documents, found.n_task) == (2, 8)
    assert found.gap == pytest.approx(0.5 * (2 + 3 * 4) / 8)
    np.testing.assert_allclose(found.carried_L, [0.5 * 4 / 8, 0.5 * (2 + 3 * 4) / 8])
    np.testing.assert_allclose(found.carried_raw_L, [4 / 8, (2 + 3 * 4) / 8])


def test_shares_are_left_out_where_the_gap_may_be_none():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 40)
    uncertain = profile(documents(noise, [(g / 2,) for g in noise]))
    assert uncertain.gap_low < 0 < uncertain.gap_high
    assert uncertain.share_low_L is uncertain.share_high_L is None
    clear = profile(documents(noise + 2, [(g / 2,) for g in noise + 2]))
    assert clear.share_low_L is not None
    assert clear.share_high_L is not None
    np.testing.assert_allclose([clear.share_low_L[0], clear.share_high_L[0]], 0.5)


def test_intervals_hold_the_truth_of_the_whole_task_and_are_wider_from_fewer_documents():
    """Documents are drawn twice: into the task, and from its strata to be read."""
    rng = np.random.default_rng(2)
    truth, held, widths = 0.5 * (0.25 * 3.0 + 0.75 * 0.5) / 2, 0, []
    for seed in range(150):
        high = rng.random(160) < 0.25
        gaps = np.where(high, 3.0, 0.5) + rng.normal(0, 1, 160)
        strata = dict(enumerate(high.tolist()))
        chosen = [*rng.choice(np.flatnonzero(high), 8, replace=False), *np.flatnonzero(~high)[:24]]
        stands_for = {int(i): (high.sum() / 8 if high[i] else (~high).sum() / 24) for i in chosen}
        every = documents(gaps, [(g / 2,) for g in gaps])
        part = profile([every[i] for i in chosen], strata=strata, stands_for=stands_for, seed=seed)
        held += part.low_L[0] <= truth <= part.high_L[0]
        widths.append((part.high_L[0] - part.low_L[0]) / np.ptp(_ends(profile(every, strata=strata, seed=seed))))
    assert held / 150 > 0.9
    assert 1.2 < np.mean(widths) < 3.0


def _ends(found) -> list[float]:
    return [found.low_L[0], found.high_L[0]]


def test_documents_that_weigh_differently_are_resampled_as_a_ratio():
    """With a gap in proportion to the weight the ratio does not vary."""
    weights = {i: float(1 + i % 5) for i in range(30)}
    found = profile(documents(list(weights.values()), [(w,) for w in weights.values()]), weights=weights)
    assert found.gap_low == pytest.approx(found.gap) == found.gap_high


def test_draws_without_a_gap_have_no_share():
    gaps = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    found = profile(documents(gaps, [(g / 2,) for g in gaps]))
    assert found.share_low_L is not None, "a draw in 256 holds none of the four that differ"
    np.testing.assert_allclose([found.share_low_L, found.share_high_L], 0.5)


def test_documents_that_stand_for_no_whole_number_can_be_drawn():
    found = profile(documents([1.0, 2.0], [(1.0,), (2.0,)]), strata={0: 0, 1: 1}, stands_for={0: 1.25, 1: 1.25})
    assert found.n_task == 2
    assert np.isfinite(found.low_L).all()
