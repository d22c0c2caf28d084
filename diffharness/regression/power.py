"""What a rule could have found: the smallest loss beyond its margin, and the documents that would settle it.

The formulas take the normal (or Student's) approximation of a mean: Miller 2024, "Adding Error Bars to Evals"
(arXiv 2411.00640), section 5; here one-sided, and with the margin.
"""

from __future__ import annotations

import math

from diffharness.regression.evidence import Evidence
from diffharness.statistics.distributions import normal_quantile, student_quantile
from diffharness.statistics.power import POWER
from diffharness.statistics.roots import falling_root

_LARGEST = 2.0**40
"""Standard errors beyond the margin that are looked at."""
_TOLERANCE = 1e-12


def detectable_loss(evidence: Evidence, margin: float, alpha: float, power: float = POWER) -> float | None:
    """The smallest loss beyond the margin that raises an alarm with this power.

    An alarm is raised where the gap lies below −max(margin, t_α · error): then the upper bound is below 0 and the
    margin is passed. A true loss of margin + x does so with the power asked for where
    margin + x ≥ max(margin, t_α · error) + t_power · error.

    Args:
        evidence: of the documents at hand.
        margin: the loss that is accepted.
        alpha: one-sided, as corrected.
        power: asked for.

    Returns:
        x, at least 0; `None` where nothing tells how scores vary, or no loss could be found.
    """
    t_alpha = float(student_quantile(1 - alpha, evidence.freedom))
    t_power = float(student_quantile(power, evidence.freedom))

    def short(loss: float) -> float:
        test, own = evidence.errors_at(loss)
        return max(margin, t_alpha * test) + t_power * own - loss

    test, _ = evidence.errors_at(margin)
    if not math.isfinite(test):
        return None
    most = margin + 1.0
    while short(most) > 0:
        most *= 2
        if most > _LARGEST:
            return None
    return max(falling_root(short, 0.0, margin, most) - margin, 0.0)


def n_to_settle(evidence: Evidence, n: int, margin: float, alpha: float, alpha_alarm: float) -> int | None:
    """The fewest documents at which a rule would pass or raise an alarm, were gap and variance to stay as they are.

    A gap above −margin can only come to pass, one below only to be an alarm. Half-widths shrink with √n; where no
    document differs with n, as Tango's z² / (n + z²).

    Args:
        evidence: of the documents at hand.
        n: their number.
        margin: the loss that is accepted.
        alpha: one-sided, of passing.
        alpha_alarm: one-sided, of an alarm, as corrected.

    Returns:
        More than `n`; `None` where the gap lies at the margin, or nothing tells how scores vary.
    """
    gap, error = evidence.gap, evidence.standard_error
    room = gap + margin
    if error is None or abs(room) <= _TOLERANCE or n < 1:
        return None
    if error == 0 and gap == 0:
        span = -evidence.bounds(1 - 2 * alpha)[0]
        z_square = float(normal_quantile(1 - alpha)) ** 2
        return max(n + 1, math.ceil((n + z_square) * span / margin - z_square - 1e-6))
    passing = room > 0
    one_sided, needed = (alpha, room) if passing else (alpha_alarm, -gap)
    low, high = evidence.bounds(1 - 2 * one_sided)
    reach = gap - low if passing else high - gap
    half = max(reach, float(student_quantile(1 - one_sided, evidence.freedom)) * error)
    if not math.isfinite(half):
        return None
    return max(n + 1, math.ceil(n * (half / needed) ** 2))
