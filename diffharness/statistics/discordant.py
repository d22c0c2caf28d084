"""Right and wrong on the same documents: test and interval from the counts of pairs on which two models disagree."""

from __future__ import annotations

import math

from diffharness.statistics.distributions import binomial_cdf, normal_quantile
from diffharness.statistics.roots import falling_root


def mcnemar_mid_p(n_up: int, n_down: int) -> float:
    """Two-sided mid-p of McNemar's test on the discordant pairs (Fagerland, Lydersen & Laake 2013)."""
    n = n_up + n_down
    if n == 0:
        return 1.0
    k = min(n_up, n_down)
    return float(min(1.0, binomial_cdf(k, n, 0.5) + binomial_cdf(k - 1, n, 0.5)))


def tango_interval(n_up: int, n_down: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a difference of paired proportions (Tango 1998), from the discordant counts.

    Chosen over Newcombe's paired interval because it does not depend on the concordant split: with few
    discordant pairs Newcombe's covers as little as 63 % (n = 100, a true gap of 1 point, 60 % right), this
    one 93 % and more.
    """
    if n < 1 or min(n_up, n_down) < 0 or n_up + n_down > n:
        raise ValueError(f"{n_up} + {n_down} discordant pairs of {n} are no counts")
    z = float(normal_quantile((1 + level) / 2))
    estimate = (n_up - n_down) / n

    def score(delta: float) -> float:
        return tango_score(n_up, n_down, n, delta)

    return falling_root(score, z, -1.0, estimate), falling_root(score, -z, estimate, 1.0)


def tango_score(n_up: int, n_down: int, n: int, delta: float) -> float:
    """How many standard errors the found difference lies above `delta`, by the variance that `delta` implies."""
    linear = (2 * n - n_up + n_down) * delta - n_up - n_down
    root = max(linear**2 + 8 * n * n_down * delta * (1 - delta), 0.0)
    q = (math.sqrt(root) - linear) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    residual = n_up - n_down - n * delta
    if variance > 1e-15:
        return residual / math.sqrt(variance)
    return 0.0 if abs(residual) < 1e-9 else math.copysign(math.inf, residual)
