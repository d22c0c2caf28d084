"""Two proportions: the paper's normalised change, Fisher's exact test and the interval of their ratio."""

from __future__ import annotations

import numpy as np

from diffharness.statistics.distributions import normal_quantile
from diffharness.statistics.roots import falling_root


def normalised_change(a: int, total_a: int, b: int, total_b: int) -> tuple[float | None, str | None]:
    """100 · ((a / total_a) / (b / total_b) − 1), in percent, or `None` and the reason why there is none.

    How the paper measures a category's shift, a being the candidate's count: 2 of 89 against 1 of 112 is
    +151.7 (arXiv 2509.18792; its formula is inferred from its figures).
    """
    _check(a, total_a, b, total_b)
    if total_a == 0 or total_b == 0:
        return None, "one side has none at all to take a share of"
    if b == 0:
        return None, "the share compared with is 0"
    return 100.0 * (a * total_b / (total_a * b) - 1.0), None


def fisher_exact_p(a: int, total_a: int, b: int, total_b: int) -> float:
    """Two-sided p-value of Fisher's exact test that a of `total_a` and b of `total_b` are one proportion."""
    _check(a, total_a, b, total_b)
    from scipy import stats  # takes a second, and a check of scores does without

    table = np.array([[a, total_a - a], [b, total_b - b]])
    return float(np.asarray(stats.fisher_exact(table))[1])


def ratio_interval(a: int, total_a: int, b: int, total_b: int, level: float = 0.95) -> tuple[float, float] | None:
    """Score interval of (a / total_a) / (b / total_b): Koopman 1984, as Miettinen & Nurminen 1985 write it.

    Chosen because it needs no added counts and holds its level down to counts of 1 (Fagerland, Lydersen &
    Laake 2015). a = 0 gives (0, high), b = 0 gives (low, ∞), both 0 or an empty side `None`.
    """
    _check(a, total_a, b, total_b)
    if total_a == 0 or total_b == 0 or a == b == 0:
        return None
    z = float(normal_quantile((1 + level) / 2))

    def score(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        linear = total_a * ratio + a + total_b + b * ratio
        square = (total_a + total_b) * ratio
        root = max(linear**2 - 4 * square * (a + b), 0.0)
        p_b = 2 * (a + b) / (linear + np.sqrt(root))
        p_a = min(ratio * p_b, 1.0)
        variance = p_a * (1 - p_a) / total_a + ratio**2 * p_b * (1 - p_b) / total_b
        distance = a / total_a - ratio * b / total_b
        if variance > 0:
            return distance / float(np.sqrt(variance))
        return 0.0 if abs(distance) < 1e-12 else float(np.copysign(np.inf, distance))

    low = 0.0 if a == 0 else float(np.exp(falling_root(score, z, -40.0, 40.0)))
    high = float("inf") if b == 0 else float(np.exp(falling_root(score, -z, -40.0, 40.0)))
    return low, high


def change_interval(a: int, total_a: int, b: int, total_b: int, level: float = 0.95) -> tuple[float, float] | None:
    """`ratio_interval` in percent change, or `None` where an end is infinite or there is no ratio."""
    ratio = ratio_interval(a, total_a, b, total_b, level)
    if ratio is None or not np.isfinite(ratio[1]):
        return None
    return 100.0 * (ratio[0] - 1.0), 100.0 * (ratio[1] - 1.0)


def total_to_tell(a: int, total_a: int, b: int, total_b: int, level: float = 0.95) -> int | None:
    """How many a side would show the two shares as different with 80 % power, were they the true ones.

    n = (z_level + z_power)² (p_a(1 − p_a) + p_b(1 − p_b)) / (p_a − p_b)²; `None` where the shares are equal
    or unknown.
    """
    _check(a, total_a, b, total_b)
    if total_a == 0 or total_b == 0 or a * total_b == b * total_a:
        return None
    p_a, p_b = a / total_a, b / total_b
    z = normal_quantile((1 + level) / 2) + normal_quantile(0.8)
    return int(np.ceil(z**2 * (p_a * (1 - p_a) + p_b * (1 - p_b)) / (p_a - p_b) ** 2))


def _check(a: int, total_a: int, b: int, total_b: int) -> None:
    if not (0 <= a <= total_a and 0 <= b <= total_b):
        raise ValueError(f"{a} of {total_a} and {b} of {total_b} are no counts")
