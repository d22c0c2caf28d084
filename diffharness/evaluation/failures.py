"""What a library's failure to load a model means to a user: one line, with the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CUSTOM_CODE = re.compile(r"The repository (.*?) (?:contains|references) custom code")
_KNOWN = (
    (
        r"unexpected keyword argument '(\w+)'",
        r"\1 is an argument neither of lm-eval's `hf` nor of this model; leave it out",
    ),
    (
        r"ignore_mismatched_sizes",
        "its weights have other shapes than its config.json says; take both from one checkpoint",
    ),
    (
        r"Unrecognized configuration class <class '[\w.]*?(\w+)'>",
        r"\1 is of no causal language model; only those can be compared",
    ),
)
"""Failures that say what is wrong in words of their own library, and what to say instead."""

_REMEDIES = (
    (r"no file named|does not appear to have a file|no such file", "copy it there, or download the model again"),
    (
        r"out of memory|can't allocate memory|not enough memory",
        "give dtype=bfloat16, device_map=auto or another device",
    ),
    (r"couldn't connect to", "give a model folder, or the id of a model within reach"),
    (r"gated repo", "ask for access on its page and log in with `hf auth login`"),
    (r"not a valid JSON", "copy or download it again"),
    (r"does not recognize this architecture", "install a newer transformers, or take another model"),
)
"""Failures that name the thing themselves, and what can be done."""


def first_line(error: BaseException) -> str:
    """An error's first line; with the next one, where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line.removesuffix(".")


def explain(error: BaseException) -> str:
    """A library's failure to load something, and the remedy where there is one."""
    text = str(error)
    if code := _CUSTOM_CODE.search(text):
        return (
            f"{code[1]} comes with custom code; add trust_remote_code=True to the model arguments, if you trust its "
            "authors"
        )
    for pattern, instead in _KNOWN:
        if found := re.search(pattern, text):
            return found.expand(instead)
    remedy = next((f"; {r}" for pattern, r in _REMEDIES if re.search(pattern, text, re.IGNORECASE)), "")
    return f"{first_line(error)}{remedy}"


def explain_tokenizer(error: BaseException, name: str) -> str:
    """Why a tokenizer could not be made of the files of `name`."""
    if _CUSTOM_CODE.search(str(error)):
        return explain(error)
    return f"no tokenizer can be made of {name} ({_without_colon(error)}); {TOKENIZER_REMEDY}"


TOKENIZER_REMEDY = "copy its tokenizer's files there, or add tokenizer=FOLDER_OR_HUB_ID to the model arguments"


def explain_weights(error: BaseException, folder: Path) -> str:
    """Why the weights in a folder (or of a Hub model, which is no folder) could not be loaded."""
    if type(error).__name__ == "UnpicklingError" or "PytorchStreamReader" in str(error):  # whose own remedy is unsafe
        file = next(iter(sorted(folder.glob("*.bin"))), "a weights file")
        return f"{file} is cut off, altered or holds more than tensors; download it again, or take it as safetensors"
    if type(error).__name__ != "SafetensorError":
        return explain(error)
    damaged = next((file for file in sorted(folder.glob("*.safetensors")) if not _opens(file)), None)
    return f"{damaged or 'a weights file'} is cut off or altered ({first_line(error)}); copy or download it again"


def explain_adapter(error: BaseException, adapter: str) -> str:
    """Why an adapter could not be put on a model whose own weights were loaded."""
    reason = first_line(error)
    if "Can't find 'adapter_config.json'" in reason:
        return f"{reason}; give an adapter's folder or a Hub id within reach"
    if missing := re.search(r"Found missing adapter keys.*?\['([^']+)'", str(error)):
        reason = f"it has no weights for {missing[1]}"
    base = adapter_base(Path(adapter))
    remedy = f"it was made for {base}" if base else "give the base model that it was made for"
    return f"the adapter {adapter} does not fit: {reason}; {remedy}"


def adapter_base(adapter: Path) -> str | None:
    """The model that an adapter's folder says it was made for."""
    file = adapter / "adapter_config.json"
    if not file.is_file():
        return None
    try:
        settings: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # peft says so itself, when it reads the file
        return None
    return settings.get("base_model_name_or_path")


def _without_colon(error: BaseException) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rstrip(" :").removesuffix(" from one of").removesuffix(".")


def _opens(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            return True
    except SafetensorError:
        return False
