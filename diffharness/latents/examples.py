"""Examples of every latent, kept while the codes of texts stream by once: its top texts, a sample, near misses.

Legend: N tokens (texts one after the other); B texts of a batch; L latents; E active (token, latent) entries; P active
(text, latent) pairs; of one text: A pairs, U pairs that are kept; S slots (places for a text) of a latent; V values
shown of a token; W tokens of a window; K entries that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float16, Float64, Int, Int64

from diffharness.latents.codes import Peaks, TextCodes
from diffharness.latents.example_slots import LARGEST_SHARE, N_VALUES, Lottery, Slots, group_numbers

N_BINS = 5
"""Equal parts of the range of peaks that a card shows examples of."""
SHOWN_OF_BIN = 3
"""Examples shown of each part, at most."""
_PRUNE_REFERENCES = 10_000


@dataclass(frozen=True)
class LatentExample:
    """A text, or a window of one, for a latent's card; its tokens are the reader's to look up by `text`."""

    kind: Literal["top", "quantile", "near miss"]
    quantile: float | None
    """Share of the sample's peaks that are below this one's; None unless it is of the sample."""
    text: int
    """The number that the text was given in `ExampleCollector.update`."""
    source: str
    first: int
    """Index of the first shown token among the text's coded positions."""
    values: tuple[float, ...]
    """The activation on each shown token; 0 where the latent does not fire."""
    presence: tuple[tuple[float, ...], tuple[float, ...]]
    """How much of the latent either model of the pair holds on each shown token, in the same units; it is known only
    where the latent fires and 0 elsewhere."""
    peak: float
    """The largest activation in the text."""


@dataclass(frozen=True, eq=False)
class CollectedExamples:
    """What an `ExampleCollector` kept; examples are made when they are asked for."""

    top: Slots
    reservoir: Slots
    near: Slots
    references: Mapping[int, tuple[int, str]]
    """Number and source of the kept texts, by the order in which they were seen."""

    def of(self, latent: int) -> tuple[LatentExample, ...]:
        """Examples of a latent: top (strongest first), quantile (weakest first), near misses (nearest first).

        None at all where it fires on no text: there is nothing then that a near miss could be compared with.
        """
        top = [self._example("top", self.top, latent, slot) for slot in self.top.strongest(latent)]
        fires = [*top, *self._sample(latent)]
        if not fires:
            return ()
        near = [self._example("near miss", self.near, latent, slot) for slot in self.near.strongest(latent)]
        return (*fires, *near)

    def _sample(self, latent: int) -> list[LatentExample]:
        """Up to `SHOWN_OF_BIN` of each bin of the reservoir's ranks, without the groups that are shown as top."""
        slot_R = self.reservoir.strongest(latent)[::-1]
        peak_R = self.reservoir.peak_LS[latent, slot_R]
        shown_as_top = self.top.group_LS[latent, self.top.strongest(latent)]
        fresh_R = ~np.isin(self.reservoir.group_LS[latent, slot_R], shown_as_top)
        lot_R = self.reservoir.score_LS[latent, slot_R]
        bin_R = N_BINS * np.arange(len(slot_R)) // max(len(slot_R), 1)
        ranks: list[int] = []
        for number in range(N_BINS):
            rank_K = np.flatnonzero((bin_R == number) & fresh_R)
            ranks += sorted(rank_K[np.argsort(-lot_R[rank_K])][:SHOWN_OF_BIN].tolist())
        return [
            self._example("quantile", self.reservoir, latent, slot_R[rank], float(np.mean(peak_R < peak_R[rank])))
            for rank in ranks
        ]

    def _example(
        self,
        kind: Literal["top", "quantile", "near miss"],
        slots: Slots,
        latent: int,
        slot: int,
        quantile: float | None = None,
    ) -> LatentExample:
        text, source = self.references[int(slots.order_LS[latent, slot])]
        first, length = int(slots.first_LS[latent, slot]), int(slots.length_LS[latent, slot])
        if kind == "near miss":
            nothing = (0.0,) * length
            return LatentExample(kind, None, text, source, first, nothing, (nothing, nothing), 0.0)
        activation, one, other = (tuple(row) for row in slots.values(latent, slot).tolist())
        peak = float(slots.peak_LS[latent, slot])
        return LatentExample(kind, quantile, text, source, first, activation, (one, other), peak)


