"""`scipy.special` says what `scipy.stats` does, edges included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from diffharness.statistics.distributions import binomial_cdf, normal_cdf, normal_quantile, student_quantile

P = np.array([0.0, 1e-300, 1e-9, 0.025, 0.5, 0.8, 0.999999, 1.0, -0.1, 1.1, np.nan])


@pytest.mark.parametrize("freedom", [0.5, 1.0, 4.0, 300.0, np.inf])
def test_student_quantiles_are_scipy_stats(freedom: float) -> None:
    """Tails, edges and what is no probability."""
    with np.errstate(all="ignore"):
        wanted = stats.t.ppf(P, freedom)
    np.testing.assert_allclose(student_quantile(P, freedom), wanted, rtol=1e-9)


def test_normal_distribution_is_scipy_stats() -> None:
    """Both ways."""
    np.testing.assert_allclose(normal_quantile(P), stats.norm.ppf(P), rtol=1e-12)
    np.testing.assert_allclose(normal_cdf([-9.0, 0.0, 2.0, np.inf]), stats.norm.cdf([-9.0, 0.0, 2.0, np.inf]))


@pytest.mark.parametrize(("k", "n"), [(-1, 4), (0, 1), (3, 10), (450, 1000), (10, 10)])
def test_binomial_distribution_is_scipy_stats(k: int, n: int) -> None:
    """With nothing below 0."""
    assert binomial_cdf(k, n, 0.5) == pytest.approx(stats.binom.cdf(k, n, 0.5), rel=1e-10)


def test_paired_tests_leave_the_slow_import_alone() -> None:
    """`diffharness check` has a second."""
    code = "import sys, diffharness.statistics.paired; print('scipy.stats' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
