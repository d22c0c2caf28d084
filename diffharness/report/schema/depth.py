"""The depth profile: how much of a task's gap the residual stream carries already after each layer."""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.report.schema.base import Interval, Model

HALF = 0.5
"""The share at which a gap is called carried: by `--layer auto`, and in the report's sentence."""


class LayerDepth(Model):
    """What one layer carries: the candidate's score minus that of its layers above, on the baseline's state."""

    layer: int
    carried: float | None
    """In the surrogate's unit."""
    carried_raw: float | None
    """In units of m (log-odds or log-likelihood)."""
    interval: Interval | None
    share: float | None
    """carried / gap; the rest is read above the layer. `None` where the gap is too small to share out."""
    share_interval: Interval | None
    reason: str | None = None
    """Why the layer could not be tried."""


class DepthProfile(Model):
    """One task's gap by layer, on some of its documents."""

    task: str
    unit: str
    moved: bool
    """Whether the task's verdict is improved or regressed."""
    n_documents: int
    """Documents that were read, drawn in strata by what became of their score."""
    n_task: int
    gap: float
    """The surrogate's, as estimated from these documents."""
    gap_interval: Interval
    layers: tuple[LayerDepth, ...]
    share_reason: str | None = None
    """Why there are no shares."""

    def first_half(self) -> int | None:
        """The first layer that carries half of the gap."""
        return next((row.layer for row in self.layers if row.share is not None and row.share >= HALF), None)


def carried_together(profiles: Sequence[DepthProfile]) -> dict[int, float]:
    """By layer, the share of the moved tasks' gaps that it carries, weighted by the gaps' sizes.

    What a task's layer carries counts in the direction of its gap, from nothing to the whole. Empty without a gap;
    layers that could not be tried are left out.
    """
    moved = [profile for profile in profiles if profile.moved and profile.gap]
    total = sum(abs(profile.gap) for profile in moved)
    found: dict[int, float] = {}
    for rows in zip(*(profile.layers for profile in moved), strict=True):
        parts = [
            abs(profile.gap) * min(max(row.carried / profile.gap, 0.0), 1.0)
            for profile, row in zip(moved, rows, strict=True)
            if row.carried is not None
        ]
        if len(parts) == len(moved):
            found[rows[0].layer] = sum(parts) / total
    return found
