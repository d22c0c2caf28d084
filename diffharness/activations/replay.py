"""Replay: several models read the same sequences, and the activations come back side by side.

Legend: B sequences, T positions, M models, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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
    x: dict[int, Float[Tensor, "B T M D"]]
    """By layer."""

    @property
    def x_BTMD(self) -> Float[Tensor, "B T M D"]:
        """The activations at the only layer.

        Raises:
            ValueError: several layers were read.
        """
        (x_BTMD,) = self.x.values()
        return x_BTMD


def coded_positions(
    ids_BT: Int[Tensor, "B T"], lengths: Sequence[int], skipped_ids: Collection[int] = ()
) -> Bool[Tensor, "B T"]:
    """Which positions a code is computed for: all that are read but the first and those of some ids.

    Args:
        ids_BT: token ids, right-padded.
        lengths: tokens of each sequence.
        skipped_ids: ids to leave out, such as those of special tokens.
    """
    positions = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    coded_BT = (positions >= 1) & (positions < torch.tensor(lengths, device=ids_BT.device)[:, None])
    if skipped_ids:
        coded_BT &= ~torch.isin(ids_BT, torch.tensor(sorted(skipped_ids), device=ids_BT.device))
    return coded_BT


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
        read = [reader.read_layers(ids_BT) for reader in readers]
        x = {layer: torch.stack([r[layer].to(device) for r in read], dim=2) for layer in read[0]}
        yield PairedBatch(tuple(rows), ids_BT, tuple(len(sequences[i]) for i in rows), x)
        done += len(rows)
        if progress is not None:
            progress(done, len(sequences))
