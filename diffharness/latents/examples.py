"""Texts on which latents fire most, and how often they fire at all, collected in one pass.

Legend: N coded tokens of a batch (texts one after the other), B texts in a batch, L latents, E examples kept a
latent, W tokens kept around an example's peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK_CELLS = 4_000_000
"""Cells of activations gathered at a time while windows are cut."""


@dataclass(frozen=True)
class TextExample:
    """A text on which a latent fires; its tokens are the reader's to look up by `text_id`."""

    text_id: str
    source: str
    first: int
    """Index of the first value among the text's coded positions; 0 unless the text outgrows the window."""
    values: tuple[float, ...]
    """The latent's activation at each coded position of the window."""


@dataclass(frozen=True)
class CollectedExamples:
    """What an `ExampleCollector` saw; arrays have one entry a latent, NaN where the latent never fired."""

    n_tokens: int
    density: npt.NDArray[np.float64]
    """Share of coded tokens on which it fires."""
    mean_activation: npt.NDArray[np.float64]
    """Over the tokens on which it fires."""
    first_share: npt.NDArray[np.float64]
    """Share of its activation on the first coded position of a text."""
    mass: npt.NDArray[np.float64]
    """Sum of its activation."""
    texts: tuple[tuple[str, str], ...]
    """Identifier and source of the texts that `text` points to."""
    text: npt.NDArray[np.int64]
    """(L, E): index into `texts`, the strongest first; −1 where there is none."""
    first: npt.NDArray[np.int64]
    """(L, E)"""
    length: npt.NDArray[np.int64]
    """(L, E): values in use of the window."""
    window: npt.NDArray[np.float32]
    """(L, E, W)"""

    def of(self, latent: int) -> tuple[TextExample, ...]:
        """The examples of a latent, the strongest first; empty where it never fired."""
        return tuple(
            TextExample(
                *self.texts[text],
                first=int(self.first[latent, slot]),
                values=tuple(self.window[latent, slot, : self.length[latent, slot]].tolist()),
            )
            for slot, text in enumerate(self.text[latent])
            if text >= 0
        )


class ExampleCollector:
    """Keeps each latent's top texts by maximum activation, with their values, and running sums over tokens.

    Memory is L · E · W float32 plus the identifiers of texts that were ever an example. Ties go to the text
    seen first.
    """

    def __init__(self, n_latents: int, n_examples: int = 5, window: int = 64) -> None:
        self._texts: list[tuple[str, str]] = []
        self._seen: set[int] = set()
        self._window = window
        self._n_tokens = 0
        self._mass_L = torch.zeros(n_latents, dtype=torch.float64)
        self._first_mass_L = torch.zeros(n_latents, dtype=torch.float64)
        self._active_L = torch.zeros(n_latents, dtype=torch.int64)
        self._peak_LE = torch.full((n_latents, n_examples), -torch.inf)
        self._text_LE = torch.full((n_latents, n_examples), -1)
        self._group_LE = torch.zeros((n_latents, n_examples), dtype=torch.int64)
        self._first_LE = torch.zeros((n_latents, n_examples), dtype=torch.int64)
        self._length_LE = torch.zeros((n_latents, n_examples), dtype=torch.int64)
        self._window_LEW = torch.zeros((n_latents, n_examples, window))

    def update(
        self,
        f_NL: Float[Tensor, "N L"],
        lengths: Sequence[int],
        text_ids: Sequence[str],
        sources: Sequence[str],
        groups: Sequence[str] | None = None,
    ) -> None:
        """Take in the codes of a batch: B texts one after the other, `lengths` coded tokens each.

        Texts of one group (by default: of one `text_id`) count as one text, represented by the one that fires
        most, so that the choices of a document do not fill a card. Any device and floating type.
        """
        f_NL = f_NL.detach()
        length_B = torch.as_tensor(list(lengths), dtype=torch.int64)
        if int(length_B.sum()) != len(f_NL):
            raise ValueError(f"lengths sum to {int(length_B.sum())}, but there are {len(f_NL)} tokens")
        names = text_ids if groups is None else groups
        if not len(length_B) == len(text_ids) == len(sources) == len(names):
            raise ValueError("lengths, text_ids, sources and groups are one a text")
        kept = [text for text in range(len(length_B)) if length_B[text] > 0]
        if not kept:
            return
        length_B = length_B[kept]
        start_B = length_B.cumsum(0) - length_B
        self._add_sums(f_NL, start_B)
        batch = _Batch(
            f_NL=f_NL,
            start_B=start_B,
            length_B=length_B,
            group_B=torch.tensor([hash(names[text]) for text in kept], dtype=torch.int64),
            references=[(text_ids[text], sources[text]) for text in kept],
        )
        peak_BL = text_maxima(f_NL, length_B.tolist()).float().cpu()
        peak_BL = torch.where(peak_BL > 0, peak_BL, -torch.inf)
        self._drop_repeats(peak_BL, batch.group_B)
        self._merge(batch, peak_BL)

    def finish(self) -> CollectedExamples:
        """The examples and rates so far; the collector may go on."""
        active_L, mass_L = self._active_L.double(), self._mass_L
        fired_L = mass_L > 0
        nan = torch.full_like(mass_L, torch.nan)
        return CollectedExamples(
            n_tokens=self._n_tokens,
            density=(active_L / max(self._n_tokens, 1)).numpy(),
            mean_activation=torch.where(fired_L, mass_L / active_L.clamp(min=1), nan).numpy(),
            first_share=torch.where(fired_L, self._first_mass_L / mass_L, nan).numpy(),
            mass=mass_L.numpy().copy(),
            texts=tuple(self._texts),
            text=self._text_LE.numpy().copy(),
            first=self._first_LE.numpy().copy(),
            length=self._length_LE.numpy().copy(),
            window=self._window_LEW.numpy().copy(),
        )

    def _add_sums(self, f_NL: Float[Tensor, "N L"], start_B: Tensor) -> None:
        self._n_tokens += len(f_NL)
        self._mass_L += f_NL.sum(0, dtype=torch.float64).cpu()
        self._active_L += (f_NL > 0).sum(0).cpu()
        self._first_mass_L += f_NL[start_B.to(f_NL.device)].sum(0, dtype=torch.float64).cpu()

    def _drop_repeats(self, peak_BL: Float[Tensor, "B L"], group_B: Tensor) -> None:
        """Leave one row a latent and group: the strongest, in this batch and against what is kept."""
        for group in set(group_B.tolist()):
            rows = torch.nonzero(group_B == group)[:, 0]
            if len(rows) > 1:
                strongest_L = peak_BL[rows].argmax(0)
                weaker_BL = torch.arange(len(rows))[:, None] != strongest_L
                peak_BL[rows] = peak_BL[rows].masked_fill(weaker_BL, -torch.inf)
            if group in self._seen:
                same_LE = (self._group_LE == group) & (self._text_LE >= 0)
                kept_L = self._peak_LE.masked_fill(~same_LE, -torch.inf).amax(1)
                beaten_L = peak_BL[rows].amax(0) > kept_L
                self._peak_LE.masked_fill_(same_LE & beaten_L[:, None], -torch.inf)
                self._text_LE.masked_fill_(same_LE & beaten_L[:, None], -1)
                peak_BL[rows] = peak_BL[rows].masked_fill(~beaten_L, -torch.inf)
            self._seen.add(group)

    def _merge(self, batch: _Batch, peak_BL: Float[Tensor, "B L"]) -> None:
        """Let the batch's texts contend with those kept; only latents that gain an example are touched."""
        n_examples = self._peak_LE.shape[1]
        contenders = torch.cat([self._peak_LE, peak_BL.T], dim=1)
        peak_LE, order_LE = contenders.sort(dim=1, descending=True, stable=True)
        peak_LE, order_LE = peak_LE[:, :n_examples], order_LE[:, :n_examples]
        is_new_LE = (order_LE >= n_examples) & (peak_LE > -torch.inf)
        changed = torch.nonzero(is_new_LE.any(1))[:, 0]
        if not len(changed):
            return
        row, slot = torch.nonzero(is_new_LE[changed], as_tuple=True)
        text = order_LE[changed][row, slot] - n_examples
        first, window = batch.cut(changed[row], text, self._window)
        winners, place = torch.unique(text, return_inverse=True)
        number = len(self._texts) + place
        self._texts.extend(batch.references[winner] for winner in winners.tolist())
        from_RE = order_LE[changed].clamp(max=n_examples - 1)
        for kept, fresh in (
            (self._text_LE, number),
            (self._group_LE, batch.group_B[text]),
            (self._first_LE, first),
            (self._length_LE, batch.length_B[text].clamp(max=self._window)),
            (self._window_LEW, window),
        ):
            moved = kept[changed[:, None], from_RE]
            moved[row, slot] = fresh
            kept[changed] = moved
        self._peak_LE[changed] = peak_LE[changed]
        self._text_LE.masked_fill_(self._peak_LE == -torch.inf, -1)


