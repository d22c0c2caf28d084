"""Category shift: of which categories are more latents specific to the candidate than to the baseline?

The paper's protocol (arXiv 2509.18792): each tuned model has a crosscoder of its own with their common
ancestor; the latents specific to the tuned side are counted by category, and the counts' shares compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
class SpecificLatents:
    """The latents specific to one tuned model against the ancestor."""

    categories: Sequence[str]
    masses: npt.NDArray[np.float64]
    """Total activation of each on the held-out tokens; the same length as `categories`."""


@dataclass(frozen=True)
class ShiftRow:
    """One category's latents on either side."""

    category: str
    n_baseline: int
    n_candidate: int
    total_baseline: int
    total_candidate: int
    mass_baseline: float
    """Share of the side's specific activation mass, 0 to 1; 0 where the side has none."""
    mass_candidate: float
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


def category_shift(
    baseline: SpecificLatents, candidate: SpecificLatents, names: Iterable[str] = ()
) -> tuple[ShiftRow, ...]:
    """A row a category: those of `names` and every other that a specific latent has, `unclear` last.

    `names` are the categories that could have been given, so that one without any latent still has its row.
    """
    for side in (baseline, candidate):
        if len(side.categories) != len(side.masses):
            raise ValueError(f"{len(side.categories)} categories with {len(side.masses)} masses")
    order = in_order({*names, *baseline.categories, *candidate.categories, UNCLEAR})
    counts = [
        (_count(candidate, name), len(candidate.categories), _count(baseline, name), len(baseline.categories))
        for name in order
    ]
    p_values = [fisher_exact_p(*count) if _testable(count) else None for count in counts]
    q_values = benjamini_hochberg(np.array(p_values, dtype=np.float64))
    n_tests = sum(p_value is not None for p_value in p_values)
    return tuple(
        _row(name, count, baseline, candidate, p_value, None if p_value is None else float(q), n_tests)
        for name, count, p_value, q in zip(order, counts, p_values, q_values)
    )


Counts = tuple[int, int, int, int]
"""Candidate's count and total, baseline's count and total."""


def _count(side: SpecificLatents, name: str) -> int:
    return sum(category == name for category in side.categories)


def _mass_share(side: SpecificLatents, name: str) -> float:
    masses = np.asarray(side.masses, dtype=np.float64)
    total = float(masses.sum())
    own = np.array([category == name for category in side.categories], dtype=bool)
    return float(masses[own].sum()) / total if total > 0 else 0.0


def _testable(count: Counts) -> bool:
    n_candidate, total_candidate, n_baseline, total_baseline = count
    return total_candidate > 0 and total_baseline > 0 and n_candidate + n_baseline > 0


def _row(
    name: str,
    count: Counts,
    baseline: SpecificLatents,
    candidate: SpecificLatents,
    p_value: float | None,
    q_value: float | None,
    n_tests: int,
) -> ShiftRow:
    n_candidate, total_candidate, n_baseline, total_baseline = count
    reason = _no_change_reason(count)
    change = None if reason else normalised_change(*count)[0]
    low, high = change_interval(*count) or (None, None)
    return ShiftRow(
        category=name,
        n_baseline=n_baseline,
        n_candidate=n_candidate,
        total_baseline=total_baseline,
        total_candidate=total_candidate,
        mass_baseline=_mass_share(baseline, name),
        mass_candidate=_mass_share(candidate, name),
        change=change,
        change_reason=reason,
        low=low,
        high=high,
        p_value=p_value,
        q_value=q_value,
        conclusion=_conclusion(count, p_value, q_value, n_tests),
    )


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
