"""The example collector against a plain loop that keeps everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffharness.latents.examples import ExampleCollector, flatten_padded, text_maxima

N_LATENTS = 7


def _texts(n: int, seed: int = 0, longest: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
    return [torch.relu(torch.randn(length, N_LATENTS, generator=generator)) for length in lengths]


def _collect(texts: list[torch.Tensor], ids: list[str], batch: int = 5, **options: int) -> ExampleCollector:
    collector = ExampleCollector(N_LATENTS, **options)
    for start in range(0, len(texts), batch):
        some, names = texts[start : start + batch], ids[start : start + batch]
        collector.update(torch.cat(some), [len(text) for text in some], names, [f"from {name}" for name in names])
    return collector


@pytest.mark.parametrize("batch", [1, 4, 30])
def test_keeps_the_top_texts_with_their_values(batch: int) -> None:
    texts = _texts(30)
    found = _collect(texts, [str(i) for i in range(30)], batch, n_examples=4).finish()
    for latent in range(N_LATENTS):
        peaks = np.array([float(text[:, latent].max()) for text in texts])
        expected = [str(i) for i in np.argsort(-peaks, kind="stable")[:4] if peaks[i] > 0]
        examples = found.of(latent)
        assert [example.text_id for example in examples] == expected
        for example in examples:
            assert example.source == f"from {example.text_id}"
            assert example.first == 0
            assert list(example.values) == texts[int(example.text_id)][:, latent].tolist()


def test_rates_are_those_of_all_tokens() -> None:
    texts = _texts(20, seed=1)
    found = _collect(texts, [str(i) for i in range(20)]).finish()
    all_tokens = torch.cat(texts).double()
    assert found.n_tokens == len(all_tokens)
    np.testing.assert_allclose(found.density, (all_tokens > 0).double().mean(0).numpy())
    np.testing.assert_allclose(found.mass, all_tokens.sum(0).numpy())
    active = (all_tokens > 0).sum(0)
    np.testing.assert_allclose(found.mean_activation, (all_tokens.sum(0) / active).numpy())
    first = torch.stack([text[0].double() for text in texts]).sum(0)
    np.testing.assert_allclose(found.first_share, (first / all_tokens.sum(0)).numpy())


def test_a_dead_latent_has_no_examples_and_no_rates() -> None:
    texts = [text * torch.tensor([0.0] + [1.0] * (N_LATENTS - 1)) for text in _texts(6)]
    found = _collect(texts, list("abcdef")).finish()
    assert found.of(0) == ()
    assert found.density[0] == 0.0
    assert np.isnan([found.mean_activation[0], found.first_share[0]]).all()
    assert len(found.of(1)) > 0


def test_a_text_seen_again_is_kept_once() -> None:
    texts = _texts(10, seed=2)
    ids = [str(i) for i in range(10)]
    twice = _collect([*texts, *texts], [*ids, *ids], n_examples=10).finish()
    once = _collect(texts, ids, n_examples=10).finish()
    for latent in range(N_LATENTS):
        assert twice.of(latent) == once.of(latent)


@pytest.mark.parametrize("batch", [1, 3, 12])
def test_a_group_of_texts_is_shown_by_its_strongest(batch: int) -> None:
    texts = _texts(24, seed=3)
    groups = [f"document {i % 8}" for i in range(24)]
    collector = ExampleCollector(N_LATENTS, n_examples=8)
    for start in range(0, 24, batch):
        some = range(start, start + batch)
        collector.update(
            torch.cat([texts[i] for i in some]),
            [len(texts[i]) for i in some],
            [str(i) for i in some],
            ["" for _ in some],
            [groups[i] for i in some],
        )
    found = collector.finish()
    for latent in range(N_LATENTS):
        peaks = np.array([float(text[:, latent].max()) for text in texts])
        best = [max(range(g, 24, 8), key=lambda i: peaks[i]) for g in range(8)]
        expected = [str(i) for i in sorted(best, key=lambda i: -peaks[i]) if peaks[i] > 0]
        assert [example.text_id for example in found.of(latent)] == expected


def test_long_texts_are_cut_to_a_window_round_the_peak() -> None:
    text = torch.full((100, N_LATENTS), 0.1)
    text[3, 0] = text[60, 1] = text[99, 2] = 5.0
    short = torch.ones(2, N_LATENTS)
    found = _collect([text, short], ["long", "short"], n_examples=2, window=10).finish()
    assert [found.of(latent)[0].first for latent in range(3)] == [0, 55, 90]
    for latent in range(3):
        long, other = found.of(latent)
        assert len(long.values) == 10
        assert long.values[(3, 60, 99)[latent] - long.first] == 5.0
        assert other.values == (1.0, 1.0)


def test_texts_without_coded_tokens_are_passed_over() -> None:
    collector = ExampleCollector(N_LATENTS)
    collector.update(torch.ones(3, N_LATENTS), [0, 3, 0], ["none", "some", "none either"], ["", "", ""])
    collector.update(torch.zeros(0, N_LATENTS), [0], ["nothing"], [""])
    found = collector.finish()
    assert found.n_tokens == 3
    assert [example.text_id for example in found.of(0)] == ["some"]


def test_low_precision_codes_are_summed_in_float64() -> None:
    codes = torch.full((70_000, 1), 0.1, dtype=torch.bfloat16)
    collector = ExampleCollector(1)
    collector.update(codes, [70_000], ["a"], [""])
    assert collector.finish().mass[0] == pytest.approx(70_000 * float(codes[0, 0]), rel=1e-9)


def test_maxima_of_texts_and_of_padded_batches() -> None:
    texts = _texts(6, seed=4)
    lengths = [len(text) for text in texts]
    padded = torch.zeros(6, max(lengths) + 2, N_LATENTS)
    for row, text in enumerate(texts):
        padded[row, : len(text)] = text
        padded[row, len(text) :] = 9.0
    flat = flatten_padded(padded, lengths)
    assert torch.equal(flat, torch.cat(texts))
    assert torch.equal(text_maxima(flat, lengths), torch.stack([text.amax(0) for text in texts]))
    assert text_maxima(flat[:2], [2, 0])[1].tolist() == [0.0] * N_LATENTS


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 4, but there are 3"):
        ExampleCollector(2).update(torch.ones(3, 2), [4], ["a"], [""])
    with pytest.raises(ValueError, match="one a text"):
        ExampleCollector(2).update(torch.ones(3, 2), [3], ["a", "b"], [""])
