"""What the report claims of a category, and whether it beats chance."""

from __future__ import annotations

from typing import Literal

from diffharness.report.schema.base import Interval, Model


class RandomEffects(Model):
    """What random sets of latents do that fire as often and move the state as far."""

    mean: float
    sd: float
    """Standard deviation over the sets."""
    q05: float
    q95: float
    n_sets: int
    exceed: int
    """Sets with an effect at least as large as the claim's, of either sign."""
    factor: float
    """Median of what their changes were multiplied by to have the category's norm."""


class Claim(Model):
    """A category's latents on one task with a real gap: what undoing their change does, and whether any would do.

    Every number is in the surrogate's unit and from documents that did not select the claim; one that no half of the
    documents selects has none.
    """

    task: str
    category: str
    origin: Literal["written", "read"]
    effect: float | None
    """*Written*: the candidate's score minus that with the category put back. *Read*: what taking the category out of
    the baseline's state costs under the candidate's layers above, minus the same under the baseline's."""
    interval: Interval | None
    n: int
    """Documents that the claim was tested on."""
    random_effects: RandomEffects | None
    """`None` where nothing fair can be drawn, or nothing was tested."""
    p_random: float | None
    """(1 + exceed) / (1 + n_sets)."""
    p_corrected: float | None
    """Of the effect's studentised distance from the random ones, by Holm over everything that was looked at."""
    mean_difference: float | None
    """The same with the mean difference of the two models' states, as a direction, in place of the category."""
    reconstruct_only: float | None
    """The same with the crosscoder's reconstruction: no latent changed, its error dropped."""
    swap: float | None
    """All of it. *Written*: the candidate's score minus that of its layers above on the baseline's state. *Read*: that
    minus the baseline's score."""
    is_causal: bool
    """Whether sentences may call the category a cause."""
    words: str
    """What may be said of it, and why no more."""
