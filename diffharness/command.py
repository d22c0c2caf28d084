"""The command line that means a configuration."""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import TypeAdapter

from diffharness.config import RunConfig


def default_command(config: RunConfig) -> str:
    """The command line that means this configuration."""
    words = ["diffharness", "run"]
    fresh = RunConfig.model_fields
    for name, value in config.public().items():
        field = fresh[name]
        if value is None or (
            not field.is_required() and value == TypeAdapter(Any).dump_python(field.default, mode="json")
        ):
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option.removeprefix('--')}")
        elif name in ("tasks", "groups"):
            words += [option, ",".join(map(str, value))]
        elif isinstance(value, list):
            for item in value:
                words += [option, str(item)]
        else:
            words += [option, str(value)]
    return shlex.join(words)
