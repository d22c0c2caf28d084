"""What resampled documents say of a score's change.

Where units are few, intervals by resampling cover less than they say, so Student's interval and Hartigan's are laid
over them, and the widest counts. Legend: R resamples, K simulated data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffharness.regression.evidence import one_sided
from diffharness.statistics.bca import Bca, Width
from diffharness.statistics.distributions import student_cdf, student_quantile
from diffharness.statistics.paired import FEW_CLUSTERS, FEW_DOCUMENTS, SKEWED
from diffharness.statistics.resampled import Draws

if TYPE_CHECKING:
    from jaxtyping import Float

FEW_DIFFERING = 30
"""Below so many units that differ, Hartigan's interval is laid over the bootstrap's."""


@dataclass(frozen=True)
class Resampled:
    """A score recomputed on resampled units: the widest of BCa's interval and what few units ask for beside it."""

    gap: float
    bca: Bca
    """Of the gap alone."""
    p_value: float
    """Two-sided, of the exchange test."""
    standard_error: float | None
    freedom: float
    subset_means_R: Float[np.ndarray, " R"] | None
    """Sorted means of random subsets, infinite for empty ones (Hartigan 1969); `None` where many units differ."""
    few: bool
    """Whether Student's interval is laid over the bootstrap's."""
    approximate: str | None
    method: str

    def bounds(self, level: float) -> tuple[float, float]:
        """The widest."""
        found = self.bca.interval(level)
        low, high = float(found.low), float(found.high)
        alpha = (1 - level) / 2
        if self.few and (self.standard_error is not None or self.subset_means_R is None):
            error = math.inf if self.standard_error is None else self.standard_error
            reach = float(student_quantile(1 - alpha, self.freedom)) * error
            low, high = min(low, self.gap - reach), max(high, self.gap + reach)
        if self.subset_means_R is not None:
            least, most = self._hartigan(alpha)
            low, high = min(low, least), max(high, most)
        if self.p_value >= 1 - level:
            return min(low, 0.0), max(high, 0.0)
        return low, high

    def _hartigan(self, alpha: float) -> tuple[float, float]:
        means_R = self.subset_means_R
        assert means_R is not None
        n = len(means_R)
        cut, n_empty = math.floor(alpha * (n + 1)), int(np.isinf(means_R).sum())
        low = means_R[max(cut - 1 - n_empty, 0)] if cut > n_empty else -np.inf
        return float(low), float(means_R[n - cut]) if cut > 0 else math.inf

    def errors_at(self, loss: float) -> tuple[float, float]:
        """As now."""
        del loss
        error = math.inf if self.standard_error is None else self.standard_error
        return error, error

    def p_below(self, value: float) -> float:
        """The largest of what the parts say."""
        ps = [float(student_cdf(-self.bca.deviate(value), self.bca.width.freedom))]
        ps += self._student(self.gap - value)
        if self.subset_means_R is not None:
            ps.append((1 + int((self.subset_means_R >= value).sum())) / (1 + len(self.subset_means_R)))
        if value <= 0:
            ps.append(one_sided(self.p_value, -self.gap))
        return min(max(ps), 1.0)

    def _student(self, distance: float) -> list[float]:
        if not self.few or (self.standard_error is None and self.subset_means_R is not None):
            return []
        return [
            1.0 if self.standard_error is None else float(student_cdf(distance / self.standard_error, self.freedom))
        ]

    def p_above(self, value: float) -> float:
        """As `p_below`, mirrored."""
        ps = [float(student_cdf(self.bca.deviate(value), self.bca.width.freedom))]
        ps += self._student(value - self.gap)
        if self.subset_means_R is not None:
            means_R = self.subset_means_R
            hits = int(((means_R <= value) | np.isinf(means_R)).sum())
            ps.append((1 + hits) / (1 + len(means_R)))
        if value >= 0:
            ps.append(one_sided(self.p_value, self.gap))
        return min(max(ps), 1.0)


def resampled_evidence(
    draws: Draws,
    *,
    n: int,
    n_clusters: int | None,
    subset_means_RK: Sequence[Float[np.ndarray, " R"] | None],
    words: str,
) -> list[Resampled]:
    """The evidence of each data set of `draws`; a single one without an axis of its own is a list of one.

    Args:
        draws: of gaps that are turned so that higher is better.
        n: documents.
        n_clusters: clusters that they were drawn in; `None` where each is by itself.
        subset_means_RK: by data set, means of random subsets, or `None`.
        words: what names the test.
    """
    units = "documents" if n_clusters is None else f"{n_clusters} clusters of documents"
    few = n < FEW_DOCUMENTS or (n_clusters is not None and n_clusters < FEW_CLUSTERS)
    found = []
    for k, means_R in enumerate(subset_means_RK):
        error, skewed = _of(draws.standard_error, k), _of(draws.skewness, k)
        found.append(
            Resampled(
                gap=_of(draws.gap, k), bca=_one(draws.bca, k), p_value=_of(draws.p_value, k),
                standard_error=error if error > 0 else None, freedom=_of(draws.freedom, k),
                subset_means_R=None if means_R is None else np.sort(means_R), few=few or abs(skewed) > SKEWED,
                approximate=_approximate(n, n_clusters, skewed),
                method=f"BCa bootstrap and {words} over {units}",
            )
        )  # fmt: skip
    return found


def _of(values_K: NDArray[np.float64], k: int) -> float:
    return float(np.atleast_1d(values_K)[k])


def _one(bca: Bca, k: int) -> Bca:
    if np.ndim(bca.bias) == 0:
        return bca
    factor, freedom = (np.broadcast_to(part, np.shape(bca.bias))[k] for part in (bca.width.factor, bca.width.freedom))
    return Bca(
        np.ascontiguousarray(bca.sorted_R[:, k]), bca.bias[k], bca.acceleration[k], bca.defined[k],
        Width(float(factor), float(freedom)),
    )  # fmt: skip


def _approximate(n: int, n_clusters: int | None, skewed: float) -> str | None:
    reasons = [
        f"fewer than {FEW_DOCUMENTS} documents" if n < FEW_DOCUMENTS else None,
        f"fewer than {FEW_CLUSTERS} clusters" if n_clusters is not None and n_clusters < FEW_CLUSTERS else None,
        f"the differences are skewed ({skewed:+.1f})" if abs(skewed) > SKEWED else None,
    ]
    return "; ".join(reason for reason in reasons if reason is not None) or None
