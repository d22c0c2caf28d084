"""How fast stored pairs of activations are read in random order, and how well they are shuffled.

The field's present way is a DataLoader over a data set that reads one token an item: it looks up the shard, copies
the row out of each model's own memory map, and stacks the two. An easier one is measured beside it: one flat map that
holds just the pairs that are trained on, so that an item is a single indexing.

Legend: N tokens, M models, D width.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffharness.activations.corpus import Text
from diffharness.activations.store import ActivationStore, StoreSpec, write_store
from diffharness.crosscoder.batches import Activations, batches
from tests.benchmarks.timing import Spent, median_interval, ratio_figures, timed
from tests.benchmarks.workload import SIDES

LAYER = 1
TEXT_TOKENS = 128
BLOCK_TOKENS = 16
STATISTICS_WIDTH = 32


@dataclass(frozen=True)
class ReadingSizes:
    """How much is stored and read."""

    n_tokens: int = 60_000
    d_model: int = 2304
    batch_tokens: int = 1024
    n_batches: int = 48
    """Timed a turn, in multiples of what is read at once."""
    n_rounds: int = 9
    n_epochs: int = 6
    """Batches of so many epochs are looked at for the statistics."""


class _Shards(Dataset[Tensor]):
    """A token an item, from one memory map a model and shard (bfloat16 kept as int16, as numpy knows no other)."""

    def __init__(self, folder: Path, rows: Activations, n_shards: int) -> None:
        borders = np.linspace(0, len(rows), n_shards + 1).astype(int)
        self._borders = borders
        self._maps = []
        for start, stop in pairwise(borders.tolist()):
            numbers_NMD = rows[start:stop].view(torch.int16).numpy()
            files = [folder / f"map_{start}_{m}.bin" for m in range(numbers_NMD.shape[1])]
            for m, file in enumerate(files):
                numbers_NMD[:, m].tofile(file)
            shape = (stop - start, numbers_NMD.shape[2])
            self._maps.append([np.memmap(file, dtype=np.int16, mode="r", shape=shape) for file in files])

    def __len__(self) -> int:
        return int(self._borders[-1])

    def __getitem__(self, index: int) -> Tensor:
        shard = np.searchsorted(self._borders, index, side="right") - 1
        row = index - self._borders[shard]
        return torch.stack([torch.tensor(x_ND[row]).view(torch.bfloat16) for x_ND in self._maps[shard]])


class _Flat(Dataset[Tensor]):
    """A token an item, from one memory map of all pairs."""

    def __init__(self, folder: Path, rows: Activations) -> None:
        file, size = str(folder / "flat.bin"), rows.shape.numel()
        self.x_NMD = torch.from_file(file, shared=True, size=size, dtype=torch.bfloat16).view(rows.shape)
        for start in range(0, len(rows), TEXT_TOKENS):
            self.x_NMD[start : start + TEXT_TOKENS] = rows[start : start + TEXT_TOKENS]

    def __len__(self) -> int:
        return len(self.x_NMD)

    def __getitem__(self, index: int) -> Tensor:
        return self.x_NMD[index]


def reading_figures(sizes: ReadingSizes, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    """Ratio of tokens a second, read from warm pages, and the variance of batch means over a full shuffle's."""
    with tempfile.TemporaryDirectory() as scratch:
        store = _stored(Path(scratch), sizes, seed)
        rows = store.rows(SIDES, LAYER)
        shards, flat = _Shards(Path(scratch), rows, len(store.shards)), _Flat(Path(scratch), rows)
        say(f"reading: {len(rows)} tokens in {len(store.shards)} shards")
        figures = {"read_tokens": len(rows), "read_shards": len(store.shards), "read_bytes": flat.x_NMD.nbytes}
        figures |= _speed(rows, shards, flat, sizes, seed, say)
        figures |= _shuffling(rows, flat.x_NMD, sizes, seed)
    return figures


