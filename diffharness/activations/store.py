"""The on-disk store of paired activations: safetensors shards and a Parquet index of the texts they are from.

Only coded positions are stored (the first position of a sequence has no code). Legend: N tokens, M models, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffharness.activations.corpus import Text
from diffharness.activations.replay import PairedBatch, coded_positions
from diffharness.errors import RunError

SHARD_TOKENS = 1 << 16


class StoreWriter:
    """Writes replayed batches into a folder, a shard at a time; each shard and the index appear whole.

    Args:
        folder: an existing folder.
        sides: names of the models, in order.
        layer: the layer that was read.
        texts: the sequences that are replayed.
    """

    def __init__(self, folder: Path, *, sides: Sequence[str], layer: int, texts: Sequence[Text]) -> None:
        self.folder = folder
        self.sides = tuple(sides)
        self.layer = layer
        self.texts = texts
        self._pending: list[Tensor] = []
        self._n_pending = 0
        self._n_written = 0
        self._shards: list[str] = []
        self._index: list[tuple[int, int, int]] = []

    def add(self, batch: PairedBatch) -> None:
        """Append the coded positions of every sequence of a batch."""
        start = self._n_written + self._n_pending
        for text, length in zip(batch.rows, batch.lengths, strict=True):
            self._index.append((text, start, length - 1))
            start += length - 1
        self._pending.append(batch.x_BTMD[coded_positions(batch.ids_BT, batch.lengths)].float().cpu())
        self._n_pending += len(self._pending[-1])
        if self._n_pending >= SHARD_TOKENS:
            self._flush()

    def add_text(self, text: int, x_NMD: Float[Tensor, "N M D"]) -> None:
        """Append one text's coded positions, as an `ActivationStore` holds them."""
        self._index.append((text, self._n_written + self._n_pending, len(x_NMD)))
        self._pending.append(x_NMD)
        self._n_pending += len(x_NMD)
        if self._n_pending >= SHARD_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        name = f"shard_{len(self._shards):05d}.safetensors"
        partial = self.folder / f"{name}.partial"
        save_file({"x_NMD": torch.cat(self._pending).contiguous()}, partial)
        partial.replace(self.folder / name)
        self._shards.append(name)
        self._n_written += self._n_pending
        self._pending, self._n_pending = [], 0

    def finish(self) -> list[Path]:
        """Write what is left and the index; the files of the store."""
        self._flush()
        table = pa.table(
            {
                "start": [start for _, start, _ in self._index],
                "length": [length for _, _, length in self._index],
                "source": [self.texts[text].source for text, _, _ in self._index],
                "ids": pa.array([list(self.texts[text].ids) for text, _, _ in self._index], pa.list_(pa.int32())),
            }
        ).replace_schema_metadata(
            {"diffharness": json.dumps({"sides": self.sides, "layer": self.layer, "shards": self._shards})}
        )
        partial = self.folder / "index.parquet.partial"
        pq.write_table(table, partial)
        partial.replace(self.folder / "index.parquet")
        return [self.folder / "index.parquet", *(self.folder / name for name in self._shards)]


@dataclass(frozen=True)
class ActivationStore:
    """Activations of several models on the same tokens, text by text."""

    sides: tuple[str, ...]
    layer: int
    x_NMD: Float[Tensor, "N M D"]
    starts: np.ndarray
    """First row of each text."""
    texts: tuple[Text, ...]
    """Text i owns rows `starts[i] … starts[i] + len(ids) − 2`: its positions from the second on."""

    @classmethod
    def open(cls, folder: Path) -> ActivationStore:
        """Open what a `StoreWriter` wrote.

        Raises:
            RunError: a file is absent or damaged.
        """
        try:
            table = pq.read_table(folder / "index.parquet")
            header = json.loads(table.schema.metadata[b"diffharness"])
            shards = [load_file(folder / name)["x_NMD"] for name in header["shards"]]
        except (OSError, pa.ArrowException, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder} does not hold activations ({error}); delete it and run again") from error
        texts = tuple(
            Text(tuple(ids), source)
            for ids, source in zip(table["ids"].to_pylist(), table["source"].to_pylist(), strict=True)
        )
        x_NMD = shards[0] if len(shards) == 1 else torch.cat(shards)
        return cls(tuple(header["sides"]), header["layer"], x_NMD, table["start"].to_numpy(), texts)

    def of(self, sides: Sequence[str]) -> Float[Tensor, "N M D"]:
        """The activations of some of the models, in the order asked for."""
        columns = [self.sides.index(side) for side in sides]
        if columns == list(range(len(self.sides))):
            return self.x_NMD
        return self.x_NMD[:, columns]

    def rows_of(self, text: int) -> Float[Tensor, "N M D"]:
        """The activations of one text."""
        start = int(self.starts[text])
        return self.x_NMD[start : start + len(self.texts[text].ids) - 1]

    def text_of_token(self) -> np.ndarray:
        """The text that each row belongs to, (N,)."""
        return np.repeat(np.arange(len(self.texts)), [len(text.ids) - 1 for text in self.texts])

    def heldout(self, share: float, rng: np.random.Generator) -> np.ndarray:
        """A mask of the rows (N,) that belong to a random share of the texts, at least one text either side."""
        n = len(self.texts)
        count = min(max(1, round(share * n)), n - 1)
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.permutation(n)[:count]] = True
        return chosen[self.text_of_token()]
