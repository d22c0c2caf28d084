"""Whether two annotators agree: Cohen's κ with a bootstrap interval over what they labelled.

Legend: N labelled things, C distinct pairs of labels, K labels, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffharness.statistics.bootstrap import N_RESAMPLES, percentile_interval


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ and its interval."""

    kappa: float | None
    """1 is full agreement, 0 what two annotators with these habits reach by chance; `None` where it is undefined."""
    low: float | None
    high: float | None
    n: int
    """Things labelled by both."""


def cohens_kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """κ = (p_o − p_e) / (1 − p_e): observed agreement over what the two marginals give by chance.

    Cohen 1960, "A Coefficient of Agreement for Nominal Scales". `None` where both give one and the same label to
    everything (p_e = 1), or there is nothing. Raises `ValueError` where the two differ in length.
    """
    cells = _cells(a, b)
    if not cells:
        return None
    kappa = float(_kappas(np.array([list(cells.values())], dtype=np.float64), list(cells))[0])
    return None if np.isnan(kappa) else kappa


def agreement(
    a: Sequence[str], b: Sequence[str], rng: np.random.Generator, level: float = 0.95, n_resamples: int = N_RESAMPLES
) -> Agreement:
    """Cohen's κ of two annotators with a percentile bootstrap interval over the things that they labelled.

    Resamples in which κ is undefined are left out; where they are more than one in twenty, because almost everything
    has one label, there is no interval. Full agreement gives (1, 1), as every resample of it agrees fully.
    """
    kappa, n = cohens_kappa(a, b), len(a)
    if kappa is None:
        return Agreement(None, None, None, n)
    cells = _cells(a, b)
    # drawing N things with replacement draws each pair of labels by its share
    counts_RC = rng.multinomial(n, np.array(list(cells.values())) / n, size=n_resamples).astype(np.float64)
    kappa_R = _kappas(counts_RC, list(cells))
    defined_R = kappa_R[~np.isnan(kappa_R)]
    if len(defined_R) < 0.95 * n_resamples:
        return Agreement(kappa, None, None, n)
    interval = percentile_interval(defined_R, level, n)
    return Agreement(kappa, float(interval.low), float(interval.high), n)


def _cells(a: Sequence[str], b: Sequence[str]) -> Counter[tuple[str, str]]:
    if len(a) != len(b):
        raise ValueError(f"two annotators label the same things, got {len(a)} and {len(b)} labels")
    return Counter(zip(a, b))


def _kappas(counts_RC: Float[np.ndarray, "R C"], cells: Sequence[tuple[str, str]]) -> Float[np.ndarray, " R"]:
    """κ of each table of counts; NaN where it is undefined."""
    labels = sorted({label for cell in cells for label in cell})
    first_CK = np.array([[cell[0] == label for label in labels] for cell in cells], dtype=np.float64)
    second_CK = np.array([[cell[1] == label for label in labels] for cell in cells], dtype=np.float64)
    n_R = counts_RC.sum(axis=1)
    agreed_R = counts_RC @ (first_CK * second_CK).sum(axis=1)
    # whole numbers, so that p_e = 1 is seen exactly
    expected_R = ((counts_RC @ first_CK) * (counts_RC @ second_CK)).sum(axis=1)
    room_R = n_R**2 - expected_R
    return np.divide(n_R * agreed_R - expected_R, room_R, out=np.full(len(n_R), np.nan), where=room_R > 0)
