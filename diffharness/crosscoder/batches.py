"""Training batches: shuffled blocks of neighbouring tokens, never a copy of the whole data.

Legend: N tokens, M models, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def batches(
    x_NMD: Float[Tensor, "N M D"], batch_tokens: int, block_tokens: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "batch M D"]]:
    """Endless batches of `batch_tokens` (all tokens, where there are fewer), raw, in the data's dtype.

    Each epoch cuts the tokens into blocks from a new random offset and deals them out in a new order; a
    batch may span two epochs. The tokens before the offset and after the last whole block wait for the next
    epoch.
    """
    batch_tokens = min(batch_tokens, len(x_NMD))
    block_tokens = min(block_tokens, batch_tokens)
    blocks_per_batch = batch_tokens // block_tokens
    inside = torch.arange(block_tokens)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < blocks_per_batch:
            waiting = torch.cat([waiting, _block_starts(len(x_NMD), block_tokens, generator)])
        starts, waiting = waiting[:blocks_per_batch], waiting[blocks_per_batch:]
        yield x_NMD[(starts[:, None] + inside).flatten()]


def _block_starts(n_tokens: int, block_tokens: int, generator: torch.Generator) -> Tensor:
    """First tokens of one epoch's blocks, shuffled."""
    n_blocks = n_tokens // block_tokens
    spare = n_tokens - n_blocks * block_tokens
    offset = int(torch.randint(spare + 1, (), generator=generator))
    return offset + block_tokens * torch.randperm(n_blocks, generator=generator)
