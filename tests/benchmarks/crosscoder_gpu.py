"""The table of a GPU: large sizes, the same calls, with memory by the device's own account.

Ours and the peer are first measured alone (memory), then timed in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffharness.crosscoder import TrainingSettings
from tests.benchmarks.crosscoder_data import PlantedActivations
from tests.benchmarks.crosscoder_peer import Peer
from tests.benchmarks.crosscoder_rounds import (
    Clock,
    Data,
    Rounds,
    Turn,
    peer_turn,
    product_turn,
    time_figures,
    train_in_turns,
)


@dataclass(frozen=True)
class TableSizes:
    """As in Minder et al.'s trainings on Gemma-2 2B, but for the width."""

    d_model: int = 3584
    n_latents: int = 73_728
    k: int = 100
    batch_tokens: int = 2048
    n_train_tokens: int = 65_536
    n_planted: int = 16_384
    block_steps: int = 16
    n_rounds: int = 8


def gpu_table(device: torch.device, sizes: TableSizes, peer: Peer | None, seed: int) -> dict[str, Any]:
    """Tokens a second, step and product times and peak memory, with the device's name."""
    world = PlantedActivations(sizes.d_model, sizes.n_planted, seed, device)
    data = Data(*(world.draw(n, seed + i) for i, n in enumerate((sizes.n_train_tokens, 4096, 64))))
    settings = TrainingSettings(
        n_latents=sizes.n_latents,
        k=sizes.k,
        n_steps=sizes.block_steps * (sizes.n_rounds + 1),
        batch_tokens=sizes.batch_tokens,
        block_tokens=sizes.block_steps,
        dead_after_tokens=10_000_000,
        seed=seed,
    )
    clock = Clock(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    table: dict[str, Any] = {"device": name, "width": sizes.d_model, "models": 2, "latents": sizes.n_latents}
    table |= {"k": sizes.k, "batch_tokens": sizes.batch_tokens, "data_mb": data.train_NMD.nbytes / 1e6}
    few = settings.model_copy(update={"n_steps": sizes.block_steps})
    idle = Rounds(clock, sizes.block_steps, {})
    table["ours_memory_peak_mb"] = _peak_mb(device, lambda: train_in_turns(data, few, idle))

    def trainer() -> Any:
        assert peer is not None
        mean_MD, std_MD = data.moments()
        n_steps = settings.n_steps or 1
        return peer.trainer(
            n_steps=n_steps, n_latents=sizes.n_latents, k=sizes.k, mean_MD=mean_MD, std_MD=std_MD, seed=seed
        )

    x_NMD = data.train_NMD[: sizes.batch_tokens]
    others: dict[str, Turn] = {
        "product": product_turn(sizes.n_latents, x_NMD, clock, sizes.block_steps),
        "product_bfloat16": product_turn(sizes.n_latents, x_NMD, clock, sizes.block_steps, torch.bfloat16),
    }
    if peer is not None:
        try:
            table["peer_memory_peak_mb"] = _peak_mb(device, lambda: peer_turn(trainer(), data, settings, clock, 2)())
            others["peer"] = peer_turn(trainer(), data, settings, clock, 2)
        except torch.OutOfMemoryError as error:
            table |= {"peer_memory_peak_mb": None, "peer_left_out": str(error).splitlines()[0]}
    rounds = Rounds(clock, sizes.block_steps, others)
    train_in_turns(data, settings, rounds)
    return {**table, **time_figures(rounds, sizes.batch_tokens, "gpu"), "product_share_of_step": _share(rounds)}


def _share(rounds: Rounds) -> float:
    """The float32 product's time as a share of our step's."""
    total = {name: sum(spent.wall_s for spent in rounds.times[name]) for name in ("product", "ours")}
    return total["product"] / total["ours"]


def _peak_mb(device: torch.device, work: Callable[[], object]) -> float | None:
    """The device's peak memory over what is held before; none for a device that does not tell."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6
