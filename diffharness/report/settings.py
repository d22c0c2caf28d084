"""How lm-eval ran each task, as far as a run's folder says it: data set, shots, and how answers were generated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffharness.errors import RunError
from diffharness.report.schema import ModelInfo

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LOADERS = ("json", "csv", "parquet", "text", "arrow", "xml", "webdataset", "imagefolder", "audiofolder")
"""What `datasets` reads files with; no data set of the Hub."""


@dataclass(frozen=True)
class TaskSettings:
    """One task, as lm-eval was told to run it."""

    dataset: str | None = None
    """Its id on the Hub; `None` for files, code, or where the run's folder does not say."""
    config: str | None = None
    split: str | None = None
    num_fewshot: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    """lm-eval's `generation_kwargs`."""


def read_settings(folder: Path | None, side: str) -> dict[str, TaskSettings]:
    """By task, from lm-eval's own results file of one side; nothing where the folder does not hold it.

    Raises:
        RunError: the file is damaged.
    """
    file = None if folder is None else folder / "evaluation" / side / "results.json"
    if file is None or not file.is_file():
        return {}
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        shots = body.get("n-shot", {})
        return {task: _settings(config, shots.get(task)) for task, config in body.get("configs", {}).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{file} can not be read ({error}); run it again") from error


def _settings(config: Mapping[str, Any], shots: Any) -> TaskSettings:
    path, name = config.get("dataset_path"), config.get("dataset_name")
    is_hub = isinstance(path, str) and path not in _LOADERS and _HUB_ID.fullmatch(path) is not None
    split = next((config[f"{kind}_split"] for kind in ("test", "validation") if config.get(f"{kind}_split")), None)
    return TaskSettings(
        dataset=path if is_hub else None,
        config=name if is_hub and isinstance(name, str) else None,
        split=split if is_hub and isinstance(split, str) else None,
        num_fewshot=shots if isinstance(shots, int) else config.get("num_fewshot"),
        generation=config.get("generation_kwargs") or {},
    )


def hub_id(model: ModelInfo) -> str | None:
    """The model's id on the Hub, where it is not a folder; `None` where it is one, or looks like none."""
    given = dict(part.split("=", 1) for part in model.model_args.split(",") if "=" in part)
    name = given.get("pretrained", model.model_args).strip()
    return name if _HUB_ID.fullmatch(name) is not None and not Path(name).exists() else None
