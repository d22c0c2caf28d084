"""Shapley values of a task's real metric, beside what the linear account calls *written* in the same order."""

from __future__ import annotations

from diffharness.report.schema.base import Interval, Model


class ShapleyPlayer(Model):
    """A category, the small categories together, or bias and error."""

    name: str
    categories: tuple[str, ...]
    """Whose latents; none for bias and error."""
    value: float
    """What the player adds to those before it, averaged over all orders; in the metric's unit."""
    interval: Interval | None
    standard_error: float | None
    """Of drawing orders; `None` where all sets were scored."""
    written: float
    """What it writes under the candidate's upper layers, in the surrogate's unit."""
    written_interval: Interval
    agrees: bool | None
    """Whether both have the same sign (turned where the surrogate and the metric point in opposite directions); `None`
    where neither interval excludes 0, or the value is exactly 0."""

    @property
    def is_still(self) -> bool:
        """Whether what it writes is clear, and the metric does not move at all: no decision hangs on it."""
        return self.value == 0.0 and self.written_interval.excludes_zero()


class Shapley(Model):
    """One task's written bracket on its real metric, shared out over players.

    The score of a set of players is that of the candidate's upper layers on the baseline's state plus what those
    players change. All of it is on the documents of the task's account.
    """

    task: str
    metric: str
    players: tuple[ShapleyPlayer, ...] = ()
    reason: str | None = None
    """Why there are no values."""
    exact: bool = True
    """Whether all sets were scored, not only those of drawn orders."""
    n_subsets: int = 0
    n_documents: int = 0
    v_none: float | None = None
    """The metric of the candidate's upper layers on the baseline's state."""
    v_all: float | None = None
    """The metric of the candidate itself, by the same passes."""
    recorded: float | None = None
    """The candidate's metric as lm-eval scored it, on the same documents."""
    n_changed: int = 0
    """Documents whose value differs between the two."""
    residual: float = 0.0
    """Sum of the values − (v_all − v_none)."""
    same_unit: bool = False
    """Whether the surrogate is in the metric's unit."""
    interval_reason: str | None = None
    """Why there are no intervals."""


class ShapleyAgreement(Model):
    """Shapley values against *written*, over all pairs of a task and a player."""

    n_pairs: int
    n_clear: int
    """Pairs in which either interval excludes 0 and the value is not exactly 0."""
    n_still: int = 0
    """Pairs in which what is written is clear and the value is exactly 0: it has no sign to compare."""
    sign_agreement: float | None
    """Share of those with the same sign."""
    n_correlated: int
    """Pairs of tasks whose surrogate is in the metric's unit."""
    correlation: float | None
    """Pearson, over those."""
