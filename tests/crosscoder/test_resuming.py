"""A training that is killed and called again ends in the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder import resuming, training
from diffharness.crosscoder.config import TrainingSettings
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.resuming import STATE_NAME
from diffharness.errors import UsageError
from tests.crosscoder.planted import plant

SETTINGS = {"n_latents": 48, "k": 3, "n_steps": 24, "batch_tokens": 128, "dead_after_tokens": 400}


@pytest.fixture(autouse=True)
def save_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "SAVE_COST", 0)


class KilledError(Exception):
    """Stands for a signal."""


class Shuffled:
    """Activations that bring their own batches, as streamed ones do."""

    def __init__(self, x_NMD: Tensor) -> None:
        self._x_NMD = x_NMD
        self.shape, self.device = x_NMD.shape, x_NMD.device

    def __len__(self) -> int:
        return len(self._x_NMD)

    def __getitem__(self, rows: slice) -> Tensor:
        return self._x_NMD[rows]

    def batches(self, batch_tokens: int, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield self._x_NMD[torch.randperm(len(self), generator=generator)[:batch_tokens]]


def call(
    folder: Path | None, limit: int | None = None, shuffled: bool = False, **changes: Any
) -> tuple[Crosscoder, int]:
    """One call of the training, killed after `limit` steps; what it gives, and the first step that it did."""
    x_NMD, seen = plant(3_000, n_only=(4, 4)).x_NMD, []

    def progress(done: int, _total: int) -> None:
        seen.append(done)
        if limit is not None and done == limit:
            raise KilledError

    crosscoder = training.train(
        Shuffled(x_NMD) if shuffled else x_NMD,
        TrainingSettings.model_validate({**SETTINGS, **changes}),
        sides=("baseline", "candidate"),
        heldout_NMD=x_NMD[:700],
        progress=progress,
        resume_in=folder,
        save_seconds=0,
    )
    return crosscoder, seen[0]


def killed(folder: Path, *limits: int, **changes: Any) -> None:
    """KilledError once and again."""
    for limit in limits:
        with pytest.raises(KilledError):
            call(folder, limit, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sparsity": "topk", "initial_k": 12},
        {"sparsity": "l1"},
        {"sparsity": "jumprelu"},
        {"groups": (8, 48), "n_tied": 4, "n_dedicated": (4, 4)},
        {"product_dtype": "bfloat16"},
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, _ = call(None, **changes)
    killed(tmp_path, 7, 8, 19, **changes)
    resumed, first = call(tmp_path, **changes)
    assert first == 20
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name
    assert not tmp_path.exists()


def test_streamed_activations_go_on_too(tmp_path: Path) -> None:
    killed(tmp_path, 11, shuffled=True)
    whole, resumed = call(None, shuffled=True)[0], call(tmp_path, shuffled=True)[0]
    assert torch.equal(whole.W_dec_LMD, resumed.W_dec_LMD)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"k": 4}])
def test_the_state_of_another_training_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    killed(tmp_path, 5, 6)
    with pytest.raises(UsageError, match="other data or with other settings"):
        call(tmp_path, **changes)


def test_a_damaged_state_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).write_bytes(b"nothing")
    with pytest.raises(UsageError, match="delete it"):
        call(tmp_path)


def test_what_a_kill_left_half_written_is_cleared_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / f".{STATE_NAME}.1.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    call(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    killed(tmp_path, 5, 6)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_NAME]
