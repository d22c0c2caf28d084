"""Where a crosscoder's activations come from without a benchmark: a store, recordings, or a file.

Legend: N tokens, M models (models × layers), D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import yaml

from diffharness.artifacts import fingerprint, path_fingerprint
from diffharness.errors import UsageError
from diffharness.loaded import model_name
from diffharness.stages.replaying import HELDOUT_SHARE

if TYPE_CHECKING:
    from diffharness.activations.splicing import SpliceLoss
    from diffharness.activations.store import ActivationStore
    from diffharness.crosscoder.batches import Activations
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.progress import StageProgress

SIDES = ("baseline", "candidate", "ancestor")
HOLDS = "give a run's folder, what `diffharness lm-eval` recorded, or a .safetensors file"


@dataclass(frozen=True)
class Opened:
    """Activations, ready to be read."""

    train_NMD: Activations
    heldout_NMD: Activations
    all_NMD: Activations
    skipped_ids: frozenset[int] = frozenset()
    models: tuple[str, ...] = ()
    """What the models are called, where that is known."""
    device: str | None = None
    """Where the models are, if there are any."""
    splice: Callable[[Crosscoder], Mapping[str, SpliceLoss]] | None = None
    """What reconstructions cost the models, if they are at hand."""


class Source(Protocol):
    """Activations that may have to be read first."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the models, in the order of the M axis."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """0-based decoder blocks, where they are known; with several, M holds all of the first model, then the next."""
        ...

    @property
    def d_model(self) -> int:
        """Width, of the widest model."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every column, where they differ."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells them from others."""
        ...

    def check(self, progress: StageProgress) -> None:
        """Find what can not work before anything long starts."""
        ...

    def open(self) -> Opened:
        """Read them where that has to be done, and open them."""
        ...


