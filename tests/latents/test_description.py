"""Passes over texts, documents and probes against each text looked at alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents import description as room
from diffharness.latents.annotation import annotate_by_probes
from diffharness.latents.codes import TextEncoder
from diffharness.latents.description import (
    EvaluationText,
    ProbeReadings,
    ReadText,
    annotate,
    read_documents,
    read_probes,
    scale_texts,
)
from diffharness.latents.examples import CollectedExamples, ExampleCollector
from diffharness.latents.scaling import LatentScaling, ScalingSums

D, L = 16, 12


def made(n_models: int = 2) -> Crosscoder:
    generator = torch.Generator().manual_seed(0)
    sides = ("baseline", "candidate", "ancestor")[:n_models]
    found = Crosscoder(CrosscoderConfig(sides=sides, d_model=D, n_latents=L, k=3)).requires_grad_(False)
    for tensor in (found.W_enc_LMD, found.W_dec_LMD, found.b_dec_MD):
        tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
    found.threshold.fill_(8.0)
    return found


@pytest.fixture(scope="module")
def crosscoder() -> Crosscoder:
    return made()


LENGTHS = [5, 3, 0, 7, 1, 12, 4, 6, 2, 7, 30, 1, 0, 5, 8, 3, 2, 6, 4, 9, 1, 5]
STARTS = np.cumsum([0, *LENGTHS[:-1]]).tolist()
SOURCES = [f"book {i // 2}" for i in range(len(LENGTHS))][::-1]


@pytest.fixture(scope="module")
def kinds() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 4, n).astype(np.uint8) for n in LENGTHS]


@pytest.fixture(scope="module")
def texts(kinds) -> list[ReadText]:
    return [ReadText(source, kind_T) for source, kind_T in zip(SOURCES, kinds, strict=True)]


def activations(n_models: int = 2) -> Tensor:
    return torch.randn(sum(LENGTHS), n_models, D, generator=torch.Generator().manual_seed(1))


class Rows:
    """Activations that can only be sliced, as those of a store."""

    def __init__(self, x_NMD: Tensor) -> None:
        self.x_NMD, self.asked = x_NMD, []

    def __len__(self) -> int:
        return len(self.x_NMD)

    def __getitem__(self, rows: slice) -> Tensor:
        self.asked.append((rows.start, rows.stop))
        return self.x_NMD[rows]


def collector(**sizes: int) -> ExampleCollector:
    return ExampleCollector(L, np.random.default_rng(0), **{"n_top": 3, "n_reservoir": 40, "n_near": 3, **sizes})


def finished(sums: ScalingSums) -> LatentScaling:
    return sums.finish(np.random.default_rng(0))


def assert_alike(one: LatentScaling, other: LatentScaling) -> None:
    for name in ("error_LM", "reconstruction_LM", "presence_LM", "mass_L", "n_active_L", "n_texts_L", "kind_share_LK"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4, err_msg=name)
    for nu, expected in ((one.nu_error, other.nu_error), (one.nu_reconstruction, other.nu_reconstruction)):
        for ends in ("value_L", "low_L", "high_L"):
            np.testing.assert_allclose(getattr(nu, ends), getattr(expected, ends), rtol=1e-3, atol=1e-4)


def examples(found: CollectedExamples) -> list[tuple]:
    """Of every latent, with numbers as a computer that adds up in another order may round them."""
    return [
        (j, e.kind, e.text, e.source, e.first, len(e.values), pytest.approx(e.peak, rel=1e-4))
        for j in range(L)
        for e in found.of(j)
    ]


def test_sums_are_those_of_all_texts_at_once_with_a_document_a_source(crosscoder, texts, kinds):
    x_NMD, encoder = activations(), TextEncoder(crosscoder)
    (sums,) = scale_texts([encoder], x_NMD, texts)
    expected = ScalingSums(encoder)
    numbers = {source: i for i, source in enumerate(sorted(set(SOURCES)))}
    expected.update(encoder(x_NMD, LENGTHS), [numbers[s] for s in SOURCES], np.concatenate(kinds))
    assert_alike(finished(sums), finished(expected))
    assert np.isfinite(finished(sums).nu_error.high_L).any()
    assert not np.allclose(finished(sums).kind_share_LK[:, 0], 1)


def test_texts_of_one_source_are_one_document(crosscoder, texts):
    few = [replace(text, source="ab"[i % 2]) for i, text in enumerate(texts)]
    (sums,) = scale_texts([TextEncoder(crosscoder)], activations(), few)
    assert np.isnan(finished(sums).nu_error.high_L).all()


@pytest.mark.parametrize("chunk_tokens", [1, 9, 20])
def test_chunks_do_not_change_what_is_known(crosscoder, texts, monkeypatch, chunk_tokens):
    rows, encoder, whole_examples, part_examples = (
        Rows(activations()),
        TextEncoder(crosscoder),
        collector(),
        collector(),
    )
    (whole,) = scale_texts([encoder], rows, texts, whole_examples)
    assert rows.asked == [(0, sum(LENGTHS))]
    monkeypatch.setattr(room, "CHUNK_TOKENS", chunk_tokens)
    monkeypatch.setattr(room, "NEAR_EVERY", 1)
    rows.asked, done = [], []
    (parts,) = scale_texts([encoder], rows, texts, part_examples, progress=lambda *p: done.append(p))
    assert_alike(finished(parts), finished(whole))
    assert examples(part_examples.finish()) == examples(whole_examples.finish())
    assert [start for start, _ in rows.asked] == [0, *(stop for _, stop in rows.asked[:-1])]
    ends = np.cumsum(LENGTHS).tolist()
    assert {stop for _, stop in rows.asked} <= set(ends)  # no text is cut
    assert all(stop - start <= chunk_tokens or (start, stop) in zip(STARTS, ends) for start, stop in rows.asked)
    assert len(rows.asked) > 3
    assert done == [(stop, sum(LENGTHS)) for _, stop in rows.asked]


def test_examples_are_the_texts_on_which_a_latent_fires_most(crosscoder, texts, monkeypatch):
    monkeypatch.setattr(room, "CHUNK_TOKENS", 20)
    monkeypatch.setattr(room, "NEAR_EVERY", 1)
    x_NMD, kept = activations(), collector()
    scale_texts([TextEncoder(crosscoder)], x_NMD, texts, kept)
    found = kept.finish()
    activation_NL = crosscoder.encode(x_NMD) * crosscoder.decoder_norm_LM.sum(dim=1)
    per_text = activation_NL.split(LENGTHS)
    n_checked = 0
    for j in range(L):
        peaks = [float(a_TL[:, j].max()) if len(a_TL) else 0.0 for a_TL in per_text]
        best: list[int] = []
        for i in np.argsort(-np.array(peaks), kind="stable").tolist():
            if peaks[i] > 0 and SOURCES[i] not in [SOURCES[b] for b in best]:  # one text of a document
                best.append(i)
        top = [e for e in found.of(j) if e.kind == "top"]
        assert [e.text for e in top] == best[:3]
        for example in top:
            i = example.text
            assert example.source == SOURCES[i]
            assert example.peak == pytest.approx(peaks[i], rel=1e-3)
            shown = per_text[i][example.first : example.first + len(example.values), j]
            np.testing.assert_allclose(example.values, shown.numpy(), rtol=2e-3, atol=1e-3)
            n_checked += 1
        for example in found.of(j):
            if example.kind == "near miss":
                assert peaks[example.text] == 0
    assert n_checked > L


def test_every_pair_has_its_own_sums_and_only_the_first_collects(texts, monkeypatch):
    crosscoder, x_NMD = made(3), activations(3)
    encoders = [TextEncoder(crosscoder, pair) for pair in ((0, 1), (2, 1))]
    both, alone, n_updates = collector(), collector(), []
    take = both.update
    monkeypatch.setattr(both, "update", lambda *args, **named: (n_updates.append(1), take(*args, **named)))
    found = scale_texts(encoders, x_NMD, texts, both)
    assert len(n_updates) == 1
    assert [finished(sums).pair for sums in found] == [("baseline", "candidate"), ("ancestor", "candidate")]
    for encoder, sums in zip(encoders, found, strict=True):
        (expected,) = scale_texts([encoder], x_NMD, texts)
        assert_alike(finished(sums), finished(expected))
    scale_texts(encoders[:1], x_NMD, texts, alone)
    assert examples(both.finish()) == examples(alone.finish())


def test_no_texts_no_sums(crosscoder):
    (sums,) = scale_texts([TextEncoder(crosscoder)], activations()[:0], [])
    assert finished(sums).n_tokens == 0


TASKS = ["night", "night", "day", "day", "day", "silent"]
DOCUMENTS = [tuple(sorted({i % 5, (i // 3) % 5})) for i in range(len(LENGTHS))]


@pytest.fixture(scope="module")
def sequences() -> list[EvaluationText]:
    return [EvaluationText(found, f"{TASKS[found[0]]}:{found[0]}") for found in DOCUMENTS]


def shuffled(x_NMD: Tensor, seed: int = 0) -> list[tuple[int, Tensor]]:
    order = np.random.default_rng(seed).permutation(len(LENGTHS)).tolist()
    return [(i, x_NMD[STARTS[i] : STARTS[i] + LENGTHS[i]]) for i in order]


@pytest.mark.parametrize("chunk_tokens", [1, 25, 8192])
def test_documents_have_the_sums_of_a_loop_over_their_sequences(crosscoder, sequences, monkeypatch, chunk_tokens):
    monkeypatch.setattr(room, "CHUNK_TOKENS", chunk_tokens)
    monkeypatch.setattr(room, "NEAR_EVERY", 1)
    x_NMD, done = activations(), []
    found, _ = read_documents(
        TextEncoder(crosscoder), shuffled(x_NMD), sequences, len(TASKS), progress=lambda *p: done.append(p)
    )
    activation_NL = (crosscoder.encode(x_NMD) * crosscoder.decoder_norm_LM.sum(dim=1)).double().numpy()
    mass_DL, n_active_DL, n_tokens_D = np.zeros((6, L)), np.zeros((6, L)), np.zeros(6)
    for i, documents in enumerate(DOCUMENTS):
        own_TL = activation_NL[STARTS[i] : STARTS[i] + LENGTHS[i]]
        for document in documents:
            mass_DL[document] += own_TL.sum(axis=0)
            n_active_DL[document] += (own_TL > 0).sum(axis=0)
            n_tokens_D[document] += len(own_TL)
    np.testing.assert_allclose(found.mass_DL.toarray(), mass_DL, rtol=1e-5)
    np.testing.assert_array_equal(found.n_active_DL.toarray(), n_active_DL)
    np.testing.assert_array_equal(found.n_tokens_D, n_tokens_D)
    density = found.density_by_group(TASKS)
    for name, members in (("night", [0, 1]), ("day", [2, 3, 4])):
        np.testing.assert_allclose(density[name], n_active_DL[members].sum(axis=0) / n_tokens_D[members].sum())
    assert np.isnan(density["silent"]).all()
    assert done[-1] == (len(LENGTHS), len(LENGTHS))
    assert len(done) == 1 if chunk_tokens > sum(LENGTHS) else len(done) > 3


@pytest.mark.parametrize("pair", [(0, 1), (2, 0)])
def test_use_is_that_of_either_model_alone_by_document(sequences, pair):
    crosscoder, x_NMD = made(3), activations(3)
    _, use = read_documents(TextEncoder(crosscoder, pair), shuffled(x_NMD), sequences, len(TASKS))
    assert use.unit == "document"
    assert use.n_units == 5  # that have tokens
    assert use.n_tokens == sum(len(documents) * n for documents, n in zip(DOCUMENTS, LENGTHS, strict=True))
    weight_N = torch.tensor([float(len(DOCUMENTS[i])) for i, n in enumerate(LENGTHS) for _ in range(n)])
    z_NMD = crosscoder.normalize(x_NMD)
    norm_L = crosscoder.decoder_norm_LM.sum(dim=1)
    for place, model in enumerate(pair):
        alone_NMD = z_NMD[:, [model] * 3]
        activation_NL = crosscoder.code(crosscoder.read(alone_NMD)) * norm_L
        mean_L = (weight_N @ activation_NL) / use.n_tokens
        rate_L = (weight_N @ (activation_NL > 0).float()) / use.n_tokens
        np.testing.assert_allclose(use.mean_LM[:, place], mean_L.numpy(), rtol=1e-4)
        np.testing.assert_allclose(use.rate_LM[:, place], rate_L.numpy(), rtol=1e-4)
    assert (use.rate_LM > 0).any()
    np.testing.assert_allclose(use.mean_change.difference_L, use.mean_LM[:, 1] - use.mean_LM[:, 0], atol=1e-6)


def test_examples_of_documents_are_numbered_downwards_and_stand_beside_those_of_texts(crosscoder, texts, sequences):
    kept, x_NMD = collector(n_top=30), activations()
    encoder = TextEncoder(crosscoder)
    scale_texts([encoder], x_NMD, texts, kept)
    read_documents(encoder, shuffled(x_NMD.flip(1)), sequences, len(TASKS), kept)
    found = kept.finish()
    activation_NL = crosscoder.encode(x_NMD.flip(1)) * crosscoder.decoder_norm_LM.sum(dim=1)
    peaks = [a_TL.amax(dim=0) if len(a_TL) else torch.zeros(L) for a_TL in activation_NL.split(LENGTHS)]
    n_below = 0
    for j in range(L):
        top = [e for e in found.of(j) if e.kind == "top"]
        assert {e.source for e in top if e.text >= 0} <= set(SOURCES)
        for example in (e for e in top if e.text < 0):
            place = -1 - example.text
            assert example.source == sequences[place].source
            assert example.peak == pytest.approx(float(peaks[place][j]), rel=1e-3)
            n_below += 1
        below = [e.source for e in top if e.text < 0]
        assert len(below) == len(set(below))  # one sequence of a document
    assert n_below > L


def test_where_tasks_had_nothing_read_there_is_nothing(crosscoder):
    found, use = read_documents(TextEncoder(crosscoder), [], [], 3)
    assert found.mass_DL.shape == (3, L)
    assert found.mass_DL.nnz == use.n_tokens == use.n_units == 0


def readers(tiny_models) -> list[LayerReader]:
    return [LayerReader(model.hf_model, 1) for model in tiny_models]


PROBES = [[1, 5, 9, 12], [1, 7], [1, 8, 8, 8, 8, 9]]


def test_probes_are_read_each_on_its_own_whatever_the_batch(tiny_models):
    both = readers(tiny_models)
    found = read_probes(both, [(ids, "night", None) for ids in PROBES])
    assert found.lengths == (3, 1, 5)
    assert found.x_NMD.dtype == torch.float32
    for ids, rows in zip(PROBES, found.x_NMD.split(list(found.lengths)), strict=True):
        alone = torch.stack([reader.read(torch.tensor([ids]))[0, 1:] for reader in both], dim=1)
        torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)
    without = read_probes(both, [(ids, "night", None) for ids in PROBES], frozenset({8, 12}))
    assert without.lengths == (2, 1, 1)
    torch.testing.assert_close(without.x_NMD, found.x_NMD[[0, 1, 3, 8]], rtol=0, atol=0)


def test_probes_without_a_coded_position_are_left_out_and_the_contrasts_of_their_texts_with_them(tiny_models):
    silent = [1, 8]
    probes = [
        (silent, "night", None),
        (PROBES[0], None, 0),  # to a text that is left out
        (PROBES[1], "animals", None),
        (silent, None, 2),  # left out itself
        (PROBES[2], "night", None),
        (PROBES[0], None, 4),
        (PROBES[1], None, 2),
    ]
    done = []
    found = read_probes(readers(tiny_models), probes, frozenset({8}), progress=lambda *p: done.append(p))
    assert found.categories == ("animals", "night", None, None)
    assert found.pairs == (None, None, 1, 0)
    assert found.lengths == (1, 1, 3, 1)
    assert done[-1] == (4, 4)
    whole = read_probes(readers(tiny_models), [(ids, "night", None) for ids in PROBES])
    expected = torch.cat([whole.x_NMD[[3]], whole.x_NMD[[8]], whole.x_NMD[:3], whole.x_NMD[[3]]])
    torch.testing.assert_close(found.x_NMD, expected, rtol=0, atol=1e-5)


def tagged(crosscoder: Crosscoder, n: int = 80) -> ProbeReadings:
    """Latent 4 fires on texts of one category, 7 on those of the other, 9 on texts and contrasts alike."""
    generator = torch.Generator().manual_seed(2)
    found, categories, pairs = [], [], []
    for i in range(n):
        place = i % (n // 2)
        is_contrast = i >= n // 2
        x_TMD = 0.3 * torch.randn(3 + i % 4, 2, D, generator=generator)
        if not is_contrast:
            x_TMD[i % 3] += 3 * crosscoder.W_enc_LMD[4 if place % 2 else 7]
        if place % 2:
            x_TMD[2] += 3 * crosscoder.W_enc_LMD[9]
        found.append(x_TMD)
        categories.append(None if is_contrast else ("safety", "facts")[place % 2])
        pairs.append(place if is_contrast else None)
    return ProbeReadings(torch.cat(found), tuple(map(len, found)), tuple(categories), tuple(pairs))


def test_latents_are_named_by_the_probes_on_which_they_fire_and_not_by_what_contrasts_share(crosscoder):
    found = annotate(crosscoder, tagged(crosscoder))
    assert (found[4].category, found[7].category) == ("facts", "safety")
    assert found[4].contrast_share == 1
    assert (found[9].category, found[9].best) == ("unclear", "facts")


@pytest.mark.parametrize("chunk_tokens", [10, 8192])
def test_names_are_those_of_the_dense_maxima(crosscoder, monkeypatch, chunk_tokens):
    monkeypatch.setattr(room, "CHUNK_TOKENS", chunk_tokens)
    monkeypatch.setattr(room, "NEAR_EVERY", 1)
    probes = tagged(crosscoder)
    activation_NL = crosscoder.encode(probes.x_NMD) * crosscoder.decoder_norm_LM.sum(dim=1)
    maxima_PL = np.stack([a_TL.amax(dim=0).numpy() for a_TL in activation_NL.split(list(probes.lengths))])
    expected = annotate_by_probes(maxima_PL, probes.categories, pairs=probes.pairs)
    found = annotate(crosscoder, probes)
    assert len({a.category for a in found}) == 3
    for one, other in zip(found, expected, strict=True):
        assert (one.category, one.best, one.contrast_share) == (other.category, other.best, other.contrast_share)
        assert one.auroc == pytest.approx(other.auroc)
        assert one.q_value == pytest.approx(other.q_value)
