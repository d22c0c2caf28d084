"""A checksum of a table's rows, whatever file or chunks they lie in."""

# pyarrow makes its compute functions when it is imported.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def table_digest(table: pa.Table) -> bytes:
    """BLAKE2b (hex) over names, types, nulls, lengths and values of every column, however the rows are chunked."""
    whole = hashlib.blake2b(digest_size=16)
    for field in table.schema:
        whole.update(f"{field.name}:{field.type};".encode())
        parts = [hashlib.blake2b(digest_size=16) for _ in range(3)]
        for chunk in table[field.name].chunks:
            for part, content in zip(parts, _contents(chunk), strict=True):
                part.update(content)
        for part in parts:
            whole.update(part.digest())
    return whole.hexdigest().encode()


def _contents(chunk: Any) -> Iterator[bytes]:
    """Which values there are, how long they are, and the values: each of them row by row."""
    yield _bytes(chunk.is_valid())
    if pa.types.is_list(chunk.type):
        yield _bytes(pc.list_value_length(chunk))
        yield _bytes(chunk.flatten())
    elif pa.types.is_string(chunk.type):
        yield _bytes(pc.binary_length(chunk))
        yield "".join(chunk.fill_null("").to_pylist()).encode()
    else:
        yield b""
        yield _bytes(chunk)


def _bytes(values: Any) -> bytes:
    """The numbers of an array, little-endian; nulls as 0."""
    empty = False if pa.types.is_boolean(values.type) else 0
    numbers = values.fill_null(empty).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(numbers).astype(numbers.dtype.newbyteorder("<")).tobytes()
