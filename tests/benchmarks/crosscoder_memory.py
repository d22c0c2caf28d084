"""Peak memory of a few training steps, alone in their process.

    python -m tests.benchmarks.crosscoder_memory {ours|peer} --latents L [--peer PATH]

Prints JSON: the resident set once data and libraries are loaded, the peak when the steps are done, and the peak at the
end (ours calibrates its threshold after the last step).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.memory import peak_resident_bytes


@click.command()
@click.argument("side", type=click.Choice(["ours", "peer"]))
@click.option("--latents", required=True, type=int)
@click.option("--width", default=512)
@click.option("--k", default=32)
@click.option("--batch", default=2048)
@click.option("--steps", default=4)
@click.option("--threads", default=2)
@click.option("--seed", default=0)
@click.option("--peer", type=click.Path(path_type=Path))
def main(
    side: str, latents: int, width: int, k: int, batch: int, steps: int, threads: int, seed: int, peer: Path | None
) -> None:
    """Train, and print what it took."""
    import torch

    from diffharness.crosscoder import TrainingSettings
    from tests.benchmarks.crosscoder_data import PlantedActivations
    from tests.benchmarks.crosscoder_peer import Peer
    from tests.benchmarks.crosscoder_rounds import Data, train_in_turns

    torch.set_num_threads(threads)
    world = PlantedActivations(width, 1024, seed)
    data = Data(*(world.draw(n, seed + i) for i, n in enumerate((16 * batch, 2 * batch, 64))))
    settings = TrainingSettings(
        n_latents=latents, k=k, n_steps=steps, batch_tokens=batch, seed=seed, dead_after_tokens=10_000_000
    )
    moments = data.moments()
    module = None if peer is None else Peer(peer)
    _touch_libraries()
    body = {"loaded_bytes": _resident_bytes(), "reset": _reset_peak()}
    if side == "ours":

        def progress(_done: int, _total: int) -> None:
            body["steps_bytes"] = peak_resident_bytes()

        train_in_turns(data, settings, progress)
    else:
        if module is None:
            raise click.UsageError("peer needs --peer PATH")
        trainer = module.trainer(
            n_steps=steps, n_latents=latents, k=k, mean_MD=moments[0], std_MD=moments[1], seed=seed
        )
        for step in range(steps):  # without a loader, which ours has
            trainer.update(step, data.train_NMD[step * batch : (step + 1) * batch].float())
        body["steps_bytes"] = peak_resident_bytes()
    click.echo(json.dumps({**body, "peak_bytes": peak_resident_bytes()}))


def _touch_libraries() -> None:
    """What a first product and a first optimiser step load is no training's memory."""
    import torch

    weight = torch.nn.Parameter(torch.ones(64, 64))
    (torch.ones(64, 64) @ weight).sum().backward()
    torch.optim.Adam([weight]).step()
    torch.mm(torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))


def _resident_bytes() -> int:
    """The resident set now; the peak where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return peak_resident_bytes() if found is None else int(found[1]) * 1024


def _reset_peak() -> bool:
    """Forget the peak of the loading, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_of(side: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `main` prints in a process of its own."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.benchmarks.crosscoder_memory", side, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def memory_figures(latents: int, peer: Path | None, options: dict[str, Any]) -> dict[str, float]:
    """Growth over the loaded process and absolute peaks, in MB, and our growth as a share of the peer's."""
    figures: dict[str, float] = {}
    growth = {}
    for side in ("ours",) if peer is None else ("ours", "peer"):
        own = {"latents": latents, **options, **({"peer": peer} if side == "peer" else {})}
        found = memory_of(side, own)
        growth[side] = found["peak_bytes"] - found["loaded_bytes"]
        figures |= {
            f"{side}_memory_growth_mb_{latents}": growth[side] / 1e6,
            f"{side}_memory_growth_of_steps_mb_{latents}": (found["steps_bytes"] - found["loaded_bytes"]) / 1e6,
            f"{side}_memory_peak_mb_{latents}": found["peak_bytes"] / 1e6,
            f"{side}_memory_loaded_mb_{latents}": found["loaded_bytes"] / 1e6,
        }
    if peer is not None:
        figures[f"memory_over_peer_{latents}"] = growth["ours"] / growth["peer"]
    return figures


if __name__ == "__main__":
    main()