class ExampleCollector:
    """Keeps examples of every latent from the codes of texts that are seen once.

    - *top*: the texts with the largest peak; of equal ones the text seen first.
    - *sample*: a uniform sample of all texts on which the latent fires, so that a card can show its whole range.
    - *near misses*: the texts on which it does not fire at all whose pre-activation came nearest to firing. A text may
      be one although another text of its group fires.

    A group has at most one text in each of the three, its strongest. A peak that is 0 (a latent without decoder) or
    not finite is no example. What is kept does not depend on how texts are split into updates, and its size not on
    their number: per latent 6 · window bytes for each top and sampled text, about 40 bytes for every text.
    """

    def __init__(
        self,
        n_latents: int,
        rng: np.random.Generator,
        *,
        n_top: int = 5,
        n_reservoir: int = 20,
        n_near: int = 3,
        window: int = 32,
    ) -> None:
        if window < 1 or min(n_top, n_reservoir, n_near) < 0:
            raise ValueError("a window has at least 1 token, and numbers of texts are not negative")
        self._top = Slots(n_latents, n_top, window)
        self._reservoir = Slots(n_latents, n_reservoir, window)
        self._near = Slots(n_latents, n_near)
        self._lottery = Lottery(n_latents, rng)
        self._window = window
        self._latent_L = np.arange(n_latents)
        self._place_L = np.full(n_latents, -1, dtype=np.int64)
        """Scratch: where a latent is among the pairs of a text that are kept; −1 between texts."""
        self._references: dict[int, tuple[int, str]] = {}
        self._prune_at = _PRUNE_REFERENCES
        self._n_seen = 0
        self._finished = False

    def update(
        self, codes: TextCodes, texts: Sequence[int], sources: Sequence[str], groups: Sequence[str] | None = None
    ) -> None:
        """Take in the codes of B texts.

        Args:
            codes: near misses are looked for where it has `near_BL`.
            texts: a number for each text; the examples name their texts by it.
            sources: name of a corpus, or `task:doc_id`.
            groups: texts of one group count as one; by default a text is its own group.

        Raises:
            ValueError: where the numbers of texts or latents do not fit, or after `finish`.
        """
        n_texts, n_latents = len(codes.length_B), len(self._latent_L)
        if self._finished:
            raise ValueError("examples that are finished take no more texts")
        if not n_texts == len(texts) == len(sources) == len(sources if groups is None else groups):
            raise ValueError(f"codes are of {n_texts} texts: texts, sources and groups are one a text")
        if codes.entries.n_latents != n_latents:
            raise ValueError(f"codes have {codes.entries.n_latents} latents, the collector {n_latents}")
        batch = _Batch(codes)
        for row, group in enumerate(group_numbers(texts, groups)):
            if batch.length_B[row] == 0:
                continue
            kept_firing = self._take_firing(batch, row, group)
            if self._take_near(batch, row, group) or kept_firing:
                self._references[self._n_seen] = (int(texts[row]), sources[row])
            self._n_seen += 1
        self._prune_references()

    def finish(self) -> CollectedExamples:
        """Hand over what was kept, without a copy; the collector takes no more texts."""
        self._finished = True
        return CollectedExamples(self._top, self._reservoir, self._near, self._references)

    def _take_firing(self, batch: _Batch, row: int, group: np.uint64) -> bool:
        """Offer a text to the latents that fire on it; whether any kept it."""
        latent_A, peak_A, place_A = batch.pairs(row)
        offers = ((self._top, peak_A), (self._reservoir, self._lottery.draw(group, latent_A)))
        taken = [(slots, *slots.offer(latent_A, score_A, peak_A, group, self._n_seen)) for slots, score_A in offers]
        kept_A = np.zeros(len(latent_A), dtype=bool)
        for _, accepted, _ in taken:
            kept_A[accepted] = True
        if not kept_A.any():
            return False
        length = int(batch.length_B[row])
        first_A = (place_A - self._window // 2).clip(0, max(length - self._window, 0))
        share_UVW = self._cut(batch, row, latent_A[kept_A], first_A[kept_A], peak_A[kept_A])
        number_A = kept_A.cumsum() - 1
        for slots, accepted, slot in taken:
            some = latent_A[accepted], slot, first_A[accepted]
            slots.show(*some, min(length, self._window), share_UVW[number_A[accepted]])
        return True

    def _cut(
        self,
        batch: _Batch,
        row: int,
        latent_U: Int64[np.ndarray, " U"],
        first_U: Int64[np.ndarray, " U"],
        peak_U: Float64[np.ndarray, " U"],
    ) -> Float16[np.ndarray, "U V W"]:
        """Windows of one text as shares of the peaks: only its own entries are gone through."""
        token_E, latent_E, value_EV = batch.entries(row)
        self._place_L[latent_U] = np.arange(len(latent_U))
        place_E = self._place_L[latent_E]
        self._place_L[latent_U] = -1
        within_E = token_E - first_U[place_E]
        shown_E = (place_E >= 0) & (within_E >= 0) & (within_E < self._window)
        place_K, within_K = place_E[shown_E], within_E[shown_E]
        share_KV = value_EV[shown_E] / peak_U[place_K, None]
        share_UVW = np.zeros((len(latent_U), N_VALUES, self._window), dtype=np.float16)
        share_UVW[place_K, :, within_K] = share_KV.clip(-LARGEST_SHARE, LARGEST_SHARE)
        return share_UVW

    def _take_near(self, batch: _Batch, row: int, group: np.uint64) -> bool:
        """Offer a text to the latents that do not fire on it; whether any kept it. Its beginning is shown."""
        near_L = batch.near(row)
        if near_L is None:
            return False
        latent_C = self._near.may_enter(self._latent_L, near_L)
        near_C = near_L[latent_C]
        accepted, slot = self._near.offer(latent_C, near_C, near_C, group, self._n_seen)
        length = min(int(batch.length_B[row]), self._window)
        self._near.show(latent_C[accepted], slot, np.zeros(len(accepted), dtype=np.int64), length)
        return len(accepted) > 0

    def _prune_references(self) -> None:
        """Forget texts that nothing points to any more, whenever their number has doubled."""
        if len(self._references) <= self._prune_at:
            return
        live = np.concatenate([np.unique(slots.order_LS) for slots in (self._top, self._reservoir, self._near)])
        self._references = {order: self._references[order] for order in np.unique(live[live >= 0]).tolist()}
        self._prune_at = max(2 * len(self._references), _PRUNE_REFERENCES)


class _Batch:
    """The codes of B texts, cut into texts."""

    def __init__(self, codes: TextCodes) -> None:
        peaks = codes.peaks if len(codes.f_E) else _no_peaks()
        self._codes = codes
        self.length_B = codes.length_B.numpy()
        self._start_B = codes.start_B.numpy()
        end_B = self._start_B + self.length_B
        self._first_entry_B = codes.entries.bounds.numpy()[self._start_B]
        self._last_entry_B = codes.entries.bounds.numpy()[end_B]
        self._token_E, self._latent_E = codes.entries.token_E.numpy(), codes.entries.latent_E.numpy()
        self._latent_P, self._place_P = peaks.latent_P.numpy(), peaks.place_P.numpy()
        self._peak_P = peaks.peak_P.double().numpy()
        self._bounds_P = np.searchsorted(peaks.text_P.numpy(), np.arange(len(self.length_B) + 1))

    @cached_property
    def _value_EV(self) -> Float[np.ndarray, "E V"]:
        return torch.cat([self._codes.activation_E[:, None], self._codes.presence_EM], dim=1).detach().numpy()

    def _of_text(self, row: int) -> slice:
        return slice(self._bounds_P[row], self._bounds_P[row + 1])

    def pairs(self, row: int) -> tuple[Int64[np.ndarray, " A"], Float64[np.ndarray, " A"], Int64[np.ndarray, " A"]]:
        """Latents that fire on a text, their peaks, and the peaks' tokens counted from the text's first."""
        of_text = self._of_text(row)
        latent_A, peak_A, place_A = self._latent_P[of_text], self._peak_P[of_text], self._place_P[of_text]
        fires_A = np.isfinite(peak_A) & (peak_A > 0)
        return latent_A[fires_A], peak_A[fires_A], place_A[fires_A] - self._start_B[row]

    def entries(self, row: int) -> tuple[Int[np.ndarray, " E"], Int[np.ndarray, " E"], Float[np.ndarray, "E V"]]:
        """Tokens (counted from the text's first), latents and values of a text's entries."""
        of_text = slice(self._first_entry_B[row], self._last_entry_B[row])
        return self._token_E[of_text] - self._start_B[row], self._latent_E[of_text], self._value_EV[of_text]

    def near(self, row: int) -> Float64[np.ndarray, " L"] | None:
        """How near every latent came to firing on a text; NaN where it fired or that is not known."""
        if self._codes.near_BL is None:
            return None
        near_L = self._codes.near_BL[row].double().numpy().copy()
        near_L[~np.isfinite(near_L)] = np.nan
        near_L[self._latent_P[self._of_text(row)]] = np.nan
        return near_L


def _no_peaks() -> Peaks:
    """Those of texts on which nothing fires."""
    none, empty = torch.empty(0, dtype=torch.int64), torch.empty(0)
    return Peaks(none, none, empty, none, empty.double(), none)
