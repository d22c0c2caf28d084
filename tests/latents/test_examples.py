"""The example collector against brute force over dense codes that are all kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.sparse import Entries
from diffharness.latents.codes import TextCodes, TextEncoder
from diffharness.latents.example_slots import Lottery, Slots
from diffharness.latents.examples import CollectedExamples, ExampleCollector, LatentExample

N_LATENTS = 7
WINDOW = 6
CLOSE = {"rel": 1e-3, "abs": 1e-3}
"""Windows are kept as float16 shares of a peak; activations here are about 1."""


class Texts:
    """Dense random codes of texts (one in eight without tokens), and the same as `TextCodes`."""

    def __init__(self, n: int, seed: int = 0, longest: int = 14, share: float = 0.15, steps: int | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._made: dict[tuple[range, bool], TextCodes] = {}
        self.lengths = torch.randint(1, longest + 1, (n,), generator=generator)
        self.lengths[::8] = 0
        self.activation, self.presence, self.near = [], [], torch.full((n, N_LATENTS), -torch.inf)
        for row, length in enumerate(self.lengths.tolist()):
            size = torch.rand(length, N_LATENTS, generator=generator, dtype=torch.float64) + 0.1
            if steps is not None:
                size = (size * steps).ceil() / steps
            fires = torch.rand(length, N_LATENTS, generator=generator) < share
            self.activation.append(size * fires)
            self.presence.append(torch.randn(length, N_LATENTS, 2, generator=generator, dtype=torch.float64))
            if length:
                self.near[row] = torch.randn(N_LATENTS, generator=generator)
                if steps is not None:
                    self.near[row] = self.near[row].round()

    def codes(self, rows: range, near: bool = True) -> TextCodes:
        if (rows, near) not in self._made:
            self._made[rows, near] = self._codes(rows, near)
        return self._made[rows, near]

    def _codes(self, rows: range, near: bool) -> TextCodes:
        a_NL = torch.cat([torch.zeros(0, N_LATENTS, dtype=torch.float64), *(self.activation[row] for row in rows)])
        token_E, latent_E = a_NL.nonzero(as_tuple=True)
        a_E = a_NL[token_E, latent_E]
        nothing = torch.zeros(0, N_LATENTS, 2, dtype=torch.float64)
        presence_EM = torch.cat([nothing, *(self.presence[row] for row in rows)])[token_E, latent_E]
        return TextCodes(
            entries=Entries.of(token_E, latent_E, len(a_NL), N_LATENTS),
            length_B=self.lengths[list(rows)],
            f_E=a_E / 2,
            activation_E=a_E,
            error_EM=torch.full_like(presence_EM, torch.nan),
            reconstruction_EM=torch.full_like(presence_EM, torch.nan),
            presence_EM=presence_EM,
            near_BL=self.near[list(rows)] if near else None,
        )

    def peaks(self, latent: int) -> np.ndarray:
        """Of every text; 0 where there is no token."""
        return np.array([float(a[:, latent].max()) if len(a) else 0.0 for a in self.activation])


def _collect(
    texts: Texts,
    bounds: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    near: bool = True,
    **options: int,
) -> CollectedExamples:
    n = len(texts.lengths)
    collector = ExampleCollector(N_LATENTS, np.random.default_rng(seed), **{"window": WINDOW, **options})
    for start, end in pairwise([0, *(bounds or []), n]):
        rows = range(start, end)
        some = None if groups is None else [groups[row] for row in rows]
        numbers, sources = [100 + row for row in rows], [f"task:{row}" for row in rows]
        collector.update(texts.codes(rows, near), numbers, sources, some)
    return collector.finish()


def _of(found: CollectedExamples, latent: int, kind: str) -> list[LatentExample]:
    return [example for example in found.of(latent) if example.kind == kind]


def _rows(examples: Sequence[LatentExample]) -> list[int]:
    return [example.text - 100 for example in examples]


def _best_of_groups(strength: np.ndarray, allowed: np.ndarray, groups: Sequence[str]) -> list[int]:
    """The strongest allowed text of each group, strongest first; of equal ones the earliest."""
    best: dict[str, int] = {}
    for row in np.flatnonzero(allowed).tolist():
        if groups[row] not in best or strength[row] > strength[best[groups[row]]]:
            best[groups[row]] = row
    return sorted(best.values(), key=lambda row: (-strength[row], row))


@pytest.mark.parametrize("steps", [None, 3], ids=["all peaks differ", "many equal peaks"])
@pytest.mark.parametrize("grouped", [False, True])
def test_top_are_the_texts_with_the_largest_peaks(steps: int | None, grouped: bool) -> None:
    texts = Texts(60, steps=steps)
    groups = [f"document {row % 17 if grouped else row}" for row in range(60)]
    found = _collect(texts, groups=groups if grouped else None, n_top=6)
    for latent in range(N_LATENTS):
        peaks = texts.peaks(latent)
        top = _of(found, latent, "top")
        assert _rows(top) == _best_of_groups(peaks, peaks > 0, groups)[:6]
        assert [example.peak for example in top] == [peaks[row] for row in _rows(top)]
        assert [example.source for example in top] == [f"task:{row}" for row in _rows(top)]
        assert all(example.quantile is None for example in top)


@pytest.mark.parametrize("steps", [None, 3], ids=["all peaks differ", "many equal peaks"])
@pytest.mark.parametrize("bounds", [[1], [30], list(range(1, 60)), [7, 7, 23, 24]])
def test_examples_do_not_depend_on_how_texts_come_in_batches(steps: int | None, bounds: list[int]) -> None:
    texts = Texts(60, seed=1, steps=steps)
    groups = [f"document {row % 23}" for row in range(60)]
    whole, split = _collect(texts, groups=groups), _collect(texts, bounds, groups)
    for latent in range(N_LATENTS):
        assert whole.of(latent) == split.of(latent)


@pytest.mark.parametrize("n", [80, 8], ids=["every text is kept", "few are kept"])
def test_windows_hold_the_values_around_the_peak_and_end_where_the_text_ends(n: int) -> None:
    texts = Texts(80, seed=2, longest=20)
    found = _collect(texts, n_top=5, n_reservoir=n)
    n_cut = 0
    for latent in range(N_LATENTS):
        shown = _of(found, latent, "top") + _of(found, latent, "quantile")
        assert shown
        for example in shown:
            a_T = texts.activation[example.text - 100][:, latent]
            presence_TM = texts.presence[example.text - 100][:, latent] * (a_T > 0)[:, None]
            place, length = int(a_T.argmax()), len(a_T)
            first = max(0, min(place - WINDOW // 2, length - WINDOW))
            window = slice(first, first + WINDOW)
            assert example.first == first
            assert example.values == pytest.approx(a_T[window].tolist(), **CLOSE)
            for m in range(2):
                assert example.presence[m] == pytest.approx(presence_TM[window, m].tolist(), **CLOSE)
            assert example.values[place - first] == example.peak == float(a_T.max())
            n_cut += length > WINDOW
    assert n_cut > 20


def test_a_slot_taken_over_keeps_nothing_of_the_text_before() -> None:
    texts = Texts(16, seed=3, longest=WINDOW, share=1.0)
    texts.activation[15] = torch.zeros(int(texts.lengths[15]), N_LATENTS, dtype=torch.float64)
    texts.activation[15][0] = 50.0
    top = _of(_collect(texts, n_top=1), 0, "top")[0]
    assert top.text == 115
    assert top.values == (50.0, *(0.0,) * (int(texts.lengths[15]) - 1))


def test_the_sample_is_uniform_over_the_texts_on_which_a_latent_fires() -> None:
    texts = Texts(48, seed=4)
    counts = np.zeros((N_LATENTS, 48))
    together = np.zeros((48, 48))
    n_seeds = 250
    for seed in range(n_seeds):
        order_LS = _collect(texts, [16, 32], seed=seed, n_top=0, n_reservoir=5, near=False).reservoir.order_LS
        row_of = np.flatnonzero(texts.lengths.numpy() > 0)
        for latent in range(N_LATENTS):
            counts[latent, row_of[order_LS[latent]]] += 1
        chosen = row_of[order_LS[0]]
        together[np.ix_(chosen, chosen)] += 1
    for latent in range(N_LATENTS):
        fires = texts.peaks(latent) > 0
        assert (counts[latent, ~fires] == 0).all()
        share = 5 / fires.sum()
        z = (counts[latent, fires] - n_seeds * share) / np.sqrt(n_seeds * share * (1 - share))
        assert np.abs(z).max() < 4.5
        n = fires.sum()
        chi_square = (z**2).sum() * (n - 1) / n
        assert abs(chi_square - (n - 1)) < 5 * np.sqrt(2 * (n - 1))
    fires = np.flatnonzero(texts.peaks(0) > 0)
    pairs = together[np.ix_(fires, fires)][np.triu_indices(len(fires), 1)]
    share = 5 * 4 / (len(fires) * (len(fires) - 1))
    assert np.abs(pairs - n_seeds * share).max() < 6 * np.sqrt(n_seeds * share)


def test_latents_are_sampled_independently_and_the_same_seed_gives_the_same_sample() -> None:
    texts = Texts(60, seed=5, share=1.0)
    one, again, other = (_collect(texts, seed=seed, n_reservoir=5).reservoir.order_LS for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(np.sort(one), np.sort(other))
    assert len({tuple(sorted(row)) for row in one.tolist()}) == N_LATENTS


def test_a_group_is_sampled_as_often_as_a_single_text_and_by_its_strongest() -> None:
    texts = Texts(64, seed=6, share=0.4)
    single = [row for row in range(64) if texts.lengths[row] > 0][:8]
    groups = [f"single {row}" if row in single else "many" for row in range(64)]
    peaks = texts.peaks(0)
    eligible = _best_of_groups(peaks, peaks > 0, groups)
    strongest_of_many = next(row for row in eligible if groups[row] == "many")
    row_of = np.flatnonzero(texts.lengths.numpy() > 0)
    n_seeds, n_many = 250, 0
    for seed in range(n_seeds):
        reservoir = _collect(texts, [20, 40], groups, seed, near=False, n_top=0, n_reservoir=3).reservoir
        rows = row_of[reservoir.order_LS[0]].tolist()
        assert set(rows) <= set(eligible)
        assert len(set(rows)) == 3
        n_many += strongest_of_many in rows
    share = 3 / len(eligible)
    assert abs(n_many - n_seeds * share) < 4.5 * np.sqrt(n_seeds * share * (1 - share))


def test_the_lottery_is_uniform_and_without_pattern() -> None:
    lottery = Lottery(300, np.random.default_rng(0))
    draw_GL = np.stack([lottery.draw(np.uint64(group), np.arange(300)) for group in range(300)])
    assert 0 <= draw_GL.min() < draw_GL.max() < 1
    counts = np.histogram(draw_GL, bins=50, range=(0, 1))[0]
    assert ((counts - 1800) ** 2 / 1800).sum() < 49 + 5 * np.sqrt(2 * 49)
    correlation = np.corrcoef(draw_GL) - np.eye(300)
    assert np.abs(correlation).max() < 6 / np.sqrt(300)
    assert np.abs(np.corrcoef(draw_GL.T) - np.eye(300)).max() < 6 / np.sqrt(300)


@pytest.mark.parametrize("steps", [None, 3], ids=["all peaks differ", "many equal peaks"])
def test_the_sample_shows_every_fifth_of_the_range_without_the_top(steps: int | None) -> None:
    texts = Texts(90, seed=7, steps=steps, share=0.3)
    found = _collect(texts, n_top=3, n_reservoir=25)
    row_of = np.flatnonzero(texts.lengths.numpy() > 0)
    for latent in range(N_LATENTS):
        peaks = texts.peaks(latent)
        sample = sorted(row_of[found.reservoir.order_LS[latent]].tolist(), key=lambda row: (peaks[row], -row))
        top = _rows(_of(found, latent, "top"))
        shown = _of(found, latent, "quantile")
        assert not set(_rows(shown)) & set(top)
        for fifth in range(5):
            fresh = [row for row in sample[5 * fifth : 5 * fifth + 5] if row not in top]
            here = [row for row in _rows(shown) if row in sample[5 * fifth : 5 * fifth + 5]]
            assert len(here) == min(3, len(fresh))
        assert [peaks[row] for row in _rows(shown)] == sorted(peaks[row] for row in _rows(shown))
        for example in shown:
            assert example.quantile == pytest.approx(np.mean(peaks[sample] < example.peak))


def test_what_is_shown_of_a_fifth_is_a_uniform_choice() -> None:
    texts = Texts(60, seed=7, share=1.0)
    row_of = np.flatnonzero(texts.lengths.numpy() > 0)
    shown_R = np.zeros(5)
    for seed in range(40):
        found = _collect(texts, seed=seed, near=False, n_top=0, n_reservoir=25)
        for latent in range(N_LATENTS):
            peaks = texts.peaks(latent)
            sample = sorted(row_of[found.reservoir.order_LS[latent]].tolist(), key=lambda row: (peaks[row], -row))
            for row in _rows(_of(found, latent, "quantile")):
                shown_R[sample.index(row) % 5] += 1
    assert shown_R / (40 * N_LATENTS * 5) == pytest.approx([0.6] * 5, abs=0.07)


def test_all_texts_are_shown_where_there_are_few() -> None:
    texts = Texts(8, seed=8, share=1.0)
    found = _collect(texts, n_top=2)
    peaks = texts.peaks(0)
    order = np.argsort(-peaks)[:7].tolist()
    assert _rows(_of(found, 0, "top")) == order[:2]
    assert _rows(_of(found, 0, "quantile")) == order[2:][::-1]


@pytest.mark.parametrize("steps", [None, 3], ids=["all differ", "many equal"])
@pytest.mark.parametrize("grouped", [False, True])
def test_near_misses_are_the_texts_that_came_nearest_without_firing(steps: int | None, grouped: bool) -> None:
    texts = Texts(60, seed=9, steps=steps)
    groups = [f"document {row % 13 if grouped else row}" for row in range(60)]
    found = _collect(texts, [11, 12, 40], groups if grouped else None, n_near=4)
    for latent in range(N_LATENTS):
        silent = (texts.peaks(latent) == 0) & (texts.lengths.numpy() > 0)
        near = _of(found, latent, "near miss")
        assert _rows(near) == _best_of_groups(texts.near[:, latent].numpy(), silent, groups)[:4]
        for example in near:
            length = min(WINDOW, int(texts.lengths[example.text - 100]))
            assert (example.first, example.peak, example.quantile) == (0, 0.0, None)
            assert example.values == example.presence[0] == example.presence[1] == (0.0,) * length


def test_near_misses_come_only_from_batches_that_were_asked_for_them() -> None:
    texts = Texts(20, seed=10)
    collector = ExampleCollector(N_LATENTS, np.random.default_rng(0))
    collector.update(texts.codes(range(10), near=False), range(10), [""] * 10)
    collector.update(texts.codes(range(10, 20)), range(10, 20), [""] * 10)
    found = collector.finish()
    near = [example.text for latent in range(N_LATENTS) for example in _of(found, latent, "near miss")]
    assert near
    assert min(near) >= 10


def test_what_is_not_a_number_or_has_no_size_is_no_example() -> None:
    texts = Texts(30, seed=11, share=0.5)
    loud, endless = np.argsort(-texts.peaks(0))[:2].tolist()
    codes = texts.codes(range(30))
    bad_E = (codes.text_E == loud) & (codes.entries.latent_E == 0)
    bad_E &= torch.cumsum(bad_E, 0) == 1
    activation_E = codes.activation_E.masked_fill(bad_E, torch.nan)
    activation_E = activation_E.masked_fill(codes.entries.latent_E == 1, 0.0)
    activation_E = activation_E.masked_fill((codes.text_E == endless) & (codes.entries.latent_E == 0), torch.inf)
    assert codes.near_BL is not None
    near_BL = codes.near_BL.double()
    near_BL[:, 1] = 9.0
    near_BL[::3, 2] = torch.nan
    near_BL[1::3, 2] = torch.inf
    collector = ExampleCollector(N_LATENTS, np.random.default_rng(0), n_top=30, n_reservoir=30, n_near=30)
    before = near_BL.clone()
    collector.update(replace(codes, activation_E=activation_E, near_BL=near_BL), range(30), [""] * 30)
    assert torch.equal(near_BL.nan_to_num(nan=-9.0), before.nan_to_num(nan=-9.0)), "the codes are the caller's"
    found = collector.finish()
    assert not {loud, endless} & {example.text for example in found.of(0)}
    assert len(_of(found, 0, "top")) == (texts.peaks(0) > 0).sum() - 2
    fired = np.flatnonzero(texts.peaks(1) > 0).tolist()
    assert found.of(1) == ()
    near = found.near.order_LS[1]
    assert not {found.references[order][0] for order in near[near >= 0].tolist()} & set(fired)
    silent = np.flatnonzero((texts.peaks(2) == 0) & (texts.lengths.numpy() > 0))
    assert {example.text for example in _of(found, 2, "near miss")} == {row for row in silent.tolist() if row % 3 == 2}


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e6, 1e30])
def test_windows_are_as_precise_at_any_size_of_activations(size: float) -> None:
    texts = Texts(10, seed=12, share=0.6)
    texts.activation = [size * a for a in texts.activation]
    texts.presence = [size * presence for presence in texts.presence]
    for example in _of(_collect(texts), 0, "top"):
        row = example.text - 100
        window = slice(example.first, example.first + WINDOW)
        a_T = texts.activation[row][window, 0]
        assert example.values == pytest.approx(a_T.tolist(), rel=1e-3, abs=1e-3 * size)
        expected = (texts.presence[row][window, 0, 1] * (a_T > 0)).tolist()
        assert example.presence[1] == pytest.approx(expected, rel=1e-3, abs=1e-3 * size)


def test_a_presence_far_beyond_the_peak_stays_finite() -> None:
    texts = Texts(10, seed=13, share=0.6)
    texts.presence = [1e9 * presence for presence in texts.presence]
    for example in _collect(texts).of(0):
        assert np.isfinite(example.presence).all()


def test_batches_without_tokens_and_texts_named_twice() -> None:
    texts = Texts(10, seed=14, share=1.0)
    collector = ExampleCollector(N_LATENTS, np.random.default_rng(0), n_top=20, n_reservoir=20, window=WINDOW)
    collector.update(texts.codes(range(0, 9, 8)), [-1, -2], ["", ""])
    for _ in range(2):
        collector.update(texts.codes(range(10)), range(10), [""] * 10)
    once = [row for row in range(10) if texts.lengths[row]]
    assert sorted(example.text for example in _of(collector.finish(), 0, "top")) == once


def test_references_are_kept_only_of_texts_that_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffharness.latents.examples._PRUNE_REFERENCES", 10)
    texts = Texts(200, seed=15)
    texts.activation[1] += 100.0
    few = _collect(texts, range(10, 200, 10), n_top=2, n_reservoir=3, n_near=1)
    assert len(few.references) <= 2 * 6 * N_LATENTS + 10
    monkeypatch.undo()
    all_kept = _collect(texts, range(10, 200, 10), n_top=2, n_reservoir=3, n_near=1)
    assert len(all_kept.references) > len(few.references)
    assert [few.of(latent) for latent in range(N_LATENTS)] == [all_kept.of(latent) for latent in range(N_LATENTS)]


def test_numbers_of_texts_may_be_0() -> None:
    found = _collect(Texts(20, seed=16), n_top=0, n_near=0)
    assert {example.kind for latent in range(N_LATENTS) for example in found.of(latent)} == {"quantile"}
    assert _collect(Texts(20, seed=16), n_top=0, n_reservoir=0, n_near=0).of(0) == ()


def test_windows_take_the_memory_that_is_promised() -> None:
    arrays = [value for value in vars(Slots(10, 25, 32)).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 10 * 25 * (6 * 32 + 40) + 10 * 8


def test_codes_of_a_crosscoder_are_collected_with_both_models_values() -> None:
    """Planted: model 0 alone has latent 0, which fires at 3 on one token of one text; both models have latent 1."""
    crosscoder = Crosscoder(CrosscoderConfig(sides=("one", "two"), d_model=4, n_latents=4)).double()
    decoder_LMD = torch.zeros(4, 2, 4, dtype=torch.float64)
    decoder_LMD[0, 0, 0] = 1.0
    decoder_LMD[1, :, 1] = 1.0
    encoder_LMD = decoder_LMD.clone()
    encoder_LMD[1] /= 2
    encoder_LMD[2, 0, 2] = 1.0
    with torch.no_grad():
        crosscoder.W_dec_LMD.copy_(decoder_LMD)
        crosscoder.W_enc_LMD.copy_(encoder_LMD)
        crosscoder.b_enc_L.fill_(-0.25)
    x_NMD = torch.zeros(6, 2, 4, dtype=torch.float64)
    x_NMD[1, 0, 0] = 3.25
    x_NMD[4, :, 1] = 2.25
    x_NMD[5, 0, 0] = 0.2
    x_NMD[5, 0, 2] = 1.0
    codes = TextEncoder(crosscoder)(x_NMD, [3, 0, 3], near=True)
    collector = ExampleCollector(4, np.random.default_rng(0))
    collector.update(codes, [7, 8, 9], ["a", "b", "c"])
    found = collector.finish()

    alone, missed = found.of(0)
    assert (alone.kind, alone.text, alone.source, alone.peak) == ("top", 7, "a", 3.0)
    assert alone.values == (0.0, 3.0, 0.0)
    assert alone.presence[0] == pytest.approx((0.0, 3.25, 0.0), **CLOSE)
    assert alone.presence[1] == (0.0, 0.0, 0.0)
    assert (missed.kind, missed.text) == ("near miss", 9)
    both = found.of(1)[0]
    assert (both.text, both.values) == (9, (0.0, 4.0, 0.0))
    for presence in both.presence:
        assert presence == pytest.approx((0.0, 4.5, 0.0), **CLOSE)
    assert found.of(2) == (), "it has no decoder"
    assert found.of(3) == (), "it never fires"


def test_numbers_that_do_not_fit_are_refused() -> None:
    codes = Texts(4).codes(range(4))
    collector = ExampleCollector(N_LATENTS, np.random.default_rng(0))
    with pytest.raises(ValueError, match="one a text"):
        collector.update(codes, range(3), [""] * 4)
    with pytest.raises(ValueError, match="one a text"):
        collector.update(codes, range(4), [""] * 4, [""])
    with pytest.raises(ValueError, match="7 latents, the collector 8"):
        ExampleCollector(8, np.random.default_rng(0)).update(codes, range(4), [""] * 4)
    with pytest.raises(ValueError, match="at least 1 token"):
        ExampleCollector(8, np.random.default_rng(0), window=0)
    collector.finish()
    with pytest.raises(ValueError, match="finished"):
        collector.update(codes, range(4), [""] * 4)
