"""Files that are written whole or not at all, and models as JSON: light enough for a check in CI."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def put(path: Path, content: bytes) -> Path:
    """Write a file beside its name and then put it in its place. Raises OSError where that can not be done."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def to_json(model: BaseModel) -> str:
    """A model as text: numbers that JSON does not have become `null`, half code points `U+FFFD`."""
    plain = _jsonable(model.model_dump(mode="python"))
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_jsonable(str(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace" if value.isascii() else "surrogatepass").decode("utf-8", "replace")
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)
