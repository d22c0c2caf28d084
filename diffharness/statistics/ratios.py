"""Ratios of sums over units (texts, documents) for many columns at once, from sums that add as units stream by.

Legend: U units, L columns (latents), K sums a column, E stored (unit, column) entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse, stats

_POWERS = ((1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (3, 0), (4, 0), (3, 1), (2, 2), (1, 3))
"""(p, q) of the sums Σ_u d_u^p n_u^q that are kept a column."""
_SMALLEST_SKEWNESS = 1e-8
"""Below it the inverse of the correction is taken here, where rounding does not show."""


@dataclass(frozen=True, eq=False)
class RatioEstimates:
    """Σ_u d_u / Σ_u n_u of every column."""

    ratio_L: NDArray[np.float64]
    """NaN without units."""
    low_L: NDArray[np.float64]
    high_L: NDArray[np.float64]
    """NaN with fewer than two units, and where d is not 0 in a single one only: nothing shows how units vary."""
    p_L: NDArray[np.float64]
    """Two-sided, that the ratio is 0; NaN as above; 1 where d is 0 throughout."""


class RatioSums:
    """What has to be summed for ratios Σ d / Σ n and their intervals: ten float64 a column, whatever the units."""

    def __init__(self, n_columns: int) -> None:
        self._sum_KL = np.zeros((len(_POWERS), n_columns))
        self._n_nonzero_L = np.zeros(n_columns, dtype=np.int64)
        self._n_powers = np.zeros(5)

    def add(self, d_UL: sparse.csr_array, n_U: Float[np.ndarray, " U"]) -> None:
        """Add units. One with n = 0 does not count; d has to be 0 there."""
        d_UL = sparse.csr_array(d_UL, copy=True)
        d_UL.eliminate_zeros()
        n_U = np.asarray(n_U, dtype=np.float64)
        d_E, n_E = d_UL.data.astype(np.float64), np.repeat(n_U, np.diff(d_UL.indptr))
        n_columns = len(self._n_nonzero_L)
        self._n_nonzero_L += np.bincount(d_UL.indices, minlength=n_columns)
        for sum_L, (p, q) in zip(self._sum_KL, _POWERS):
            sum_L += np.bincount(d_UL.indices, d_E**p * n_E**q, minlength=n_columns)
        self._n_powers += (n_U[n_U > 0, None] ** np.arange(5)).sum(axis=0)

    def finish(self, level: float = 0.95) -> RatioEstimates:
        """Ratios with intervals from the variation over units.

        The variance is that of deleting one unit at a time (the jackknife of a ratio; Cochran 1977, 6.15–6.17),
        expanded to second order in a unit's share h_u of Σ n: (U − 1) / U · Σ e_u² (1 + 2 h_u + 3 h_u²) / (Σ n)² with
        e_u = d_u − R n_u. Few units, long ones or those with d ≠ 0, may carry the sum, so the interval is Student's
        with degrees of freedom 2 / (Σ e⁴ / (Σ e²)² − 1 / U) (Satterthwaite 1946, with the kurtosis found), at most
        one less than the units with d ≠ 0, and corrected for skewness Σ e³ / (Σ e²)^1.5 (Hall 1992, "On the Removal
        of Skewness by Transformation"). A p-value is the larger of those with and without that correction, so that
        claims err on the side of caution.
        """
        n_units = int(self._n_powers[0])
        nothing_L = np.full(len(self._n_nonzero_L), np.nan)
        if n_units < 2:
            ratio_L = self._sum_KL[0] / self._n_powers[1] if n_units else nothing_L
            return RatioEstimates(ratio_L, nothing_L, nothing_L, nothing_L)
        ratio_L, error_L, skewness_L, freedom_L = self._moments(n_units)
        known_L = self._n_nonzero_L != 1
        quantile_L = np.where(known_L, stats.t.ppf((1 + level) / 2, freedom_L), np.nan)
        t_L = np.divide(ratio_L, error_L, out=np.where(ratio_L == 0, 0.0, np.inf), where=error_L > 0)
        least_L = np.minimum(np.abs(t_L), np.abs(_unskewed(t_L, skewness_L)))
        return RatioEstimates(
            ratio_L=ratio_L,
            low_L=ratio_L - error_L * _skewed(quantile_L, skewness_L),
            high_L=ratio_L - error_L * _skewed(-quantile_L, skewness_L),
            p_L=np.where(known_L, 2 * stats.t.sf(least_L, freedom_L), np.nan),
        )

    def _moments(self, n_units: int) -> tuple[NDArray[np.float64], ...]:
        """The ratio, its standard error, the skewness of Σ e and the degrees of freedom."""
        d, dd, dn, ddn, dnn, ddd, dddd, dddn, ddnn, dnnn = self._sum_KL
        _, n, nn, nnn, nnnn = self._n_powers
        r = d / n
        square_L = np.maximum(dd - 2 * r * dn + r**2 * nn, 0)
        square_n_L = ddn - 2 * r * dnn + r**2 * nnn
        square_nn_L = ddnn - 2 * r * dnnn + r**2 * nnnn
        third_L = ddd - 3 * r * ddn + 3 * r**2 * dnn - r**3 * nnn
        fourth_L = np.maximum(dddd - 4 * r * dddn + 6 * r**2 * ddnn - 4 * r**3 * dnnn + r**4 * nnnn, 0)
        deleted_L = np.maximum(square_L + 2 * square_n_L / n + 3 * square_nn_L / n**2, 0)
        error_L = np.sqrt((n_units - 1) / n_units * deleted_L) / n
        varies_L = square_L > 0
        skewness_L = np.divide(third_L, square_L**1.5, out=np.zeros_like(r), where=varies_L)
        excess_L = np.divide(fourth_L, square_L**2, out=np.zeros_like(r), where=varies_L) - 1 / n_units
        freedom_L = np.divide(2, excess_L, out=np.full_like(r, np.inf), where=excess_L > 0)
        return r, error_L, skewness_L, np.maximum(np.minimum(freedom_L, self._n_nonzero_L - 1), 1)


def _unskewed(t_L: NDArray[np.float64], skewness_L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hall's cubic, which takes the skewness out of Student's t; NaN for an infinite t, whose units do not vary."""
    with np.errstate(invalid="ignore"):
        return t_L + skewness_L * t_L**2 / 3 + skewness_L**2 * t_L**3 / 27 + skewness_L / 6


def _skewed(t_L: NDArray[np.float64], skewness_L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Its inverse."""
    a_L = np.where(np.abs(skewness_L) > _SMALLEST_SKEWNESS, skewness_L, _SMALLEST_SKEWNESS)
    return (np.cbrt(1 + a_L * (t_L - a_L / 6)) - 1) * 3 / a_L
