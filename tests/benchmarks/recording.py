"""What recording costs in time, memory and disk, over plain lm-eval in the same run.

    python -m tests.benchmarks.recording --json FILE [--quick] [--seed N]

Every bound is on a ratio of wall times (or sizes); figures that end in `_cpu` are the same ratios in processor time of
this process, which a busy machine disturbs less, and `_low` and `_high` are the 95 % interval of a median by the
sign test. One thread computes. Models are loaded before the clock runs, and lm-eval's inquiry about the machine at the
end of every evaluation is left out on both sides. Data is read from a warm page cache: it was just written.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.record import Bound, write_record

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set before torch and lm-eval are imported."""
BOUNDS = {
    "score_ratio": "<= 1.02",
    "record_generation_ratio": "<= 1.15",
    "record_loglikelihood_ratio": "<= 1.6",
    "read_ratio": ">= 10",
    "batch_mean_variance_ratio": "<= 1.1",
    "memory_growth": "<= 1.1",
}


def all_figures(quick: bool, seed: int) -> dict[str, Any]:
    """All parts, one after the other."""
    os.environ.update(SETTINGS)
    import torch
    from lm_eval.utils import setup_logging

    from tests.benchmarks.memory import memory_figures
    from tests.benchmarks.reading import ReadingSizes, reading_figures
    from tests.benchmarks.scoring import scoring_figures
    from tests.benchmarks.workload import Sizes

    torch.set_num_threads(1)
    setup_logging("ERROR")
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - begun:5.0f} s  {text}", err=True)

    sizes = Sizes(n_documents=8, answer_tokens=64) if quick else Sizes()
    reading = ReadingSizes(n_tokens=40_000, n_rounds=4, n_epochs=3) if quick else ReadingSizes()
    return {
        **scoring_figures(sizes, 3 if quick else 12, seed, say),
        **reading_figures(reading, seed, say),
        **memory_figures(50 if quick else 200, seed, say),
    }


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True)
@click.option("--quick", is_flag=True, help="Fewer documents, fewer rounds, smaller data.")
@click.option("--seed", default=0)
def main(file: Path, quick: bool, seed: int) -> None:
    """Measure, and write the record."""
    figures = all_figures(quick, seed)
    bounds = [Bound(name, figures[name], bound) for name, bound in BOUNDS.items()]
    deviation = abs(figures["store_bytes_ratio"] - 1)
    bounds.append(Bound("store bytes, deviation from tokens × layers × models × width × bytes", deviation, "<= 0.03"))
    write_record(file, figures, bounds, seeds=[seed])
    for bound in bounds:
        click.echo(f"{'holds ' if bound.holds else 'MISSED'}  {bound.name}: {bound.value:.4g} {bound.bound}", err=True)


if __name__ == "__main__":
    main()
