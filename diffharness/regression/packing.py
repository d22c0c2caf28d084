"""Numbers and hashes of many documents as short text: zlib over columns, in base 85 (RFC 1924).

Its letters stand in JSON as they are. Legend: N documents, C numbers a document.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np

_INTEGERS = ("u1", "<u2", "<u4")
_DTYPES = (*_INTEGERS, "<f4")


def pack_numbers(values_NC: np.ndarray) -> list[str]:
    """A text a column: `dtype:data`, whole numbers exactly, others in single precision."""
    return [_pack_column(np.ascontiguousarray(values_NC[:, c])) for c in range(values_NC.shape[1])]


def unpack_numbers(columns: Sequence[str], n: int) -> np.ndarray:
    """What `pack_numbers` packed, of `n` documents.

    Raises `ValueError` where a column is none, or of another length.
    """
    found = []
    for text in columns:
        dtype, _, data = text.partition(":")
        if dtype not in _DTYPES:
            raise ValueError(f"{dtype!r} is no type of a column")
        values = np.frombuffer(_unpacked(data, n * np.dtype(dtype).itemsize), dtype=dtype).astype(np.float64)
        if len(values) != n or not np.isfinite(values).all():
            raise ValueError(f"a column holds {len(values)} numbers of {n} documents, or not all are numbers")
        found.append(values)
    return np.stack(found, axis=1) if found else np.empty((n, 0))


def pack_hashes(hashes: Sequence[bytes]) -> str:
    """Hashes of one length, one after another."""
    return base64.b85encode(b"".join(hashes)).decode("ascii")


def unpack_hashes(text: str, n: int, width: int) -> tuple[bytes, ...]:
    """What `pack_hashes` packed: `n` hashes of `width` bytes.

    Raises `ValueError` where they are not.
    """
    data = base64.b85decode(text)
    if len(data) != n * width:
        raise ValueError(f"hashes of {len(data) / width:g} documents, not of {n}")
    return tuple(data[i * width : (i + 1) * width] for i in range(n))


def _pack_column(values_N: np.ndarray) -> str:
    whole = bool((values_N == np.round(values_N)).all()) and values_N.min(initial=0) >= 0
    fitting = [d for d in _INTEGERS if whole and values_N.max(initial=0) <= np.iinfo(d).max]
    dtype = fitting[0] if fitting else "<f4"
    data = zlib.compress(values_N.astype(dtype).tobytes(), 9)
    return f"{dtype}:{base64.b85encode(data).decode('ascii')}"


def _unpacked(text: str, n_bytes: int) -> bytes:
    """The bytes behind a text; a file from elsewhere can not make them more than is asked for."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b85decode(text), n_bytes + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"a column can not be unpacked ({error})") from error
    if len(data) != n_bytes:
        raise ValueError("a column of another length")
    return data
