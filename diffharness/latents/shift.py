"""Category shift: of which categories are more latents specific to the candidate than to the baseline?

The paper's protocol (arXiv 2509.18792): each tuned model has a crosscoder of its own with their common
ancestor; the latents specific to the tuned side are counted by category, and the counts' shares compared. A three-way
crosscoder gives both sides in one dictionary. Beside the counts: acquired mass, which all latents have some of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffharness.latents.mass import mass_shift
from diffharness.latents.taxonomy import UNCLEAR, in_order
from diffharness.statistics.multiple import benjamini_hochberg
from diffharness.statistics.proportions import (
    change_interval,
    fisher_exact_p,
    normalised_change,
    total_to_tell,
)

LEVEL = 0.05


@dataclass(frozen=True)
class SideLatents:
    """The latents of one tuned model's dictionary with the ancestor; arrays have one entry a latent."""

    categories: Sequence[str]
    is_specific: npt.NDArray[np.bool_]
    """Specific to the tuned model against the ancestor."""
    acquired: npt.NDArray[np.float64]
    """Acquired mass: how much more of the latent the tuned model holds than the ancestor on the same texts, summed over
    tokens (0 where it holds less). A specific latent counts whole, a shared one with what came on top."""
    is_matched: npt.NDArray[np.bool_] | None = None
    """Found again by the other seeds; none with a single seed."""

    @property
    def specific(self) -> list[str]:
        """Categories of the specific latents."""
        return [name for name, counts in zip(self.categories, self.is_specific, strict=True) if counts]

    def n_matched(self, name: str) -> int | None:
        """Specific latents of a category that the other seeds have too."""
        if self.is_matched is None:
            return None
        both = self.is_specific & self.is_matched
        return sum(own == name for own, counts in zip(self.categories, both, strict=True) if counts)


def acquired_mass(presence_LM: npt.NDArray[np.float64], tuned: int) -> npt.NDArray[np.float64]:
    """What a tuned model holds of each latent beyond the ancestor: max(0, presence in `tuned` − in the other).

    `presence_LM` is `LatentScaling.presence_LM` of the pair of the two.
    """
    return np.maximum(presence_LM[:, tuned] - presence_LM[:, 1 - tuned], 0.0)


@dataclass(frozen=True)
class ShiftRow:
    """One category's latents on either side."""

    category: str
    n_baseline: int
    n_candidate: int
    total_baseline: int
    total_candidate: int
    n_matched_baseline: int | None
    n_matched_candidate: int | None
    change: float | None
    """100 · ((n_c/N_c)/(n_b/N_b) − 1), in percent."""
    change_reason: str | None
    low: float | None
    """95 % score interval of the change; `None` where there is no finite one."""
    high: float | None
    p_value: float | None
    """Fisher exact, two-sided; `None` where there is nothing to test."""
    q_value: float | None
    """Benjamini–Hochberg over the categories that could be tested."""
    conclusion: str
    """A sentence that begins with *up*, *down* or *too few to tell*."""
    mass_baseline: float
    """Share of the side's acquired mass, 0 to 1; 0 where the side has none."""
    mass_candidate: float
    mass_change: float
    """100 · (candidate's share − baseline's), in points."""
    mass_low: float
    """95 % interval of it: latents resampled."""
    mass_high: float
    mass_p_value: float | None
    """Categories dealt out anew to the latents, two-sided; `None` where there is nothing to test."""
    mass_q_value: float | None
    mass_conclusion: str
    """A sentence that begins with *up*, *down* or *too few to tell*."""