def _stored(folder: Path, sizes: ReadingSizes, seed: int) -> ActivationStore:
    """A store of random texts, in which half of a token's variance is its text's."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(SIDES), sizes.d_model)

    def read(texts: Sequence[Text]) -> Iterator[tuple[int, Mapping[int, Tensor]]]:
        for i, text in enumerate(texts):
            own = torch.randn(1, *shape, generator=generator)
            yield i, {LAYER: own + torch.randn(len(text.ids), *shape, generator=generator)}

    texts = [Text((i,) * TEXT_TOKENS, f"text {i}") for i in range(sizes.n_tokens // TEXT_TOKENS)]
    spec = StoreSpec(SIDES, (LAYER,), sizes.d_model, "bfloat16", dict.fromkeys(SIDES, "random"))
    write_store(folder, spec, texts, read)
    return ActivationStore.open(folder)


def _speed(
    rows: Activations, shards: _Shards, flat: _Flat, sizes: ReadingSizes, seed: int, say: Callable[[str], None]
) -> dict[str, float]:
    """All ways in turns, forwards and backwards.

    Each way has copied a batch's numbers to memory when it hands it out; one number of every token is summed.
    """

    def ours() -> Iterator[Tensor]:
        return batches(rows, sizes.batch_tokens, BLOCK_TOKENS, torch.Generator().manual_seed(seed))

    def token_by_token(data: Dataset[Tensor]) -> Iterator[Tensor]:
        order = torch.Generator().manual_seed(seed)
        loader = DataLoader(data, batch_size=sizes.batch_tokens, shuffle=True, drop_last=True, generator=order)
        return itertools.chain.from_iterable(itertools.repeat(loader))

    ways = {"ours": ours, "shards": lambda: token_by_token(shards), "flat": lambda: token_by_token(flat)}
    times: dict[str, list[Spent]] = {name: [] for name in ways}
    for number in range(-1, sizes.n_rounds):  # the first only warms up
        for name in list(ways) if number % 2 == 0 else reversed(ways):
            coming = ways[name]()
            _consume(coming, 2 * BLOCK_TOKENS)  # both halves of the memory that batches are read into
            _, spent = timed(lambda coming=coming: _consume(coming, sizes.n_batches))
            if number >= 0:
                times[name].append(spent)
        say(f"reading: round {number + 1} of {sizes.n_rounds}")
    n_tokens = sizes.n_batches * sizes.batch_tokens
    figures = {
        f"read_{name}_tokens_per_s": n_tokens / median_interval([s.wall_s for s in t])[0] for name, t in times.items()
    }
    return {
        **ratio_figures("read_ratio", times["shards"], times["ours"]),
        **ratio_figures("read_over_flat_map_ratio", times["flat"], times["ours"]),
        **figures,
    }


def _consume(coming: Iterator[Tensor], n_batches: int) -> float:
    return sum(float(x_BMD[:, :, 0].sum(dtype=torch.float64)) for x_BMD in itertools.islice(coming, n_batches))


def _shuffling(rows: Activations, flat_NMD: Tensor, sizes: ReadingSizes, seed: int) -> dict[str, float]:
    """Variance of the means of batches, and of as many successive batches as are read at once, over a full shuffle's.

    The means are of the first dimensions of both models; the variances are averaged over them.
    """
    n_batches = sizes.n_epochs * len(rows) // sizes.batch_tokens // BLOCK_TOKENS * BLOCK_TOKENS
    narrow_NF = flat_NMD[:, :, :STATISTICS_WIDTH].flatten(1).double()
    shuffles = (
        batch_N
        for epoch in itertools.count()
        for batch_N in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch)).split(
            sizes.batch_tokens
        )
        if len(batch_N) == sizes.batch_tokens
    )
    shuffled = torch.stack([narrow_NF[batch_N].mean(0) for batch_N in itertools.islice(shuffles, n_batches)])
    coming = batches(rows, sizes.batch_tokens, BLOCK_TOKENS, torch.Generator().manual_seed(seed))
    ours = torch.stack(
        [x_BMD[:, :, :STATISTICS_WIDTH].flatten(1).double().mean(0) for x_BMD in itertools.islice(coming, n_batches)]
    )
    figures = {}
    for name, n in (("batch_mean", 1), ("group_mean", BLOCK_TOKENS)):
        of_each = [means.unflatten(0, (-1, n)).mean(1).var(0).mean() for means in (ours, shuffled)]
        figures[f"{name}_variance_ratio"] = float(of_each[0] / of_each[1])
    return figures
