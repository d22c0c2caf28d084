"""Training batches: neighbouring tokens are read together and dealt out over several batches.

A group of G batches is filled from as many blocks of G neighbouring tokens as a batch has tokens: token g of every
block goes to batch g. So what is read lies together, in ascending order, each token is copied once, and no two tokens
of a batch are from the same block. The next group is read in the background.

Legend: N tokens, M models, D width, G batches of a group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

GROUP_BYTES = 128 << 20
"""Memory that a group may take; there are two at a time."""


class Activations(Protocol):
    """What a crosscoder is trained on and measured with: a tensor (N, M, D), or what can be sliced like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...

    @property
    def shape(self) -> torch.Size:
        """(N, M, D)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where slices are."""
        ...


@runtime_checkable
class Mapped(Activations, Protocol):
    """Activations on disk, of which rows in any places are read into given memory."""

    def read_into(self, places: Tensor, out_NMD: Tensor) -> None:
        """Fill `out_NMD` with the rows in some places."""
        ...


@runtime_checkable
class Shuffling(Protocol):
    """Activations that bring their own shuffled batches, because reading them in random places is dear."""

    def batches(self, batch_tokens: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Endless batches (batch, M, D)."""
        ...


def batches(
    x_NMD: Activations, batch_tokens: int, block_tokens: int, generator: torch.Generator, *, skip: int = 0
) -> Iterator[Float[Tensor, "batch M D"]]:
    """Endless batches of `batch_tokens` (all tokens, where there are fewer), raw, in the data's dtype.

    A batch's memory is used again: it holds good until the next one is drawn, and who keeps it longer clones it.

    Each epoch cuts the tokens, as a ring, into blocks of at most `block_tokens` from a new random place on and deals
    them out in a new order; a group of batches may span two epochs, and less than a block is left out of an epoch.
    Randomness is drawn by the caller's thread, so the order depends on the generator alone. The first `skip` batches
    are left out, mostly without being read, as a training that goes on needs it.
    """
    batch_tokens = min(batch_tokens, len(x_NMD))
    if isinstance(x_NMD, Shuffling):
        yield from itertools.islice(x_NMD.batches(batch_tokens, generator), skip, None)
    first_MD = x_NMD[:1]
    fits = GROUP_BYTES // max(1, batch_tokens * first_MD.numel() * first_MD.element_size())
    # Rows in memory are as cheap one by one.
    n_group = 1 if isinstance(x_NMD, Tensor) else max(1, min(block_tokens, len(x_NMD) // batch_tokens, fits))
    starts = _block_starts(len(x_NMD), n_group, batch_tokens, generator)
    starts = itertools.islice(starts, skip // n_group, None)
    groups = itertools.cycle([[_empty_batch(first_MD, batch_tokens) for _ in range(n_group)] for _ in range(2)])
    with ThreadPoolExecutor(1, thread_name_prefix="activations") as reader:
        coming = reader.submit(_read_group, x_NMD, next(starts), next(groups))
        while True:
            group = coming.result()
            coming = reader.submit(_read_group, x_NMD, next(starts), next(groups))
            yield from group[skip % n_group :]
            skip = 0


def _empty_batch(like_NMD: Tensor, batch_tokens: int) -> Tensor:
    return torch.empty((batch_tokens, *like_NMD.shape[1:]), dtype=like_NMD.dtype, device=like_NMD.device)


def _read_group(x_NMD: Activations, starts_B: Tensor, group: list[Tensor]) -> list[Float[Tensor, "batch M D"]]:
    """Fill the group's batches, whose memory was used before: touching new memory costs more than reading."""
    n_tokens = len(x_NMD)
    for g, out_BMD in enumerate(group):
        places_B = (starts_B + g) % n_tokens
        if isinstance(x_NMD, Tensor):
            torch.index_select(x_NMD, 0, places_B.to(x_NMD.device), out=out_BMD)
        elif isinstance(x_NMD, Mapped):
            x_NMD.read_into(places_B, out_BMD)
        else:
            raise TypeError(f"{type(x_NMD).__name__} is no tensor, not mapped, and brings no batches of its own")
    return group


def _block_starts(n_tokens: int, block: int, n_blocks: int, generator: torch.Generator) -> Iterator[Tensor]:
    """First tokens of the blocks of one group after the other, shuffled epoch by epoch, ascending within a group."""
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < n_blocks:
            offset = int(torch.randint(n_tokens, (), generator=generator))
            epoch = offset + block * torch.randperm(n_tokens // block, generator=generator)
            waiting = torch.cat([waiting, epoch % n_tokens])
        yield waiting[:n_blocks].sort().values
        waiting = waiting[n_blocks:]
