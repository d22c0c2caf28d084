"""One shard of a store: a safetensors file that is written row by row, so that nothing is gathered in memory.

Its header says what plan it belongs to and what its numbers hash to. Legend: T positions, N rows, M models, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself."""

    plan: str
    sha256: str
    """Of its numbers, layer after layer."""

    def to_json(self) -> str:
        """The text that stands in the file's metadata; its length does not depend on the digest."""
        return json.dumps({"plan": self.plan, "sha256": self.sha256})


def write_shard(
    file: Path,
    plan: str,
    layers: tuple[int, ...],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    rows: Iterable[tuple[int, int, Float[Tensor, "T M D"]]],
) -> str:
    """Write a shard under another name first, then move it into its place.

    Args:
        file: where.
        plan: what it belongs to.
        layers: ascending.
        shape: (N, M, D), the same for all layers.
        dtype: of what is stored.
        rows: layer, first row, and rows in that dtype; together all rows of all layers.

    Returns:
        The SHA-256 of its numbers.
    """
    row_bytes = shape[1] * shape[2] * dtype.itemsize
    layer_bytes = shape[0] * row_bytes
    places = {layer: number * layer_bytes for number, layer in enumerate(layers)}
    entries = {
        f"layer_{layer}": {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [at, at + layer_bytes]}
        for layer, at in places.items()
    }
    blank = _header(entries, ShardHeader(plan, "0" * 64))
    partial = file.with_suffix(".partial")
    with partial.open("w+b") as stream:
        stream.write(blank)
        for layer, first, rows_TMD in rows:
            stream.seek(len(blank) + places[layer] + first * row_bytes)
            stream.write(rows_TMD.contiguous().view(torch.uint8).numpy().data)
        stream.flush()
        stream.seek(len(blank))
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
        stream.seek(0)
        stream.write(_header(entries, ShardHeader(plan, digest.hexdigest())))
    partial.replace(file)
    return digest.hexdigest()


def _header(entries: dict[str, dict[str, object]], header: ShardHeader) -> bytes:
    """The beginning of a safetensors file: its header's length, and the header, padded to 8 bytes."""
    text = json.dumps({"__metadata__": {"diffharness": header.to_json()}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def open_shard(file: Path) -> tuple[ShardHeader, dict[int, Float[Tensor, "N M D"]]]:
    """A shard's header, and its numbers by layer, memory-mapped.

    Raises:
        OSError, SafetensorError: the file is absent, cut off, or no shard.
    """
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get("diffharness")
        names = [name for name in opened.keys() if name.startswith("layer_")]  # noqa: SIM118 (not a dict)
        if text is None or not names:
            raise SafetensorError("not a shard of activations")
        body = json.loads(text)
        return (
            ShardHeader(body["plan"], body["sha256"]),
            {int(name.removeprefix("layer_")): opened.get_tensor(name) for name in names},
        )


def shard_digest(file: Path) -> str:
    """SHA-256 of a shard's numbers, as they are on disk."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
