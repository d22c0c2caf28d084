"""Training ours and the peer in turns: so many steps of each a round, and the dense product alone between them.

Our steps are timed from outside, between two calls of `train`'s progress; others take their turns inside such a call.

Legend: N tokens, M models, D width, L latents, X = M·D.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffharness.crosscoder import Crosscoder, TrainingSettings, train
from diffharness.crosscoder.batches import batches
from tests.benchmarks.crosscoder_data import SIDES
from tests.benchmarks.timing import Spent, median_interval, ratio_figures

Turn = Callable[[], Spent]
"""Does its steps, and tells what one of them took."""


@dataclass(frozen=True)
class Data:
    """What is trained on, what thresholds are calibrated on, and what explained variance is measured on."""

    train_NMD: Tensor
    calibration_NMD: Tensor
    test_NMD: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training data, of each model and dimension, in float64."""
        sums, squares = 0.0, 0.0
        for x_NMD in self.train_NMD.split(4096):
            sums = sums + x_NMD.double().sum(0)
        mean_MD = torch.as_tensor(sums) / len(self.train_NMD)
        for x_NMD in self.train_NMD.split(4096):
            squares = squares + (x_NMD.double() - mean_MD).square().sum(0)
        return mean_MD, (torch.as_tensor(squares) / len(self.train_NMD)).sqrt()


class Clock:
    """Wall and processor time; waits for a GPU before it reads them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Spent:
        """Since an arbitrary moment."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return Spent(time.perf_counter(), time.process_time())

    def since(self, begun: Spent, n_steps: int) -> Spent:
        """Of each of so many steps."""
        now = self.now()
        return Spent((now.wall_s - begun.wall_s) / n_steps, (now.cpu_s - begun.cpu_s) / n_steps)


@dataclass
class Rounds:
    """The progress of our training: at the end of every block of steps, the others take their turns."""

    clock: Clock
    block_steps: int
    others: Mapping[str, Turn]
    n_warm: int = 1
    """Rounds that are not counted; the first holds the setting up of our training."""
    times: dict[str, list[Spent]] = field(default_factory=dict)
    n_rounds: int = 0
    _begun: Spent | None = None

    def __call__(self, done: int, _total: int) -> None:
        """Called by `train` after each of its steps."""
        if done % self.block_steps:
            return
        spent = {}
        if self._begun is not None:
            spent["ours"] = self.clock.since(self._begun, self.block_steps)
        names = list(self.others) if self.n_rounds % 2 else list(reversed(self.others))
        for name in names:
            spent[name] = self.others[name]()
        if self.n_rounds >= self.n_warm:
            for name, value in spent.items():
                self.times.setdefault(name, []).append(value)
        self.n_rounds += 1
        self._begun = self.clock.now()


def product_turn(n_latents: int, x_NMD: Tensor, clock: Clock, n: int, dtype: torch.dtype = torch.float32) -> Turn:
    """The encoder's dense product alone, into memory that it was given: nothing but the arithmetic."""
    x_NX = x_NMD.flatten(1).to(dtype)
    W_XL = torch.randn(x_NX.shape[1], n_latents, device=x_NX.device).to(dtype)
    out_NL = torch.empty(len(x_NX), n_latents, dtype=dtype, device=x_NX.device)

    def turn() -> Spent:
        begun = clock.now()
        for _ in range(n):
            torch.mm(x_NX, W_XL, out=out_NL)
        return clock.since(begun, n)

    return turn


def peer_turn(trainer: Any, data: Data, settings: TrainingSettings, clock: Clock, n: int) -> Turn:
    """Steps of the peer on batches that are drawn as ours are, in float32; drawing them is not counted as its time."""
    generator = torch.Generator().manual_seed(settings.seed + 1)
    stream = batches(data.train_NMD, settings.batch_tokens, settings.block_tokens, generator)
    done = 0

    def turn() -> Spent:
        nonlocal done
        total = Spent(0.0, 0.0)
        for _ in range(n):
            x_NMD = next(stream).float()
            begun = clock.now()
            trainer.update(done, x_NMD)
            total += clock.since(begun, n)
            done += 1
        return total

    return turn


def train_in_turns(data: Data, settings: TrainingSettings, rounds: Callable[[int, int], None]) -> Crosscoder:
    """Our training, with the others' turns in it."""
    return train(data.train_NMD, settings, sides=SIDES, heldout_NMD=data.calibration_NMD, progress=rounds)


def time_figures(rounds: Rounds, batch_tokens: int, suffix: str) -> dict[str, float]:
    """Step times, tokens a second, and the ratios that bounds are on, all of the same rounds."""
    times = rounds.times
    figures: dict[str, float] = {f"rounds_{suffix}": len(times["ours"])}
    for name, values in times.items():
        median, _, _ = median_interval([value.wall_s for value in values])
        figures[f"{name}_ms_{suffix}"] = 1000 * median
        if not name.startswith("product"):
            figures[f"{name}_tokens_per_s_{suffix}"] = batch_tokens / median
    figures |= ratio_figures(f"step_over_product_{suffix}", times["ours"], times["product"])
    if "peer" in times:
        figures |= ratio_figures(f"speed_over_peer_{suffix}", times["peer"], times["ours"])
    return figures


@torch.no_grad()
def explained_variance(reconstruct: Callable[[Tensor], tuple[Tensor, float]], x_NMD: Tensor) -> tuple[float, float]:
    """Mean over models of 1 − Σ‖x − x̂‖² / Σ‖x − mean‖² (sums over tokens in float64), and the mean L0."""
    pieces = x_NMD.split(2048)
    mean_MD = torch.stack([piece.double().sum(0) for piece in pieces]).sum(0) / len(x_NMD)
    error_M = torch.zeros(x_NMD.shape[1], dtype=torch.float64, device=x_NMD.device)
    variance_M, active = torch.zeros_like(error_M), 0.0
    for piece in pieces:
        found_NMD, l0 = reconstruct(piece.float())
        error_M += (piece.double() - found_NMD.double()).square().sum(dim=(0, 2))
        variance_M += (piece.double() - mean_MD).square().sum(dim=(0, 2))
        active += l0 * len(piece)
    return float((1 - error_M / variance_M).mean()), active / len(x_NMD)


def our_reconstruction(crosscoder: Crosscoder) -> Callable[[Tensor], tuple[Tensor, float]]:
    """By the crosscoder's own inference rule."""

    def reconstruct(x_NMD: Tensor) -> tuple[Tensor, float]:
        f_NL = crosscoder.encode(x_NMD)
        return crosscoder.decode(f_NL), float((f_NL > 0).sum()) / len(x_NMD)

    return reconstruct
