"""Loads the documents that stand beside these tasks, whatever the working directory."""

import json
from pathlib import Path
from typing import Any

import datasets


def load(documents: str, **_: Any) -> dict[str, datasets.Dataset]:
    """The documents of one task as its `test` split (`dataset_kwargs: {documents: NAME}` in the YAML)."""
    path = Path(__file__).with_name("data") / f"{documents}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
