"""Rows of several stores, or of several layers of one, next to each other: like one long tensor.

Legend: N tokens, M models (models × layers), D width, P columns of a part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffharness.activations.rows import ActivationRows


class SideBySide:
    """Behaves like an (N, M, D) tensor that can only be sliced and read from; narrower parts are padded with zeros.

    Args:
        parts: as many rows each.
        order: which columns of all parts, counted through, come first, second, ...; left out: as they are.
    """

    def __init__(self, parts: Sequence[ActivationRows], order: Sequence[int] | None = None) -> None:
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"parts have {[len(part) for part in parts]} rows; they have to be of the same tokens")
        self._parts = list(parts)
        found = [(p, column) for p, part in enumerate(parts) for column in range(part.shape[1])]
        self._columns = [found[i] for i in order] if order is not None else found
        self._width = max(part.shape[2] for part in parts)
        self._dtype = parts[0].dtype
        for part in parts[1:]:
            self._dtype = torch.promote_types(self._dtype, part.dtype)

    def __len__(self) -> int:
        return len(self._parts[0])

    @property
    def shape(self) -> torch.Size:
        """(N, M, D)."""
        return torch.Size((len(self), len(self._columns), self._width))

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every column."""
        return tuple(self._parts[p].shape[2] for p, _ in self._columns)

    @property
    def device(self) -> torch.device:
        """Where slices are: the CPU."""
        return self._parts[0].device

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows of a slice of step 1."""
        pieces = [part[rows] for part in self._parts]
        out_NMD = torch.zeros((len(pieces[0]), *self.shape[1:]), dtype=self._dtype)
        self._put(pieces, out_NMD)
        return out_NMD

    def read_into(self, places: Tensor, out_NMD: Tensor) -> None:
        """Copy the rows in some places (n, 0-based) to `out_NMD`."""
        pieces = [torch.empty((len(places), *part.shape[1:]), dtype=part.dtype) for part in self._parts]
        for part, piece_NPD in zip(self._parts, pieces, strict=True):
            part.read_into(places, piece_NPD)
        out_NMD.zero_()
        self._put(pieces, out_NMD)

    def _put(self, pieces: Sequence[Tensor], out_NMD: Tensor) -> None:
        for m, (p, column) in enumerate(self._columns):
            piece_NPD = pieces[p]
            out_NMD[:, m, : piece_NPD.shape[2]] = piece_NPD[:, column]


def models_first(n_layers: int, n_models: int) -> list[int]:
    """The order of columns that puts all layers of a model together, from parts that are one a layer."""
    return [layer * n_models + model for model in range(n_models) for layer in range(n_layers)]
