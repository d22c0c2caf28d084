"""The on-disk store of paired activations: safetensors shards and a Parquet index of the texts they are from.

Every position that was read is stored. Shards are planned before anything is read, each holds whole texts and says
in its header what plan it belongs to and what its numbers hash to; so a store that was cut off goes on with the first
shard that is missing or damaged. Legend: N tokens, T positions, M models, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from diffharness.activations.corpus import Text
from diffharness.activations.rows import ActivationRows, coded_ranges
from diffharness.activations.shards import open_shard, shard_digest, write_shard
from diffharness.errors import RunError

SHARD_TOKENS = 1 << 16
SHARD_BYTES = 64 << 20
"""A shard ends with the text that reaches either."""
INDEX_TEXTS = 256
"""Texts that are packed at a time."""
FORMAT = "diffharness-activations/1"
DTYPES = ("float32", "bfloat16", "float16")

_INDEX = pa.schema([("start", pa.int64()), ("source", pa.string()), ("ids", pa.list_(pa.int32()))])

Read = Callable[[Sequence[Text]], Iterator[tuple[int, Mapping[int, Float[Tensor, "T M D"]]]]]
"""Reads texts: yields, in any order, a text's place in the list and its activations by layer, all positions."""


@dataclass(frozen=True)
class StoreSpec:
    """What a store holds, apart from the texts."""

    sides: tuple[str, ...]
    """Names of the models, in order."""
    layers: tuple[int, ...]
    """0-based decoder blocks."""
    d_model: int
    dtype: str
    """One of `DTYPES`."""
    models: Mapping[str, str]
    """Each side's fingerprint of weights."""
    special_ids: tuple[int, ...] = ()
    """Ids of special tokens, so that their positions can be left out."""

    @property
    def token_bytes(self) -> int:
        """What one token takes at all layers."""
        return len(self.layers) * len(self.sides) * self.d_model * torch_dtype(self.dtype).itemsize


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name."""
    return getattr(torch, name)


def write_store(
    folder: Path,
    spec: StoreSpec,
    texts: Sequence[Text],
    read: Read,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write all texts' activations; shards of an earlier attempt that are whole are kept.

    Args:
        folder: an existing folder, empty or left by an earlier attempt.
        spec: what is stored.
        texts: the sequences, in the order that they are stored in.
        read: reads some of the texts with all models.
        progress: called with (texts stored, all texts).

    Raises:
        RunError: an activation is not finite in the store's dtype.
    """
    shards = []
    for number, (first, stop) in enumerate(_plan(spec, texts)):
        file = folder / f"shard_{number:05d}.safetensors"
        some = texts[first:stop]
        plan = _plan_hash(spec, some)
        digest = _whole_digest(file, spec, plan)
        if digest is None:
            report = (lambda n, before=first: progress(before + n, len(texts))) if progress else None
            starts = np.cumsum([0, *(len(text.ids) for text in some)])
            shape = (int(starts[-1]), len(spec.sides), spec.d_model)
            rows = _rows(spec, some, starts, read, report)
            digest = write_shard(file, plan, spec.layers, shape, torch_dtype(spec.dtype), rows)
        elif progress is not None:
            progress(stop, len(texts))
        shards.append({"name": file.name, "n_rows": sum(len(t.ids) for t in some), "plan": plan, "sha256": digest})
    _write_index(folder / "index.parquet", spec, texts, shards)


def write_texts(folder: Path, spec: StoreSpec, texts: Sequence[Text]) -> None:
    """Write the index alone: the texts of activations that are streamed."""
    _write_index(folder / "index.parquet", spec, texts, [])


def _plan(spec: StoreSpec, texts: Sequence[Text]) -> list[tuple[int, int]]:
    """First text and end of each shard."""
    target = max(1, min(SHARD_TOKENS, SHARD_BYTES // spec.token_bytes))
    shards, first, n_tokens = [], 0, 0
    for i, text in enumerate(texts):
        n_tokens += len(text.ids)
        if n_tokens >= target or i == len(texts) - 1:
            shards.append((first, i + 1))
            first, n_tokens = i + 1, 0
    return shards


def _plan_hash(spec: StoreSpec, texts: Sequence[Text]) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(spec)], sort_keys=True).encode())
    for text in texts:
        digest.update(np.asarray([len(text.ids), *text.ids], dtype="<i4").tobytes())
    return digest.hexdigest()


def _rows(
    spec: StoreSpec, texts: Sequence[Text], starts: np.ndarray, read: Read, report: Callable[[int], None] | None
) -> Iterator[tuple[int, int, Tensor]]:
    """Layer, first row and rows of every text, in the store's dtype."""
    dtype = torch_dtype(spec.dtype)
    for done, (i, found) in enumerate(read(texts), start=1):
        for layer in spec.layers:
            rows_TMD = found[layer].to(device="cpu", dtype=dtype)
            if not torch.isfinite(rows_TMD).all():
                raise RunError(
                    f"activations of layer {layer} on {texts[i].source} are not finite in {spec.dtype}; choose "
                    "another --activation-dtype (bfloat16 reaches as far as float32), or check the models' weights"
                )
            yield layer, int(starts[i]), rows_TMD
        if report is not None:
            report(done)


