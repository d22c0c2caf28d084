"""What a crosscoder's folder or file holds: configurations, and tensors that are read when asked for.

Nothing in a file is run: safetensors, pickles of plain tensors (`weights_only`), JSON and safe YAML.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffharness.errors import UsageError

WEIGHTS_NAMES = (
    "model.safetensors",
    "sae_weights.safetensors",
    "model_final.pt",
    "final.pt",
    "model.pt",
    "cc_weights.pt",
)
"""Of a folder that holds several of them, the first is read."""
CONFIG_NAMES = ("config.json", "cfg.json", "trainer_config.json", "model_cfg.yaml")
WEIGHTS_ENDINGS = (".safetensors", ".pt", ".pth")

_COMPILED = "_orig_mod."
"""What `torch.compile` puts before the names of a module's tensors."""
_NESTED = ("model_state_dict", "sae")
"""Entries under which some training scripts keep the tensors, beside the state of their optimiser."""


class Tensors(Mapping[str, Tensor]):
    """A file's tensors by name, without the prefix that compiling leaves, each read when it is asked for."""

    def __init__(self, stored: Sequence[str], read: Callable[[str], Tensor]) -> None:
        self._stored = {name.replace(_COMPILED, ""): name for name in stored}
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read(self._stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True)
class Files:
    """One crosscoder's files."""

    name: str
    """What it is called where others read it: a Hub id, or the name of its folder."""
    weights: Path
    tensors: Tensors
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file name; `<stem>_cfg.json` beside `<stem>.pt` is `cfg.json`."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What a pickle holds besides tensors."""

    def config(self, name: str) -> Mapping[str, Any]:
        """One configuration, empty where there is none."""
        return self.configs.get(name, {})

    def tensor(self, name: str, shape: Sequence[int | None]) -> Tensor:
        """One tensor, of a shape that may leave axes open (None).

        Raises:
            UsageError: it is missing or of another shape.
        """
        if name not in self.tensors:
            raise UsageError(f"{self.weights}: there is no tensor {name}; the file is not whole, fetch it again")
        found = self.tensors[name]
        if len(found.shape) != len(shape) or any(w not in (None, n) for w, n in zip(shape, found.shape, strict=True)):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise UsageError(
                f"{self.weights}: {name} has shape {tuple(found.shape)}, but ({wanted}) is needed; the file does not "
                "belong to its configuration or to this format"
            )
        return found


def read_files(path: Path, name: str) -> Files:
    """Look into a folder or a file of weights.

    Args:
        path: of either.
        name: what it is called where others read it.

    Raises:
        UsageError: there are no weights, several that can not be told apart, or they can not be read.
    """
    weights = path if path.is_file() else weights_in(path)
    if weights.suffix not in WEIGHTS_ENDINGS:
        raise UsageError(
            f"{path}: not a file of weights ({', '.join(WEIGHTS_ENDINGS)}); give its folder or the weights"
        )
    tensors, beside = _read_safetensors(weights) if weights.suffix == ".safetensors" else _read_pickle(weights)
    return Files(name, weights, tensors, read_configs(weights), beside)


def weights_in(folder: Path) -> Path:
    """The file of weights of a folder, or of the one folder in it that has any: known names first.

    Raises:
        UsageError: there is none, or several that can not be told apart.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in WEIGHTS_ENDINGS)
    below = sorted(p / name for p in folder.iterdir() if p.is_dir() for name in WEIGHTS_NAMES if (p / name).is_file())
    if len(below) == 1:
        return below[0]
    if len(found) == 1:
        return found[0]
    if found or below:
        some = ", ".join(str(p.relative_to(folder)) for p in (found or below)[:5])
        raise UsageError(f"{folder} holds {len(found or below)} files of weights ({some}); name one of them")
    raise UsageError(
        f"{folder}: no file of crosscoder weights ({', '.join(WEIGHTS_NAMES)}, or another *.safetensors or *.pt)"
    )


def read_configs(weights: Path) -> dict[str, dict[str, Any]]:
    """The configurations beside a file of weights.

    Raises:
        UsageError: one can not be read.
    """
    names = {name: name for name in CONFIG_NAMES} | {f"{weights.stem}_cfg.json": "cfg.json"}
    return {
        known: read_config(weights.parent / name) for name, known in names.items() if (weights.parent / name).is_file()
    }


def read_config(path: Path) -> dict[str, Any]:
    """One configuration file, JSON or YAML.

    Raises:
        UsageError: it can not be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: no configuration can be read ({_one_line(error)})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds no configuration, but {type(found).__name__}; give the crosscoder's own file")
    return found


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        file = safe_open(path, framework="pt")
        return Tensors(list(file.keys()), file.get_tensor), {}
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: no weights can be read ({_one_line(error)}); the file is cut off or damaged, fetch it again"
        ) from error


def _read_pickle(path: Path) -> tuple[Tensors, dict[str, Any]]:
    found = _unpickle(path)
    tensors = next((found[key] for key in _NESTED if isinstance(found.get(key), Mapping)), found)
    beside = {key: value for key, value in found.items() if not isinstance(value, Tensor) and value is not tensors}
    tensors = {str(key): value for key, value in tensors.items() if isinstance(value, Tensor)}
    return Tensors(list(tensors), tensors.__getitem__), beside


def _unpickle(path: Path) -> Mapping[Any, Any]:
    for mapped in (True, False):  # files of before PyTorch 1.6 can not be mapped
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            raise UsageError(
                f"{path}: holds more than tensors ({_one_line(error)}), and nothing in it is run; save its state_dict "
                "alone, with safetensors or torch.save"
            ) from error
        except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
            if mapped and "mmap" in str(error):
                continue
            raise UsageError(
                f"{path}: no weights can be read ({_one_line(error)}); the file is cut off or damaged, fetch it again"
            ) from error
        if isinstance(found, Mapping):
            return found
        break
    raise UsageError(f"{path}: holds no tensors by name; save the crosscoder's state_dict")


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].strip()[:160].rstrip(".") if text else type(error).__name__
