"""The peer: `dictionary_learning`'s BatchTopKCrossCoderTrainer, loaded from a checkout and called as its training does.

Of the checkout only the modules that define the trainer are run, under a package name of our own: the package's
`__init__` asks for older versions of other libraries than are installed here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import click
import torch
from torch import Tensor

PACKAGE = "_peer_dictionary_learning"


class Peer:
    """A checkout's trainer."""

    def __init__(self, path: Path) -> None:
        folder = path if (path / "dictionary.py").is_file() else path / "dictionary_learning"
        files = [folder / "dictionary.py", folder / "trainers" / "crosscoder.py"]
        for file in files:
            if not file.is_file():
                raise click.UsageError(f"--peer: {file} is missing; give a checkout of dictionary_learning")
        self.version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
        """Of the files that define it, as a checkout may have no history."""
        self._module = _load(folder)

    def trainer(
        self, *, n_steps: int, n_latents: int, k: int, mean_MD: Tensor, std_MD: Tensor, seed: int, **options: Any
    ) -> Any:
        """A trainer with its own defaults but for what is given; the schedule has to fit into the steps."""
        return self._module.BatchTopKCrossCoderTrainer(
            steps=n_steps,
            activation_dim=mean_MD.shape[1],
            dict_size=n_latents,
            k=k,
            layer=0,
            lm_name="random",
            num_layers=len(mean_MD),
            seed=seed,
            device=str(mean_MD.device),
            activation_mean=mean_MD.float(),
            activation_std=std_MD.float(),
            **{"warmup_steps": min(1000, max(1, n_steps // 20)), **options},
        )


def _load(folder: Path) -> ModuleType:
    """The module of the trainer; what it imports of its own package comes along."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]  # of another checkout
    for name, place in ((PACKAGE, folder), (f"{PACKAGE}.trainers", folder / "trainers")):
        package = ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package
    stubs = {} if importlib.util.find_spec("einops") else {"einops": _permuting_einops()}
    with patch.dict(sys.modules, stubs):
        return importlib.import_module(f"{PACKAGE}.trainers.crosscoder")


def _permuting_einops() -> ModuleType:
    """The one thing that the peer needs of einops, once, for its initial weights: a permutation of named axes."""

    def rearrange(tensor: Tensor, pattern: str) -> Tensor:
        before, after = (side.split() for side in pattern.split("->"))
        return tensor.permute([before.index(name) for name in after])

    module = ModuleType("einops")
    module.__dict__["rearrange"] = rearrange
    return module


@torch.no_grad()
def peer_reconstruction(trainer: Any, x_NMD: Tensor, *, by_threshold: bool) -> tuple[Tensor, float]:
    """Raw reconstructions of raw activations, and the mean number of active latents a token."""
    dictionary = trainer.ae
    f_NL = dictionary.encode(x_NMD, use_threshold=by_threshold)
    return dictionary.decode(f_NL), float((f_NL > 0).sum()) / len(x_NMD)
