"""Rows of a store as one long tensor that is never loaded: what is asked for is read from memory-mapped shards.

Legend: N tokens, M models, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


class ActivationRows:
    """Some rows of some models, in order; behaves like an (N, M, D) tensor that can only be sliced and read from.

    Args:
        shards: memory-mapped tensors (n, all models, D); rows are numbered through all of them.
        ranges: (R, 2) first row and end of what is part of it, ascending; each may reach over shards.
        columns: the models, as indices into the shards' second axis.
    """

    def __init__(self, shards: Sequence[Tensor], ranges: np.ndarray, columns: Sequence[int]) -> None:
        self._shards = list(shards)
        self._columns = list(columns)
        self._all_columns = self._columns == list(range(shards[0].shape[1]))
        self._shard_R, self._first_R, self._virtual_R = _within_shards(
            np.cumsum([0, *(len(shard) for shard in shards)]), np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
        )

    def __len__(self) -> int:
        return int(self._virtual_R[-1])

    @property
    def shape(self) -> torch.Size:
        """(N, M, D)."""
        return torch.Size((len(self), len(self._columns), self._shards[0].shape[2]))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that is stored."""
        return self._shards[0].dtype

    @property
    def device(self) -> torch.device:
        """Where slices are: the CPU."""
        return self._shards[0].device

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows of a slice of step 1; a view of the map where they lie in one piece, read when it is used."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"rows are read in slices of step 1, not {step}")
        pieces = list(self._pieces(start, stop))
        x_NMD = pieces[0] if len(pieces) == 1 else torch.cat(pieces or [self._shards[0][:0]])
        return x_NMD if self._all_columns else x_NMD[:, self._columns]

    def read_into(self, places: Tensor, out_NMD: Tensor) -> None:
        """Copy the rows in some places (n, 0-based) to `out_NMD`; ascending places are read fastest."""
        if not self._all_columns:
            all_NMD = torch.empty((len(places), *self._shards[0].shape[1:]), dtype=self.dtype)
            self._copy(places.numpy(), all_NMD)
            out_NMD.copy_(all_NMD[:, self._columns])
        else:
            self._copy(places.numpy(), out_NMD)

    def _copy(self, place_N: np.ndarray, out_NMD: Tensor) -> None:
        """The rows of all models."""
        range_N = np.searchsorted(self._virtual_R, place_N, side="right") - 1
        row_N = torch.from_numpy(self._first_R[range_N] + place_N - self._virtual_R[range_N])
        shard_N = self._shard_R[range_N]
        borders = [0, *(np.flatnonzero(np.diff(shard_N)) + 1).tolist(), len(place_N)]
        for start, end in pairwise(borders):
            torch.index_select(self._shards[shard_N[start]], 0, row_N[start:end], out=out_NMD[start:end])

    def _pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        r = int(np.searchsorted(self._virtual_R, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._virtual_R[r + 1]))
            first = int(self._first_R[r]) + start - int(self._virtual_R[r])
            yield self._shards[self._shard_R[r]][first : first + end - start]
            start, r = end, r + 1


def _within_shards(borders: np.ndarray, ranges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranges cut at the shards' borders: shard, first row inside it, and (one longer) first row of the result."""
    shards, firsts, lengths = [], [], []
    for start, stop in ranges.tolist():
        shard = int(np.searchsorted(borders, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(borders[shard + 1]))
            shards.append(shard)
            firsts.append(start - int(borders[shard]))
            lengths.append(end - start)
            start, shard = end, shard + 1
    return np.asarray(shards, dtype=np.int64), np.asarray(firsts, dtype=np.int64), np.cumsum([0, *lengths])


def coded_places(ids: Sequence[int], skipped_ids: frozenset[int] = frozenset()) -> np.ndarray:
    """The positions of a sequence that a code is computed for: all but the first and those of skipped ids."""
    places = np.arange(1, len(ids))
    if not skipped_ids:
        return places
    return places[~np.isin(np.asarray(ids[1:]), list(skipped_ids))]


def coded_ranges(start: int, ids: Sequence[int], skipped_ids: frozenset[int] = frozenset()) -> np.ndarray:
    """The coded positions of a sequence whose first row is `start`, as ranges of rows (R, 2)."""
    rows = start + coded_places(ids, skipped_ids)
    borders = np.flatnonzero(np.diff(rows) != 1) + 1
    pieces = [piece for piece in np.split(rows, borders) if len(piece)]
    return np.array([[piece[0], piece[-1] + 1] for piece in pieces], dtype=np.int64).reshape(-1, 2)