def _whole_digest(file: Path, spec: StoreSpec, plan: str) -> str | None:
    """The digest of a shard that stands, whole, for this plan; else none."""
    if not file.is_file():
        return None
    try:
        header, x = open_shard(file)
    except (SafetensorError, OSError):
        return None
    if header.plan != plan or tuple(sorted(x)) != spec.layers:
        return None
    return header.sha256 if shard_digest(file) == header.sha256 else None


def _write_index(file: Path, spec: StoreSpec, texts: Sequence[Text], shards: list[dict[str, Any]]) -> None:
    header = {"format": FORMAT, "spec": asdict(spec), "shards": shards, "texts": _texts_digest(texts)}
    schema = _INDEX.with_metadata({"diffharness": json.dumps(header)})
    partial = file.with_suffix(".partial")
    start = 0
    with pq.ParquetWriter(partial, schema) as writer:
        for first in range(0, len(texts), INDEX_TEXTS):
            some = texts[first : first + INDEX_TEXTS]
            lengths = [len(text.ids) for text in some]
            columns = [
                start + np.cumsum([0, *lengths[:-1]]), [text.source for text in some], [text.ids for text in some]
            ]  # fmt: skip
            writer.write_table(pa.table(columns, schema=schema))
            start += sum(lengths)
    partial.replace(file)


def _texts_digest(texts: Sequence[Text]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{text.source}\n".encode() + np.asarray(text.ids, dtype="<i4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ActivationStore:
    """Activations of several models on the same tokens, text by text, memory-mapped."""

    folder: Path
    spec: StoreSpec
    texts: tuple[Text, ...]
    starts: np.ndarray
    """First row of each text; text i owns rows `starts[i] … starts[i] + len(ids) − 1`, a row a position."""
    shards: tuple[Mapping[str, Any], ...]
    """Name, number of rows, plan and SHA-256 of each."""

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> ActivationStore:
        """Open what `write_store` wrote.

        Args:
            folder: the store's folder.
            verify: read every shard once and compare its checksum; otherwise only the index is checked.

        Raises:
            RunError: a file is absent, cut off or altered; names it.
        """
        file = folder / "index.parquet"
        try:
            table = pq.read_table(file)
            header = json.loads((table.schema.metadata or {})[b"diffharness"])
            spec = _spec(header["spec"])
            texts = tuple(
                Text(tuple(ids), source)
                for ids, source in zip(table["ids"].to_pylist(), table["source"].to_pylist(), strict=True)
            )
            store = cls(folder, spec, texts, table["start"].to_numpy(), tuple(header["shards"]))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file} is no index of activations ({error}); {REMEDY}") from error
        if header.get("format") != FORMAT or _texts_digest(texts) != header["texts"]:
            raise RunError(f"{file} was altered or is of another version; {REMEDY}")
        problem = next(store.problems(), None) if verify else None
        if problem is not None:
            raise RunError(f"{problem}; {REMEDY}")
        return store

    def problems(self) -> Iterator[str]:
        """What is wrong with the shards, one sentence each, as they are found."""
        for shard in self.shards:
            file = self.folder / shard["name"]
            try:
                header, x = open_shard(file)
            except (SafetensorError, OSError) as error:
                yield f"{file} is absent or cut off ({error})"
                continue
            shape = (shard["n_rows"], len(self.spec.sides), self.spec.d_model)
            if header.plan != shard["plan"]:
                yield f"{file} belongs to other texts, models or layers"
            elif any(tuple(x_NMD.shape) != shape for x_NMD in x.values()) or shard_digest(file) != shard["sha256"]:
                yield f"{file} was altered since it was written (its checksum differs)"

    @property
    def n_tokens(self) -> int:
        """Positions stored."""
        return sum(shard["n_rows"] for shard in self.shards)

    def rows(
        self,
        sides: Sequence[str],
        layer: int,
        texts: Sequence[int] | None = None,
        skipped_ids: frozenset[int] = frozenset(),
    ) -> ActivationRows:
        """The coded positions of some texts (all by default), in the store's order.

        Args:
            sides: the models, in the order asked for.
            layer: one of the store's.
            texts: ascending indices.
            skipped_ids: ids whose positions are left out.
        """
        chosen = range(len(self.texts)) if texts is None else texts
        ranges = [coded_ranges(int(self.starts[i]), self.texts[i].ids, skipped_ids) for i in chosen]
        return self._rows(sides, layer, np.concatenate([np.empty((0, 2), dtype=np.int64), *ranges]))

    def text(self, text: int, layer: int) -> Float[Tensor, "T M D"]:
        """The activations of one text, all positions, all models."""
        start = int(self.starts[text])
        return self._rows(self.spec.sides, layer, np.array([[start, start + len(self.texts[text].ids)]]))[:]

    def _rows(self, sides: Sequence[str], layer: int, ranges: np.ndarray) -> ActivationRows:
        return ActivationRows([x[layer] for x in self._maps], ranges, [self.spec.sides.index(side) for side in sides])

    @cached_property
    def _maps(self) -> list[dict[int, Tensor]]:
        """Every shard's numbers by layer, memory-mapped."""
        return [open_shard(self.folder / shard["name"])[1] for shard in self.shards]


def _spec(body: dict[str, Any]) -> StoreSpec:
    """A specification from the JSON of its `asdict`."""
    tuples = {name: tuple(body[name]) for name in ("sides", "layers", "special_ids")}
    return StoreSpec(**{**body, **tuples})


REMEDY = "delete it, and the command that made it writes it again"
