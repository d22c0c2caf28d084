"""The depth profile as a part of the report, and the layer that `--layer auto` means; needs no model library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffharness import defaults
from diffharness.config import AUTO, RunConfig
from diffharness.errors import UsageError
from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.pipeline import Run
    from diffharness.recorded import Recorded

METHOD = "percentile bootstrap over documents, by stratum"


@dataclass(frozen=True)
class LayerChoice:
    """The layer that `--layer auto` means, and why."""

    layer: int
    why: str


def profiles(run: Run) -> tuple[schema.DepthProfile, ...]:
    """Every task's profile, in the leaderboard's order."""
    rows = run.read_json(run.comparison(), "comparison.json")["rows"]
    return profiles_from(run.read_json(run.depth(), "depth.json"), rows, run.config.smallest_effect)


def missing(run: Run) -> Mapping[str, str]:
    """Tasks without a profile, and why."""
    return run.read_json(run.depth(), "depth.json")["reasons"]


def layer_choice(run: Run) -> LayerChoice:
    """The layer by the rule of `--layer auto`.

    Raises:
        UsageError: no layer below the last can be compared at.
    """
    body = run.read_json(run.depth(), "depth.json")
    return choose(profiles(run), body["layers"], body["n_layers"])


def notes(run: Run) -> tuple[str, ...]:
    """What a reader has to know of a layer that was not named."""
    if run.config.layer != AUTO:
        return ()
    found = layer_choice(run)
    return (f"Layer {found.layer} was chosen by --layer auto, {defaults.AUTO_RULE}: {found.why}.",)


def refuse_recorded(config: RunConfig, recorded: Mapping[str, Recorded]) -> None:
    """Refuse `--layer auto` beside activations of some layers only.

    Raises:
        UsageError: a recording holds activations.
    """
    for side, found in recorded.items():
        if config.layer == AUTO and (found.folder / "activations").is_dir():
            raise UsageError(
                f"--layer auto chooses among all layers, but --{side}-results {found.folder} holds the activations of "
                "some; leave --layer out, or record without layer="
            )


def choose(profiles: Sequence[schema.DepthProfile], layers: Sequence[int], n_layers: int) -> LayerChoice:
    """The first layer that carries half of the gaps (`defaults.AUTO_RULE`).

    Args:
        profiles: of all tasks.
        layers: that can be compared at.
        n_layers: of the models.

    Raises:
        UsageError: there is none but the last.
    """
    usable = [layer for layer in layers if layer < n_layers - 1]
    if not usable:
        raise UsageError("--layer auto finds no layer below the last that can be compared at; name one")
    together = schema.carried_together(profiles)
    if not together:
        middle = min(usable, key=lambda layer: abs(layer - n_layers // 2))
        return LayerChoice(middle, "no task has a gap to place, so it is the middle one")
    half = [layer for layer in usable if together[layer] >= schema.HALF]
    if half:
        return LayerChoice(half[0], f"it is the first to carry half of the gaps ({_percent(together[half[0]])})")
    most = max(usable, key=lambda layer: together[layer])
    return LayerChoice(
        most, f"none below the last carries half of the gaps, this one most ({_percent(together[most])})"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def profiles_from(
    body: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], smallest_effect: float
) -> tuple[schema.DepthProfile, ...]:
    """Profiles from what the stage left, the leaderboard's rows and the smallest gap that counts."""
    from diffharness.assembly.scores import moved_tasks

    moved = moved_tasks(rows, smallest_effect)
    names = [row["task"] for row in rows if row["is_primary"] and row["task"] in body["tasks"]]
    return tuple(_profile(name, body["tasks"][name], body, moved=name in moved) for name in names)


def _profile(name: str, found: Mapping[str, Any], body: Mapping[str, Any], *, moved: bool) -> schema.DepthProfile:
    reason = None
    if not moved:
        reason = "no gap to explain"
    elif found["share_low_L"] is None:
        reason = "the interval of the gap on these documents holds 0"
    place = {layer: i for i, layer in enumerate(body["layers"])}
    spans = list(zip(found["share_low_L"] or (), found["share_high_L"] or (), strict=True))
    layers = []
    for layer in range(body["n_layers"]):
        if layer not in place:
            layers.append(_untried(layer, body["refused"][str(layer)]))
            continue
        i = place[layer]
        layers.append(
            schema.LayerDepth(
                layer=layer,
                carried=found["carried_L"][i],
                carried_raw=found["carried_raw_L"][i],
                interval=_interval(found["low_L"][i], found["high_L"][i]),
                share=found["carried_L"][i] / found["gap"] if reason is None else None,
                share_interval=_interval(*spans[i]) if reason is None else None,
            )
        )
    return schema.DepthProfile(
        task=name,
        unit=found["unit"],
        moved=moved,
        n_documents=found["n_documents"],
        n_task=found["n_task"],
        gap=found["gap"],
        gap_interval=_interval(found["gap_low"], found["gap_high"]),
        layers=tuple(layers),
        share_reason=reason,
    )


def _untried(layer: int, reason: str) -> schema.LayerDepth:
    return schema.LayerDepth(
        layer=layer, carried=None, carried_raw=None, interval=None, share=None, share_interval=None, reason=reason
    )


def _interval(low: float, high: float) -> schema.Interval:
    return schema.Interval(low=low, high=high, method=METHOD)
