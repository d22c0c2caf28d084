"""Replay: several models read the same sequences, and the activations come back side by side.

Legend: B sequences, T positions, M models, D width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import context_border
from diffharness.errors import RunError

BATCH_TOKENS = 8192
"""Padded tokens a batch on an accelerator, until memory proves too small for them."""

CPU_BATCH_TOKENS = 2048
"""The same on a CPU, where larger batches leave the caches (measured: 8192 take half as long again)."""

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
)
"""What a RuntimeError says, in lower case, when memory and nothing else is short: CPU, cuBLAS, other accelerators."""


@dataclass(frozen=True)
class PairedBatch:
    """Sequences with every model's activations on them."""

    rows: tuple[int, ...]
    """Places of the sequences in the list that was replayed."""
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


def distinct(sequences: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Every sequence once, in order of first appearance, and for each of `sequences` its place among them."""
    places: dict[tuple[int, ...], int] = {}
    of_each = [places.setdefault(tuple(ids), len(places)) for ids in sequences]
    return list(places), of_each


def batch_tokens(device: torch.device) -> int:
    """The padded tokens a batch that suit a device."""
    return CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS


def length_batches(
    lengths: Sequence[int], max_tokens: int = BATCH_TOKENS, borders: Collection[int] = ()
) -> list[list[int]]:
    """Positions grouped by similar length, longest first, at most `max_tokens` with padding a group.

    A sequence that is longer by itself makes a group of its own; no group has lengths on both sides of a border.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        crossed = any(lengths[row] <= border < longest for border in borders)
        if batches and not crossed and longest * (len(batches[-1]) + 1) <= max_tokens:
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
    max_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Iterator[PairedBatch]:
    """Let every model read every sequence once, in batches of similar length, longest first.

    Sequences may repeat: models read each distinct one once, and every place in `sequences` is in exactly one batch
    (who wants distinct ones only calls `distinct` first). Where memory is short a batch is read in halves, and the
    budget stays halved for all that follow.

    Args:
        readers: one a model, all of the same layers, in the order of the result's models.
        sequences: token ids, none empty.
        max_tokens: padded tokens a batch; by default `batch_tokens` of the first model's device.
        progress: called with (sequences done, all sequences).
        note: called with one sentence when the budget is halved for the first time.

    Yields:
        Batches on the device on which the first model takes its ids, in the dtype to which the models' dtypes promote
        (bfloat16 and float16 together give float32).

    Raises:
        RunError: a sequence is empty, or too long for the memory even by itself.
    """
    unique, of_each = distinct(sequences)
    if () in unique:
        raise RunError(f"sequence {of_each.index(unique.index(()))} to replay is empty; give at least one token each")
    places: list[list[int]] = [[] for _ in unique]
    for place, of in enumerate(of_each):
        places[of].append(place)
    budget = batch_tokens(readers[0].device) if max_tokens is None else max_tokens
    done = 0
    for rows, batch_BT, x in _read_all(readers, unique, budget, note):
        for part in _placed(places, rows, batch_BT, [len(unique[i]) for i in rows], x):
            yield part
            done += len(part.rows)
            if progress is not None:
                progress(done, len(sequences))


def _read_all(
    readers: Sequence[LayerReader], unique: list[tuple[int, ...]], budget: int, note: Callable[[str], None] | None
) -> Iterator[tuple[list[int], Tensor, dict[int, Tensor]]]:
    """Rows, ids and activations of each batch; the budget halves whenever a batch does not fit into memory."""
    borders = {border for reader in readers if (border := context_border(reader.model)) is not None}
    left = deque(length_batches([len(ids) for ids in unique], budget, borders))
    noted = False
    while left:
        ids_BT = pad([unique[i] for i in left[0]], readers[0].device)
        x = _read_if_it_fits(readers, ids_BT)
        if x is not None:
            yield left.popleft(), ids_BT, x
            continue
        if len(left[0]) == 1:
            raise RunError(
                f"memory does not hold one sequence of {ids_BT.shape[1]} tokens; "
                "lower max_length in the model arguments, load the models in bfloat16 or use a larger device"
            )
        budget = ids_BT.numel() // 2
        rows = [i for batch in left for i in batch]
        smaller = length_batches([len(unique[i]) for i in rows], budget, borders)
        left = deque([rows[i] for i in batch] for batch in smaller)
        if note is not None and not noted:
            note(f"memory does not hold {ids_BT.numel()} tokens a batch; replay goes on with batches of half the size")
            noted = True


def _read_if_it_fits(readers: Sequence[LayerReader], ids_BT: Tensor) -> dict[int, Tensor] | None:
    """Activations by layer, or None (and nothing kept) where memory is short."""
    try:
        read = [reader.read_layers(ids_BT) for reader in readers]
        return {layer: _side_by_side([r[layer] for r in read], ids_BT.device) for layer in read[0]}
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def _side_by_side(states: list[Tensor], device: torch.device) -> Float[Tensor, "B T M D"]:
    dtype = states[0].dtype
    for state in states[1:]:
        dtype = torch.promote_types(dtype, state.dtype)
    return torch.stack([state.to(device, dtype) for state in states], dim=2)


def _placed(
    places: list[list[int]], rows: list[int], ids_BT: Tensor, lengths: list[int], x: dict[int, Tensor]
) -> Iterator[PairedBatch]:
    """The batch at its sequences' first places, then copies for places where they repeat, none larger than it."""
    yield PairedBatch(tuple(places[i][0] for i in rows), ids_BT, tuple(lengths), x)
    again = [(place, at) for at, i in enumerate(rows) for place in places[i][1:]]
    for start in range(0, len(again), len(rows)):
        part = again[start : start + len(rows)]
        at = [a for _, a in part]
        yield PairedBatch(
            tuple(place for place, _ in part),
            ids_BT[at],
            tuple(lengths[a] for a in at),
            {k: v[at] for k, v in x.items()},
        )
