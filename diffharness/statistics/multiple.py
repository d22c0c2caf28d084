"""Corrections for having looked at many things: Benjamini–Hochberg for lists, Holm for decisions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def benjamini_hochberg(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """q-values: the smallest false discovery rate at which each test would be called.

    Any shape; the family is the whole array. NaN and None stay NaN and do not count as tests.
    Benjamini & Hochberg 1995. Raises `ValueError` for a value outside [0, 1].
    """
    p, present = _family(p_values)
    order = np.argsort(p[present], kind="stable")
    sorted_p = p[present][order]
    n = len(sorted_p)
    stepped = np.minimum.accumulate((sorted_p * n / np.arange(1, n + 1))[::-1])[::-1]
    return _scatter(p, present, order, stepped)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjusted p-values that keep the chance of any false call at the level asked for.

    Any shape; the family is the whole array. NaN and None stay NaN and do not count as tests.
    Holm 1979. Raises `ValueError` for a value outside [0, 1].
    """
    p, present = _family(p_values)
    order = np.argsort(p[present], kind="stable")
    sorted_p = p[present][order]
    n = len(sorted_p)
    stepped = np.maximum.accumulate(sorted_p * np.arange(n, 0, -1))
    return _scatter(p, present, order, stepped)


def _family(p_values: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    p = np.asarray(p_values, dtype=np.float64)
    present = ~np.isnan(p)
    outside = present & ((p < 0) | (p > 1))
    if outside.any():
        raise ValueError(f"a p-value lies between 0 and 1, got {p[outside].ravel()[0]}")
    return p, present


def _scatter(
    p: npt.NDArray[np.float64],
    present: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
    stepped: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    out = np.full(p.shape, np.nan)
    out[present] = adjusted
    return out
