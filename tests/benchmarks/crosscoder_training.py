"""What the benchmark does on its CPU: the training that is carried through, steps of a larger one, and their shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from diffharness.crosscoder import TrainingSettings
from diffharness.crosscoder.schedule import peak_learning_rate
from tests.benchmarks.crosscoder_data import PlantedActivations
from tests.benchmarks.crosscoder_peer import Peer, peer_reconstruction
from tests.benchmarks.crosscoder_rounds import (
    Clock,
    Data,
    Rounds,
    Turn,
    explained_variance,
    our_reconstruction,
    peer_turn,
    product_turn,
    time_figures,
    train_in_turns,
)
from tests.benchmarks.crosscoder_shares import step_shares

if TYPE_CHECKING:
    from tests.benchmarks.crosscoder import Sizes

NEVER_DEAD_TOKENS = 10_000_000
"""The peer's own: in steps that are timed alone, no latent is dead yet on either side."""

LARGEST_L0 = 1.05
"""A reading with more active latents than so many times k is not at the same k."""


class Bench:
    """Data and settings that the parts share."""

    def __init__(self, sizes: Sizes, seed: int, peer: Peer | None, say: Callable[[str], None]) -> None:
        self.sizes, self.seed, self.peer, self.say = sizes, seed, peer, say
        self.clock = Clock(torch.device("cpu"))
        self.n_steps = sizes.block_steps * (sizes.n_rounds + 1)
        world = PlantedActivations(sizes.d_model, sizes.n_planted, seed)
        counts = (self.n_steps * sizes.batch_tokens, sizes.test_tokens, sizes.test_tokens)
        self.data = Data(*(world.draw(n, seed + i) for i, n in enumerate(counts)))
        self.mean_MD, self.std_MD = self.data.moments()
        say(f"data: {len(self.data.train_NMD)} tokens")

    def describe(self) -> dict[str, Any]:
        """What the figures are of."""
        return {
            "width": self.sizes.d_model,
            "k": self.sizes.k,
            "batch_tokens": self.sizes.batch_tokens,
            "train_tokens": len(self.data.train_NMD),
            "steps": self.n_steps,
            "peer_version": None if self.peer is None else self.peer.version,
        }

    def settings(self, n_latents: int, n_steps: int, **options: Any) -> TrainingSettings:
        """Ours: the defaults, but for sizes."""
        return TrainingSettings(
            n_latents=n_latents,
            k=self.sizes.k,
            n_steps=n_steps,
            batch_tokens=self.sizes.batch_tokens,
            block_tokens=self.sizes.block_steps,
            seed=self.seed,
            **options,
        )

    def trainer(self, n_latents: int, n_steps: int, **options: Any) -> Any:
        """The peer's trainer, with our normalisation."""
        assert self.peer is not None
        return self.peer.trainer(
            n_steps=n_steps,
            n_latents=n_latents,
            k=self.sizes.k,
            mean_MD=self.mean_MD,
            std_MD=self.std_MD,
            seed=self.seed,
            **options,
        )

    def product(self, n_latents: int, n: int) -> Turn:
        """The dense product on a batch."""
        return product_turn(n_latents, self.data.train_NMD[: self.sizes.batch_tokens], self.clock, n)

    def large_steps(self) -> dict[str, float]:
        """Times of single steps with many latents; no latent is taken for dead."""
        n_latents, block = self.sizes.large, self.sizes.block_steps // 2
        n_steps = block * (self.sizes.n_large_rounds + 1)
        settings = self.settings(n_latents, n_steps, dead_after_tokens=NEVER_DEAD_TOKENS)
        others: dict[str, Turn] = {"product": self.product(n_latents, block // 2)}
        if self.peer is not None:
            others["peer"] = peer_turn(self.trainer(n_latents, n_steps), self.data, settings, self.clock, 1)
        rounds = Rounds(self.clock, block, others)
        train_in_turns(self.data, settings, rounds)
        self.say(f"steps: {n_latents} latents")
        return time_figures(rounds, self.sizes.batch_tokens, str(n_latents))

    def training(self) -> dict[str, Any]:
        """The training that is carried through: times, and explained variance on tokens that nothing was fitted to."""
        n_latents, n_steps, block = self.sizes.small, self.n_steps, self.sizes.block_steps
        settings = self.settings(n_latents, n_steps, dead_after_tokens=NEVER_DEAD_TOKENS)
        rate = peak_learning_rate(self.sizes.d_model, n_latents)
        trainers = {}
        if self.peer is not None:
            late = {"threshold_start_step": n_steps // 2}
            ours = {"lr": rate, "decay_start": n_steps // 2}
            trainers = {
                "peer": self.trainer(n_latents, n_steps, **late),
                "peer_with_our_schedule": self.trainer(n_latents, n_steps, **late, **ours),
            }
        turns = {name: peer_turn(t, self.data, settings, self.clock, block) for name, t in trainers.items()}
        rounds = Rounds(self.clock, block, {**turns, "product": self.product(n_latents, block // 2)})
        begun = time.monotonic()
        crosscoder = train_in_turns(self.data, settings, rounds)
        self.say(f"training: {n_latents} latents, {n_steps} steps in {time.monotonic() - begun:.0f} s")
        figures: dict[str, Any] = time_figures(rounds, self.sizes.batch_tokens, str(n_latents))
        test_NMD = self.data.test_NMD
        value, l0 = explained_variance(our_reconstruction(crosscoder), test_NMD)
        figures |= {"ours_explained_variance": value, "ours_l0": l0, "ours_learning_rate": rate}
        figures |= self._by_defaults()
        for name, trainer in trainers.items():
            figures[f"{name}_learning_rate"] = trainer.lr
            figures |= self._read_peer(name, trainer)
        if trainers:
            figures["explained_variance_over_peer_points"] = 100 * (value - self._best_of_peer(figures))
        return figures

    def _best_of_peer(self, figures: dict[str, Any]) -> float:
        """The best explained variance of the peer's readings that keep to k; batch top-k always does."""
        return max(
            value
            for name, value in figures.items()
            if name.startswith("peer")
            and "_explained_variance_" in name
            and figures[name.replace("_explained_variance_", "_l0_")] <= LARGEST_L0 * self.sizes.k
        )

    def _by_defaults(self) -> dict[str, float]:
        """The same training of ours with the dead latents' loss as its defaults have it, uninterrupted."""
        rounds = Rounds(self.clock, self.sizes.block_steps, {})
        crosscoder = train_in_turns(self.data, self.settings(self.sizes.small, self.n_steps), rounds)
        value, l0 = explained_variance(our_reconstruction(crosscoder), self.data.test_NMD)
        seconds = sum(spent.wall_s for spent in rounds.times["ours"]) / len(rounds.times["ours"])
        self.say("training: ours by its defaults")
        return {
            "ours_defaults_explained_variance": value,
            "ours_defaults_l0": l0,
            "ours_defaults_tokens_per_s": self.sizes.batch_tokens / seconds,
        }

    def _read_peer(self, name: str, trainer: Any) -> dict[str, float]:
        """Explained variance and L0 by both ways of reading; by the threshold where it has started."""
        ways = {"batch_topk": False}
        if float(trainer.ae.threshold) >= 0:
            ways["threshold"] = True
        figures = {}
        for way, by_threshold in ways.items():
            value, l0 = explained_variance(
                lambda x_NMD, by=by_threshold: peer_reconstruction(trainer, x_NMD, by_threshold=by), self.data.test_NMD
            )
            figures |= {f"{name}_explained_variance_{way}": value, f"{name}_l0_{way}": l0}
        return figures

    def shares(self) -> dict[str, float]:
        """Shares of a step's time."""
        settings = self.settings(self.sizes.small, 1, dead_after_tokens=NEVER_DEAD_TOKENS)
        shares = step_shares(self.data, settings, self.sizes.n_share_steps)
        self.say("shares of a step")
        return shares
