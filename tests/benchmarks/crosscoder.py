"""How fast crosscoders are trained, in how much memory and how well, beside a peer and the dense product alone.

    python -m tests.benchmarks.crosscoder --json FILE [--quick] [--seed N] [--peer PATH] [--threads N]

`--peer PATH` is a checkout of `dictionary_learning` that has a BatchTopKCrossCoderTrainer (such as that of
science-of-finetuning); left out, its figures and the bounds on them are left out. Width 512 × 2 models, k = 32,
batches of 2,048 tokens, planted activations. The peer and the product alone compute in float32, ours as its defaults
say. All times are of turns in one process, and bounds are on medians of ratios of the same round; `_low` and
`_high` are their 95 % interval by the sign test, `_cpu` the same in processor time. Memory is each's growth in a
process of its own.

Dead latents: the peer counts them after 10 million tokens, so that its auxiliary loss rests in so short a training;
ours is told the same. `ours_defaults` is the same training with our defaults, where the loss works.

Explained variance: the peer is trained twice, with its own rate (constant after warm-up) and with our rate, warm-up
and decay, on the same tokens for as many steps. Its warm-up of 1,000 steps and its threshold's start at step 1,000 do
not fit into so short a training: both are scaled down. It is read by its threshold and by batch top-k, and the best
of the four readings that keeps to k active latents is what ours is compared with.

With CUDA, a table for large sizes is added (`gpu`).
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from tests.benchmarks.record import Bound, write_record

SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Set before torch is imported."""

SPEED = {8192: ">= 5", 32_768: ">= 8"}
"""By latents: tokens a second over the peer's. Other bounds are on these numbers of latents too."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    small: int = 8192
    """Latents of the training that is carried through."""
    large: int = 32_768
    """Latents of which only steps are timed."""
    d_model: int = 512
    k: int = 32
    batch_tokens: int = 2048
    n_planted: int = 6144
    block_steps: int = 16
    """Of ours and the peer's a round, in the training; half of it where only steps are timed."""
    n_rounds: int = 18
    n_large_rounds: int = 6
    n_share_steps: int = 16
    test_tokens: int = 8192


QUICK = Sizes(small=2048, large=8192, block_steps=8, n_rounds=6, n_large_rounds=3, n_share_steps=6, test_tokens=4096)


def all_figures(sizes: Sizes, seed: int, peer_path: Path | None, threads: int) -> dict[str, Any]:
    """All parts, one after the other."""
    os.environ.update({**SETTINGS, "OMP_NUM_THREADS": str(threads)})
    import torch

    from tests.benchmarks.crosscoder_memory import memory_figures
    from tests.benchmarks.crosscoder_peer import Peer
    from tests.benchmarks.crosscoder_training import Bench

    torch.set_num_threads(threads)
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - begun:5.0f} s  {text}", err=True)

    bench = Bench(sizes, seed, None if peer_path is None else Peer(peer_path), say)
    figures: dict[str, Any] = {"threads": threads, **bench.describe()}
    figures |= bench.large_steps()
    figures |= bench.training()
    figures["step_shares"] = bench.shares()
    if torch.cuda.is_available():
        from tests.benchmarks.crosscoder_gpu import TableSizes, gpu_table

        say("GPU: table")
        try:
            figures["gpu"] = gpu_table(torch.device("cuda"), TableSizes(), bench.peer, seed)
        except torch.OutOfMemoryError as error:
            figures["gpu"] = {"device": torch.cuda.get_device_name(), "left_out": str(error).splitlines()[0]}
    options = {"width": sizes.d_model, "k": sizes.k, "batch": sizes.batch_tokens, "threads": threads, "seed": seed}
    for latents in (sizes.small, sizes.large):
        say(f"memory: {latents} latents")
        figures |= memory_figures(latents, peer_path, options)
    return figures


def bounds_of(figures: dict[str, Any], sizes: Sizes) -> list[Bound]:
    """What is asked of the figures that there are."""
    asked = [("explained_variance_over_peer_points", ">= -0.5")]
    for latents in (sizes.small, sizes.large):
        if latents in SPEED:
            asked += [
                (f"speed_over_peer_{latents}", SPEED[latents]),
                (f"step_over_product_{latents}", "<= 1.7"),
                (f"memory_over_peer_{latents}", "<= 0.5"),
            ]
    return [Bound(name, figures[name], bound) for name, bound in asked if name in figures]


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="2,048 and 8,192 latents, fewer rounds and steps.")
@click.option("--seed", default=0)
@click.option("--peer", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--threads", default=2, help="That compute, for all sides.")
def main(file: Path, quick: bool, seed: int, peer: Path | None, threads: int) -> None:
    """Measure, and write the record."""
    sizes = QUICK if quick else Sizes()
    figures = all_figures(sizes, seed, peer, threads)
    bounds = bounds_of(figures, sizes)
    shown = ["PATH" if peer is not None and word == str(peer) else word for word in sys.argv]
    with patch.object(sys, "argv", shown):  # where a checkout lies on this machine tells nobody anything
        write_record(file, figures, bounds, seeds=[seed])
    for bound in bounds:
        click.echo(f"{'holds ' if bound.holds else 'MISSED'}  {bound.name}: {bound.value:.4g} {bound.bound}", err=True)


if __name__ == "__main__":
    main()