@dataclass(frozen=True)
class _Batch:
    """Codes of B texts and what is known of each text; the codes alone may lie on a device."""

    f_NL: Tensor
    start_B: Tensor
    length_B: Tensor
    group_B: Tensor
    references: list[tuple[str, str]]

    def cut(self, latent: Tensor, text: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """The window around the peak of each (latent, text): index of its first position, and its values."""
        longest = int(self.length_B.max())
        firsts: list[Tensor] = []
        windows: list[Tensor] = []
        for some in torch.arange(len(latent)).split(max(1, _CHUNK_CELLS // longest)):
            start, length = self.start_B[text[some], None], self.length_B[text[some], None]
            place = torch.arange(longest)[None, :]
            index = torch.where(place < length, start + place, 0).to(self.f_NL.device)
            value = self.f_NL[index, latent[some, None].to(self.f_NL.device)].float().cpu()
            value = value.masked_fill(place >= length, 0.0)
            first = torch.minimum(value.argmax(1) - window // 2, length[:, 0] - window).clamp(min=0)
            reach = first[:, None] + torch.arange(window)
            firsts.append(first)
            windows.append(value.gather(1, reach.clamp(max=longest - 1)).masked_fill(reach >= longest, 0.0))
        return torch.cat(firsts), torch.cat(windows)


def text_maxima(f_NL: Float[Tensor, "N L"], lengths: Sequence[int]) -> Float[Tensor, "B L"]:
    """Each latent's maximum activation over every text (texts one after the other); 0 where there is no token."""
    length_B = torch.as_tensor(list(lengths), dtype=torch.int64, device=f_NL.device)
    maximum_BL = torch.segment_reduce(f_NL.detach(), "max", lengths=length_B, axis=0)
    return maximum_BL.clamp(min=0)


def flatten_padded(f_BTL: Float[Tensor, "B T L"], lengths: Sequence[int]) -> Float[Tensor, "N L"]:
    """The coded tokens of a right-padded batch, texts one after the other."""
    length_B = torch.as_tensor(list(lengths), device=f_BTL.device)
    inside_BT = torch.arange(f_BTL.shape[1], device=f_BTL.device)[None, :] < length_B[:, None]
    return f_BTL[inside_BT]
