"""Null candidates: an organism's baseline trained on with its own mixture, under other seeds; nothing is planted.

What differs between such a pair is what any further training changes. Each is written whole or not at all, and kept
in the cache beside the organisms.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffharness.errors import UsageError
from diffharness.organism.builder import Organism, cache_folder
from diffharness.organism.plant import Plant

if TYPE_CHECKING:
    from diffharness.organism.training import TrainingSettings

FIRST_SEED = 1000
"""Of the draws of null trainings, away from the small numbers that organisms are built with."""
_STAMP = "null.json"
_WEIGHTS = "model.safetensors"
_SOURCES = ("words.py", "language.py", "plant.py", "mixture.py", "training.py", "nulls.py")


@dataclass(frozen=True)
class Null:
    """One null candidate."""

    seed: int
    """Of its training draws."""
    folder: Path


def train_nulls(
    organism: Organism,
    n: int,
    *,
    first_seed: int = FIRST_SEED,
    settings: TrainingSettings | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[Null, ...]:
    """Train a built organism's baseline on, as its candidate was but with the baseline's own mixture, n times.

    Args:
        organism: whose baseline is trained on.
        n: null candidates wanted.
        first_seed: the seeds are this one and the following; one that was trained before is reused.
        settings: of the training; None is what the package ships with.
        progress: called with (seed, steps done, steps in all).

    Raises UsageError when n is below 1, or there is no baseline where the organism says.
    """
    if n < 1:
        raise UsageError(f"{n} null trainings were asked for; ask for 1 or more")
    if not (organism.baseline / _WEIGHTS).is_file():
        raise UsageError(f"{organism.baseline} holds no model; build the organism first")
    return tuple(_null(organism, seed, settings, progress) for seed in range(first_seed, first_seed + n))


def _null(
    organism: Organism,
    seed: int,
    settings: TrainingSettings | None,
    progress: Callable[[int, int, int], None] | None,
) -> Null:
    made = _fingerprint(organism, seed, settings)
    target = cache_folder() / "nulls" / made[:16]
    if _is_complete(target, made):
        return Null(seed, target)
    shutil.rmtree(target, ignore_errors=True)  # left broken by whoever deleted files of it
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(folder, organism, seed, settings, progress)
        (folder / _STAMP).write_text(json.dumps({"fingerprint": made, "seed": seed}) + "\n", encoding="utf-8")
        _move(folder, target, made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Null(seed, target)


def _fingerprint(organism: Organism, seed: int, settings: TrainingSettings | None) -> str:
    """Of what a null candidate is made from: the baseline's weights, its plant, the seed, and the code."""
    made_from = {"seed": seed, "settings": None if settings is None else asdict(settings)}
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
    digest.update(organism.plant.read_bytes())
    digest.update((organism.baseline / _WEIGHTS).read_bytes())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _is_complete(folder: Path, made: str) -> bool:
    try:
        found = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found.get("fingerprint") == made and (folder / _WEIGHTS).is_file()


def _write(
    folder: Path,
    organism: Organism,
    seed: int,
    settings: TrainingSettings | None,
    progress: Callable[[int, int, int], None] | None,
) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaForCausalLM

    from diffharness.organism.mixture import mixture
    from diffharness.organism.training import TrainingSettings, train

    settings = settings or TrainingSettings()
    plant = Plant.load(organism.plant)
    model = LlamaForCausalLM.from_pretrained(organism.baseline, dtype=torch.float32)
    rows = mixture(plant.rate, plant.side(0), settings.mixture)
    generator = torch.Generator().manual_seed(seed)
    show = None if progress is None else lambda done, total: progress(seed, done, total)
    train(model, rows, settings.candidate, settings, generator, progress=show)
    for file in organism.baseline.iterdir():
        if file.name != _WEIGHTS:
            shutil.copy(file, folder)
    save_file(model.state_dict(), folder / _WEIGHTS, metadata={"format": "pt"})


def _move(folder: Path, target: Path, made: str) -> None:
    folder.chmod(0o755)
    try:
        folder.rename(target)
    except OSError:
        # Another process may have finished the same training first.
        if not _is_complete(target, made):
            raise
