"""The category shift as rows of the report: the paper's two crosscoders, and one three-way crosscoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness import defaults
from diffharness.latents.shift import ShiftRow, SideLatents, category_shift
from diffharness.latents.taxonomy import load_taxonomy
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.pipeline import Run

MAIN = ("baseline", "candidate")
TWO, THREE = "two crosscoders", "three-way"
"""Protocols: each tuned model has its own crosscoder with the ancestor (arXiv 2509.18792), or all three share one."""


def shift(
    run: Run, described: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> tuple[tuple[schema.CategoryShift, ...], str | None]:
    """The rows of both protocols, or the reason why there are none."""
    if "ancestor" not in run.sides:
        return (), "no ancestor was given"
    if run.config.annotator[0] == "none":
        return (), "nobody was asked to name latents (--annotator none)"
    three = described["ancestor", *MAIN]
    bodies = {TWO: [described["ancestor", side] for side in MAIN], THREE: [three, three]}
    names = _names(run)
    rows = []
    for protocol, both in bodies.items():
        baseline, candidate = (_side(body, side) for body, side in zip(both, MAIN, strict=True))
        rng = np.random.default_rng(run.config.seed)
        found = category_shift(baseline, candidate, rng, names, one_dictionary=protocol == THREE)
        rows += [_row(row, protocol) for row in found]
    return tuple(rows), None


def _names(run: Run) -> set[str]:
    """The categories that latents could have been given."""
    from diffharness.latents.probes import run_probes

    if run.config.annotator[0] == "probe":
        return {probe.category for probe in run_probes(run.config.probes, run.config.taxonomy)}
    return set(load_taxonomy(run.config.taxonomy).names)


def _side(body: Mapping[str, Any], side: str) -> SideLatents:
    own = body["tuned"][side]
    return SideLatents(
        categories=body["categories"],
        is_specific=np.array(own["is_specific"], dtype=bool),
        acquired=np.array(own["acquired"], dtype=np.float64),
        is_matched=None if body["is_matched"] is None else np.array(body["is_matched"], dtype=bool),
    )


def _row(row: ShiftRow, protocol: str) -> schema.CategoryShift:
    values = asdict(row)
    name, low, high = values.pop("category"), values.pop("low"), values.pop("high")
    mass = schema.Interval(
        low=values.pop("mass_low"), high=values.pop("mass_high"), method="percentile bootstrap over latents"
    )
    interval = None
    if low is not None and high is not None:
        interval = schema.Interval(low=low, high=high, method="score interval of the ratio")
    return schema.CategoryShift(
        **values,
        name=name,
        interval=interval,
        mass_interval=mass,
        protocol=protocol,
        is_default=protocol == defaults.SHIFT_PROTOCOL,
    )
