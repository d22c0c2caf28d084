"""Replay: several models read the same sequences, and the activations come back side by side.

Legend: B sequences, T positions, M models, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffharness.activations.capture import LayerReader

BATCH_TOKENS = 8192
"""Padded tokens a batch."""


@dataclass(frozen=True)
class PairedBatch:
    """Sequences with every model's activations on them."""

    rows: tuple[int, ...]
    """Positions of the sequences in the list that was replayed."""
    ids_BT: Int[Tensor, "B T"]
    lengths: tuple[int, ...]
    x_BTMD: Float[Tensor, "B T M D"]

    def coded(self) -> Tensor:
        """Which positions a code is computed for, (B, T): all that are read but the first."""
        positions = torch.arange(self.ids_BT.shape[1], device=self.ids_BT.device)
        lengths = torch.tensor(self.lengths, device=self.ids_BT.device)
        return (positions[None, :] >= 1) & (positions[None, :] < lengths[:, None])


def length_batches(lengths: Sequence[int], max_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Positions grouped by similar length, longest first, at most `max_tokens` with padding a group."""
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and longest * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(row)
        else:
            longest = lengths[row]
            batches.append([row])
    return batches


def pad(sequences: Sequence[Sequence[int]], device: torch.device | str) -> Int[Tensor, "B T"]:
    """Right-padded ids (padding is 0, as lm-eval pads)."""
    ids_BT = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, ids in enumerate(sequences):
        ids_BT[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return ids_BT.to(device)


def replay(
    readers: Sequence[LayerReader],
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[PairedBatch]:
    """Let every model read every sequence, in batches of similar length.

    Args:
        readers: one a model, in the order of the result's models.
        sequences: token ids.
        max_tokens: padded tokens a batch.
        progress: called with (sequences done, all sequences).
    """
    device = next(readers[0].model.parameters()).device
    done = 0
    for rows in length_batches([len(s) for s in sequences], max_tokens):
        ids_BT = pad([sequences[i] for i in rows], device)
        x_BTMD = torch.stack([reader.read(ids_BT).to(device) for reader in readers], dim=2)
        yield PairedBatch(tuple(rows), ids_BT, tuple(len(sequences[i]) for i in rows), x_BTMD)
        done += len(rows)
        if progress is not None:
            progress(done, len(sequences))