def named(given: tuple[str, ...], count: int, found: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names for so many models: those given, those found, or the usual ones.

    Raises:
        UsageError: not so many, or not different ones.
    """
    names = given or found or SIDES[:count]
    if len(names) != count or len(set(names)) != count:
        said = f"--sides {','.join(given)} names {len(set(given))}" if given else "--sides is missing"
        raise UsageError(f"{said}: the activations are of {count} models; give a different name for each")
    return names


@dataclass(frozen=True)
class FileSource:
    """A `.safetensors` file with one tensor (tokens, models, width); its last tenth is held out."""

    path: Path
    names: tuple[str, ...] = ()
    said_layers: tuple[int, ...] = ()
    """What the user says that it is of: a file does not."""

    @property
    def layers(self) -> tuple[int, ...]:
        """As said."""
        return self.said_layers

    @cached_property
    def _x_NMD(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                found = list(file.keys())
                tensors = [file.get_tensor(name) for name in found[:1]]
        except (OSError, SafetensorError) as error:
            raise UsageError(f"--activations {self.path} is no safetensors file ({error}); {HOLDS}") from error
        if len(found) != 1:
            listed = ", ".join(found[:4]) or "none"
            raise UsageError(f"--activations {self.path} holds {len(found)} tensors ({listed}); give a file with one")
        (x_NMD,) = tensors
        if x_NMD.ndim != 3 or not x_NMD.is_floating_point():
            raise UsageError(
                f"--activations {self.path}: {found[0]} is {tuple(x_NMD.shape)} of {str(x_NMD.dtype)[6:]}; a float "
                "tensor (tokens, models, width) is needed"
            )
        if len(x_NMD) < 2:
            raise UsageError(f"--activations {self.path} holds {len(x_NMD)} tokens; at least two are needed")
        return x_NMD

    @property
    def sides(self) -> tuple[str, ...]:
        """As given, or the usual ones; each stands for as many columns as there are layers."""
        count, n_layers = int(self._x_NMD.shape[1]), max(1, len(self.layers))
        if count % n_layers:
            raise UsageError(
                f"--activations {self.path} has {count} columns, which are not {n_layers} layers of each model; name "
                "as many with --layer as there are, or leave it out"
            )
        return named(self.names, count // n_layers)

    @property
    def d_model(self) -> int:
        """Of all models alike."""
        return int(self._x_NMD.shape[2])

    @property
    def widths(self) -> tuple[int, ...]:
        """They do not differ."""
        return ()

    @property
    def fingerprint(self) -> str:
        """Of the file's content."""
        return fingerprint(path_fingerprint(self.path), self.sides, self.layers)

    def check(self, progress: StageProgress) -> None:
        """Open them, and find names and layers that do not fit."""
        with progress.stage("check the activations"):
            _ = self.sides, self.layers, self.d_model

    def open(self) -> Opened:
        """Memory-mapped."""
        x_NMD = self._x_NMD
        first = len(x_NMD) - max(1, round(HELDOUT_SHARE * len(x_NMD)))
        return Opened(x_NMD[:first], x_NMD[first:], x_NMD)


@dataclass(frozen=True)
class StoreSource:
    """A run's store, or recordings of one model each, whose texts are paired; a tenth of the documents is held out."""

    folders: tuple[Path, ...]
    names: tuple[str, ...] = ()
    wanted: tuple[int, ...] = ()
    """Layers; none for all that are stored."""
    skip_special: bool = False
    seed: int = 0
    """Of the documents that are held out."""

    @cached_property
    def _stores(self) -> tuple[ActivationStore, ...]:
        from diffharness.activations.store import ActivationStore

        stores = tuple(ActivationStore.open(_store_folder(folder)) for folder in self.folders)
        for folder, store in zip(self.folders, stores, strict=True):
            if not store.shards:
                raise UsageError(f"--activations {folder} holds only texts: they were streamed; run without --stream")
            if len(stores) > 1 and len(store.spec.sides) > 1:
                raise UsageError(
                    f"--activations {folder} holds {len(store.spec.sides)} models by itself; give it alone, or "
                    "recordings of one model each"
                )
        return stores

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        """The models that are read from a single store, under its own names."""
        own = self._stores[0].spec.sides
        return self.names if self.names and set(self.names) <= set(own) else own

    @property
    def sides(self) -> tuple[str, ...]:
        """As given, as the store calls them, or the usual ones for recordings."""
        if len(self._stores) > 1:
            return named(self.names, len(self._stores))
        return named(self.names, len(self._columns), self._columns)

    @property
    def layers(self) -> tuple[int, ...]:
        """Those wanted, or all that all stores have."""
        there = sorted(set.intersection(*(set(store.spec.layers) for store in self._stores)))
        missing = [layer for layer in self.wanted if layer not in there]
        if missing or not there:
            shown = ", ".join(map(str, there)) or "none in common"
            asked = f"--layer {'+'.join(map(str, self.wanted))}: " if self.wanted else ""
            raise UsageError(f"{asked}the activations are of layer {shown}; name some of these, or record the others")
        return self.wanted or tuple(there)

    @property
    def d_model(self) -> int:
        """Of the widest."""
        return max(store.spec.d_model for store in self._stores)

    @property
    def widths(self) -> tuple[int, ...]:
        """Where recordings are of models of different widths: the narrower are padded with zeros."""
        found = tuple(store.spec.d_model for store in self._stores for _ in self.layers)
        return found if len(set(found)) > 1 else ()

    @property
    def fingerprint(self) -> str:
        """Of the indices, which hold every shard's checksum."""
        indices = [path_fingerprint(store.folder / "index.parquet") for store in self._stores]
        return fingerprint(indices, self._columns, self.sides, self.layers, self.skip_special, self.seed)

    def check(self, progress: StageProgress) -> None:
        """Open them, and find names and layers that do not fit."""
        with progress.stage("check the activations"):
            _ = self.sides, self.layers, self.d_model

    def open(self) -> Opened:
        """Memory-mapped; recordings side by side on the texts that all have."""
        from diffharness.activations.harvesting import heldout_texts

        stores = self._stores
        skipped = frozenset(i for s in stores for i in s.spec.special_ids) if self.skip_special else frozenset[int]()
        places = [{text.ids: i for i, text in enumerate(store.texts)} for store in stores]
        common = [text for text in stores[0].texts if all(text.ids in place for place in places[1:])]
        if not common:
            raise UsageError("the recordings have no sequence in common; record the same tasks with every model")
        heldout_T = heldout_texts(common, HELDOUT_SHARE, np.random.default_rng(self.seed))
        pieces = [self._rows([places, common], mask, skipped) for mask in (~heldout_T, heldout_T, heldout_T | True)]
        return Opened(
            *pieces,
            skipped_ids=skipped,
            models=_names(self.folders, self._columns),
        )

    def _rows(self, paired: Sequence[Any], mask_T: np.ndarray, skipped: frozenset[int]) -> Activations:
        from diffharness.activations.side_by_side import SideBySide, models_first

        places, common = paired
        chosen = [common[i] for i in np.flatnonzero(mask_T)]
        parts = [
            store.rows(
                self._columns if len(places) == 1 else store.spec.sides,
                layer,
                [place[text.ids] for text in chosen],
                skipped,
            )
            for layer in self.layers
            for store, place in zip(self._stores, places, strict=True)
        ]
        return parts[0] if len(parts) == 1 else SideBySide(parts, models_first(len(self.layers), len(self.sides)))


def _store_folder(folder: Path) -> Path:
    found = next((f for f in (folder, folder / "activations") if (f / "index.parquet").is_file()), None)
    if found is None:
        what = "holds no activations" if folder.exists() else "does not exist"
        raise UsageError(f"--activations {folder} {what}; {HOLDS}")
    return found


def _names(folders: Sequence[Path], sides: Sequence[str]) -> tuple[str, ...]:
    """What the models are called, where a run or the recordings say it; else none."""
    found: list[str] = []
    for folder in folders:
        home = folder if folder.name != "activations" else folder.parent
        try:
            if (home / "evaluation.json").is_file():
                found.append(json.loads((home / "evaluation.json").read_text(encoding="utf-8"))["model_args"])
            else:
                said = yaml.safe_load((home / "run.yaml").read_text(encoding="utf-8"))
                found += [said[side] for side in sides]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return ()
    return tuple(model_name(str(args)) for args in found)