def category_shift(
    baseline: SideLatents,
    candidate: SideLatents,
    rng: np.random.Generator,
    names: Iterable[str] = (),
    *,
    one_dictionary: bool = False,
    n_draws: int = 2000,
) -> tuple[ShiftRow, ...]:
    """A row a category: those of `names` and every other that a latent has, `unclear` last.

    Two measures stand side by side: counts of specific latents, as in the paper, and shares of acquired mass.

    Args:
        baseline: the baseline's latents against the ancestor.
        candidate: the candidate's.
        rng: for shuffles and resamples.
        names: the categories that could have been given, so that one without any latent still has its row.
        one_dictionary: whether both sides are of one crosscoder, latent by latent, and not of two.
        n_draws: shuffles, and resamples.
    """
    for side in (baseline, candidate):
        if not len(side.categories) == len(side.is_specific) == len(side.acquired):
            raise ValueError(f"{len(side.categories)} categories with {len(side.acquired)} masses")
    order = in_order({*names, *baseline.categories, *candidate.categories, UNCLEAR})
    totals = len(candidate.specific), len(baseline.specific)
    counts = [(candidate.specific.count(name), totals[0], baseline.specific.count(name), totals[1]) for name in order]
    p_values = [fisher_exact_p(*count) if _testable(count) else None for count in counts]
    q_values = benjamini_hochberg(np.array(p_values, dtype=np.float64))
    n_tests = sum(p_value is not None for p_value in p_values)
    masses = mass_shift(baseline, candidate, order, rng, one_dictionary=one_dictionary, n_draws=n_draws)
    rows = []
    for name, count, p_value, q, mass in zip(order, counts, p_values, q_values, masses, strict=True):
        reason = _no_change_reason(count)
        low, high = change_interval(*count) or (None, None)
        q_value = None if p_value is None else float(q)
        rows.append(
            ShiftRow(
                category=name,
                n_baseline=count[2],
                n_candidate=count[0],
                total_baseline=count[3],
                total_candidate=count[1],
                n_matched_baseline=baseline.n_matched(name),
                n_matched_candidate=candidate.n_matched(name),
                change=None if reason else normalised_change(*count)[0],
                change_reason=reason,
                low=low,
                high=high,
                p_value=p_value,
                q_value=q_value,
                conclusion=_conclusion(count, p_value, q_value, n_tests),
                mass_baseline=mass.baseline,
                mass_candidate=mass.candidate,
                mass_change=100 * (mass.candidate - mass.baseline),
                mass_low=100 * mass.low,
                mass_high=100 * mass.high,
                mass_p_value=mass.p_value,
                mass_q_value=mass.q_value,
                mass_conclusion=mass.conclusion,
            )
        )
    return tuple(rows)


Counts = tuple[int, int, int, int]
"""Candidate's count and total, baseline's count and total."""


def _testable(count: Counts) -> bool:
    n_candidate, total_candidate, n_baseline, total_baseline = count
    return total_candidate > 0 and total_baseline > 0 and n_candidate + n_baseline > 0


def _no_change_reason(count: Counts) -> str | None:
    """Why no change in percent is given: where a count is 0 the ratio is 0, infinite or unknown."""
    n_candidate, total_candidate, n_baseline, total_baseline = count
    if total_baseline == 0 or total_candidate == 0:
        empty = "baseline" if total_baseline == 0 else "candidate"
        return f"no latent at all is specific to the {empty}"
    if n_baseline == n_candidate == 0:
        return "no latent of this category is specific to either side"
    if n_baseline == 0:
        return "no latent of this category is specific to the baseline, so there is no share to compare with"
    if n_candidate == 0:
        return "no latent of this category is specific to the candidate, so the ratio is 0 whatever the totals"
    return None


def _conclusion(count: Counts, p_value: float | None, q_value: float | None, n_tests: int) -> str:
    n_candidate, total_candidate, n_baseline, total_baseline = count
    shares = (
        f"{n_candidate} of {total_candidate} latents specific to the candidate "
        f"against {n_baseline} of {total_baseline} specific to the baseline"
    )
    if p_value is None or q_value is None:
        return f"too few to tell: {_no_change_reason(count)}"
    if q_value < LEVEL:
        up = n_candidate * total_baseline > n_baseline * total_candidate
        return f"{'up' if up else 'down'}: {shares} (q = {q_value:.2g})"
    if p_value < LEVEL:
        corrected = f"p = {p_value:.2g} alone, q = {q_value:.2g} after looking at {n_tests} categories"
        return f"too few to tell: {shares} ({corrected})"
    return f"too few to tell: {shares} (p = {p_value:.2g}); {_needed(count)}"


def _needed(count: Counts) -> str:
    n = total_to_tell(*count)
    if n is None:
        return "the two shares are equal"
    if n <= min(count[1], count[3]):
        return "a few more specific latents on each side would be needed"
    return f"were these the true shares, it would take about {n:,} specific latents on each side to show it"
