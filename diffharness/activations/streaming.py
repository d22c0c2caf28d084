"""Activations that are never on disk: read by the models again whenever they are asked for.

Legend: N tokens, M models, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diffharness.activations.corpus import Text
from diffharness.activations.rows import coded_places
from diffharness.activations.store import Read

WINDOW_TOKENS = 1 << 13
"""Tokens read at once when rows are asked for in order."""
BUFFER_BYTES = 256 << 20
"""Size of the shuffle buffer."""


class StreamedActivations:
    """The coded positions of texts, like an (N, M, D) tensor that is made as it is read.

    Slices in order cost one reading of the texts; batches come from a shuffle buffer that is kept between half full
    and full. Only the buffer and one window are in memory.

    Args:
        read: reads some of the texts with all models.
        texts: the sequences.
        layer: which layer of those that are read.
        columns: the models, as indices into what `read` gives.
        d_model: width.
        skipped_ids: ids whose positions are left out.
    """

    def __init__(
        self,
        read: Read,
        texts: Sequence[Text],
        *,
        layer: int,
        columns: Sequence[int],
        d_model: int,
        skipped_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._read = read
        self._layer = layer
        self._columns = list(columns)
        self._d_model = d_model
        self._skipped_ids = skipped_ids
        self._texts = [text for text in texts if len(coded_places(text.ids, skipped_ids))]
        self._starts = np.cumsum([0, *(len(coded_places(text.ids, skipped_ids)) for text in self._texts)])
        self._window: tuple[int, Tensor] = (0, torch.empty(0, len(self._columns), d_model))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> torch.Size:
        """(N, M, D)."""
        return torch.Size((len(self), len(self._columns), self._d_model))

    @property
    def device(self) -> torch.device:
        """Where slices are: the CPU."""
        return torch.device("cpu")

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows of a slice of step 1."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"rows are read in slices of step 1, not {step}")
        pieces = []
        while start < stop:
            first, window_NMD = self._window_at(start)
            piece = window_NMD[start - first : stop - first]
            pieces.append(piece)
            start += len(piece)
        return torch.cat(pieces) if pieces else self._window[1][:0]

    def batches(self, batch_tokens: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Endless batches from the shuffle buffer; the texts of an epoch come in a new random order.

        What the buffer holds whole is read once.
        """
        row_bytes = len(self._columns) * self._d_model * 4
        capacity = max(2 * batch_tokens, BUFFER_BYTES // row_bytes)
        if len(self) <= capacity:
            capacity, coming = len(self), itertools.repeat(self._coded(self._texts))
        else:
            coming = self._epochs(max(1, capacity // 4), generator)
        buffer = [next(coming)]
        while True:
            while sum(map(len, buffer)) < capacity:
                buffer.append(next(coming))
            x_NMD = torch.cat(buffer)
            x_NMD = x_NMD[torch.randperm(len(x_NMD), generator=generator)]
            n_out = max(batch_tokens, len(x_NMD) // 2 // batch_tokens * batch_tokens)
            yield from x_NMD[:n_out].split(batch_tokens)
            buffer = [x_NMD[n_out:]]

    def _epochs(self, n_tokens: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The texts, epoch after epoch, in pieces of about `n_tokens` rows."""
        while True:
            order = torch.randperm(len(self._texts), generator=generator).tolist()
            reach = np.cumsum([self._starts[i + 1] - self._starts[i] for i in order]) // n_tokens
            for piece in np.split(np.asarray(order), np.flatnonzero(np.diff(reach)) + 1):
                yield self._coded([self._texts[i] for i in piece])

    def _window_at(self, row: int) -> tuple[int, Tensor]:
        """A window that holds the row, and its first row; the last one is kept."""
        first, window_NMD = self._window
        if not first <= row < first + len(window_NMD):
            text = int(np.searchsorted(self._starts, row, side="right")) - 1
            end = int(np.searchsorted(self._starts, self._starts[text] + WINDOW_TOKENS, side="right"))
            window_NMD = self._coded(self._texts[text : max(text + 1, end - 1)])
            self._window = (int(self._starts[text]), window_NMD)
        return self._window

    def _coded(self, texts: Sequence[Text]) -> Tensor:
        """The coded rows of some texts, in their order."""
        found: dict[int, Tensor] = {}
        for i, x in self._read(texts):
            places = torch.from_numpy(coded_places(texts[i].ids, self._skipped_ids))
            found[i] = x[self._layer].cpu()[places][:, self._columns].float()
        return torch.cat([found[i] for i in range(len(texts))])
