"""One pass over the store against each latent looked at alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents import description as room
from diffharness.latents.description import annotate, describe, probe_activations
from diffharness.latents.taxonomy import UNCLEAR

D, L = 16, 12


@pytest.fixture(scope="module")
def crosscoder() -> Crosscoder:
    generator = torch.Generator().manual_seed(0)
    config = CrosscoderConfig(sides=("baseline", "candidate"), d_model=D, n_latents=L, k=3)
    found = Crosscoder(config).requires_grad_(False)
    for tensor in (found.W_enc_MDL, found.W_dec_LMD, found.b_dec_MD):
        tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
    found.threshold.fill_(0.2)
    return found


@pytest.fixture(scope="module")
def corpus() -> tuple[list[tuple[str, int]], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 8, (25,), generator=generator).tolist()
    texts = [(f"corpus:{i}", n) for i, n in enumerate(lengths)]
    return texts, torch.randn(sum(lengths), 2, D, generator=generator)


def test_examples_are_the_texts_on_which_a_latent_fires_most(crosscoder, corpus, monkeypatch):
    monkeypatch.setattr(room, "CHUNK_TOKENS", 20)
    texts, x_NMD = corpus
    done: list[tuple[int, int]] = []
    table = describe(crosscoder, x_NMD, texts, probes=None, n_examples=3, progress=lambda *p: done.append(p))
    assert done[-1] == (len(x_NMD), len(x_NMD))
    assert len(done) > 3
    per_text = crosscoder.encode(x_NMD).split([n for _, n in texts])
    for j in range(L):
        peaks = np.array([float(f[:, j].max()) for f in per_text])
        best = [i for i in np.argsort(-peaks, kind="stable")[:3] if peaks[i] > 0]
        assert [int(e.text_id) for e in table.examples.of(j)] == best
        for example, i in zip(table.examples.of(j), best, strict=True):
            assert example.source == texts[i][0]
            np.testing.assert_allclose(example.values, per_text[i][:, j].numpy()[example.first :], rtol=1e-5)


def test_chunks_do_not_change_what_is_known(crosscoder, corpus, monkeypatch):
    texts, x_NMD = corpus
    whole = describe(crosscoder, x_NMD, texts, probes=None)
    monkeypatch.setattr(room, "CHUNK_TOKENS", 9)
    parts = describe(crosscoder, x_NMD, texts, probes=None)
    for name in ("delta_norm", "nu_reconstruction", "nu_error", "density", "mean_activation"):
        np.testing.assert_allclose(getattr(parts.identity, name), getattr(whole.identity, name), rtol=1e-6)
    assert parts.identity.status == whole.identity.status
    active = (crosscoder.encode(x_NMD) > 0).double().mean(0)
    np.testing.assert_allclose(whole.identity.density, active.numpy())


def test_without_probes_every_latent_is_unclear_and_says_why(crosscoder, corpus):
    texts, x_NMD = corpus
    table = describe(crosscoder, x_NMD, texts, probes=None)
    assert table.categories == (UNCLEAR,) * L
    assert {a.reason for a in table.annotations} == {"no probes were given to name it by"}


def test_a_latent_is_named_by_the_probes_on_which_it_fires(crosscoder):
    rng = np.random.default_rng(2)
    direction = crosscoder.W_enc_MDL[:, :, 4]
    other = crosscoder.W_enc_MDL[:, :, 7]
    texts, lengths, categories = [], [], []
    for i in range(40):
        n = int(rng.integers(3, 7))
        x = 0.05 * torch.randn(n, 2, D, generator=torch.Generator().manual_seed(i))
        x[int(rng.integers(n))] += 4 * (direction if i % 2 else other)
        texts.append(x)
        lengths.append(n)
        categories.append("planted" if i % 2 else "other")
    found = annotate(crosscoder, (torch.cat(texts), tuple(lengths), categories))
    assert (found[4].category, found[7].category) == ("planted", "other")
    assert found[4].auroc == pytest.approx(1.0)


def test_probe_activations_are_each_texts_own_whatever_the_batch(tiny_models):
    readers = [LayerReader(m.hf_model, 1) for m in tiny_models]
    probes = [[1, 5, 9, 12], [1, 7], [1, 8, 8, 8, 8, 9]]
    x_NMD, lengths = probe_activations(readers, probes)
    assert lengths == (3, 1, 5)
    for ids, rows in zip(probes, x_NMD.split(list(lengths)), strict=True):
        alone = torch.stack([r.read(torch.tensor([ids]))[0, 1:] for r in readers], dim=1)
        torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)
    without, lengths = probe_activations(readers, probes, frozenset({8, 12}))
    assert lengths == (2, 1, 1)
    torch.testing.assert_close(without, x_NMD[[0, 1, 3, 8]], rtol=0, atol=0)
