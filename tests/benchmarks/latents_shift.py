"""Category shift on organisms with one capability absent from one side and full on the other, by every measure.

The crosscoders are those of a run with an ancestor: the paper's two, and one three-way. No task is evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffharness import organism
from diffharness.assembly.shift import TWO, shift
from diffharness.config import RunConfig
from diffharness.latents.mass import mass_shift
from diffharness.latents.shift import SideLatents
from diffharness.organism.plant import DEFAULT_STRENGTHS, Plant
from diffharness.pipeline import Run

STILL = {name: [0.85, 0.85] for name in DEFAULT_STRENGTHS}
MOVED = [name for name, (baseline, candidate) in DEFAULT_STRENGTHS.items() if baseline != candidate]
CASES: dict[str, dict[str, Any]] = {
    f"{name} {'up' if pair[1] else 'down'}": {**STILL, name: list(pair)} for name in MOVED for pair in ((0, 1), (1, 0))
}
MEASURES = ("counts", "mass")
N_SHUFFLES = 20
"""Shuffles of the sides a plant and protocol."""


def shift_figures(cases: dict[str, dict[str, Any]], seed: int, work: Path) -> dict[str, Any]:
    """How often each measure puts the planted category on the right side, and calls anything with sides shuffled."""
    right: dict[str, list[bool]] = {}
    called: dict[str, list[bool]] = {}
    details = []
    for name, plant in cases.items():
        run, full = _run(plant, seed, work / f"shift-{name}-{seed}".replace(" ", "-"))
        described = {sides: run.read_json(run.latents(sides), "latents.json") for sides in run.ancestral}
        rows, _ = shift(run, described)
        for category, (baseline, candidate) in full.strengths.items():
            if baseline == candidate:
                continue
            up = candidate > baseline
            for row in rows:
                if row.name != category:
                    continue
                shares = (row.n_candidate * row.total_baseline, row.n_baseline * row.total_candidate)
                change = row.mass_change or 0.0
                largest = max(abs(r.mass_change or 0.0) for r in rows if r.protocol == row.protocol)
                right.setdefault(f"{row.protocol}: shift by counts on the right side", []).append(
                    shares[0] > shares[1] if up else shares[0] < shares[1]
                )
                right.setdefault(f"{row.protocol}: shift by mass on the right side", []).append(
                    change > 0 if up else change < 0
                )
                right.setdefault(f"{row.protocol}: planted category has the largest shift by mass", []).append(
                    abs(change) == largest
                )
                details.append(
                    {"plant": name, "protocol": row.protocol, "category": category, "up": up,
                     "counts": [row.n_baseline, row.total_baseline, row.n_candidate, row.total_candidate],
                     "mass": [row.mass_baseline, row.mass_candidate], "mass p": row.mass_p_value}
                )  # fmt: skip
        for protocol in dict.fromkeys(row.protocol for row in rows):
            called.setdefault(protocol, []).extend(_called_by_chance(described, protocol, seed))
    figures: dict[str, Any] = {key: float(np.mean(values)) for key, values in right.items()}
    figures |= {
        f"{protocol}: categories called with sides shuffled": float(np.mean(v)) for protocol, v in called.items()
    }
    return {**figures, "plants of the shift": len(cases), "shift details": details}


def _run(plant: dict[str, Any] | None, seed: int, folder: Path) -> tuple[Run, Plant]:
    models = organism.build(plant, seed=seed)
    config = RunConfig(
        baseline=str(models.baseline),
        candidate=str(models.candidate),
        ancestor=str(models.ancestor),
        tasks=("organism",),
        include_path=(organism.tasks_path(),),
        corpus=(str(models.corpus),),
        probes=models.probes,
        seed=seed,
        output=folder,
    )
    return Run(config), Plant.load(models.plant)


def _called_by_chance(described: dict[tuple[str, ...], Any], protocol: str, seed: int) -> list[bool]:
    """Whether a category is called at 5 % when the sides of latents are drawn by lot."""
    rng = np.random.default_rng(seed)
    if protocol == TWO:
        bodies = [described["ancestor", side] for side in ("baseline", "candidate")]
    else:
        bodies = [described["ancestor", "baseline", "candidate"]] * 2
    masses = [np.array(b["tuned"][s]["acquired"]) for b, s in zip(bodies, ("baseline", "candidate"), strict=True)]
    names = sorted({*bodies[0]["categories"], *bodies[1]["categories"]})
    one = protocol != TWO
    found = []
    for _ in range(N_SHUFFLES):
        sides = _shuffled(bodies, masses, rng, one=one)
        rows = mass_shift(*sides, names, rng, one_dictionary=one, n_draws=400)
        found += [row.p_value < 0.05 for row in rows if row.p_value is not None]
    return found


def _shuffled(bodies: list[Any], masses: list[np.ndarray], rng: np.random.Generator, *, one: bool) -> list[SideLatents]:
    if one:
        swap = rng.random(len(masses[0])) < 0.5
        new = [np.where(swap, masses[1], masses[0]), np.where(swap, masses[0], masses[1])]
        return [SideLatents(bodies[0]["categories"], np.zeros(len(m), dtype=bool), m) for m in new]
    pooled = [(c, m) for body, mass in zip(bodies, masses, strict=True) for c, m in zip(body["categories"], mass)]
    side = rng.random(len(pooled)) < 0.5
    found = []
    for which in (False, True):
        own = [pair for pair, s in zip(pooled, side, strict=True) if s == which]
        masses = [m for _, m in own]
        found.append(SideLatents([c for c, _ in own], np.zeros(len(own), dtype=bool), np.array(masses)))
    return found
