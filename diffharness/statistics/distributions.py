"""Normal, Student's and binomial distributions from `scipy.special`: `scipy.stats` alone takes a second to import."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special


def normal_cdf(z: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The share of a standard normal distribution below `z`."""
    return np.asarray(special.ndtr(z), dtype=np.float64)


def normal_quantile(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where a standard normal distribution has the share `p` below it."""
    return np.asarray(special.ndtri(p), dtype=np.float64)


def student_quantile(p: npt.ArrayLike, freedom: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The same of Student's; infinite `freedom` is the normal one."""
    p, freedom = np.broadcast_arrays(np.asarray(p, dtype=np.float64), np.asarray(freedom, dtype=np.float64))
    inside = special.stdtrit(freedom, np.clip(p, np.finfo(float).tiny, np.nextafter(1, 0)))
    outside = [p == 0, p == 1, (p < 0) | (p > 1)]
    return np.select(outside, [-np.inf, np.inf, np.nan], inside)


def student_cdf(t: npt.ArrayLike, freedom: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The share of Student's distribution below `t`; infinite `freedom` is the normal one."""
    return np.asarray(special.stdtr(freedom, t), dtype=np.float64)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """The chance of at most `k` of `n`."""
    return 0.0 if k < 0 else float(special.bdtr(k, n, p))
