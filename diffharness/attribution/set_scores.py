"""A task's score of every set of players, and how it follows from which documents are drawn.

Legend: S sets of players, N documents, R resamples, C sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from diffharness.attribution.shapley import Resampled
from diffharness.evaluation.corpus_metrics import count

Aggregation = Callable[[list[Any]], float]
"""lm-eval's own function from documents' values to the task's score."""


def set_scores(values_SN: Sequence[Sequence[Any]], aggregation: Aggregation) -> Float[np.ndarray, " S"]:
    """The task's score of every set, by lm-eval's own aggregation."""
    return np.array([float(aggregation(list(values_N))) for values_N in values_SN])


def resampling(
    metric: str, values_SN: Sequence[Sequence[Any]], score_S: Float[np.ndarray, " S"], aggregation: Aggregation
) -> Resampled | None:
    """The scores as a function of how often each document is drawn.

    Means, ratios and their exponentials, means of what a document is worth by itself, and metrics of counts (f1, mcc)
    are known; which one it is is told by the scores themselves. `None` for anything else.
    """
    for sums_SNC, score in _candidates(values_SN, aggregation):
        if np.allclose(score(sums_SNC.sum(axis=1)), score_S, rtol=1e-9, atol=1e-9):
            return lambda w_RN, sums=sums_SNC, score=score: score(np.einsum("rn,snc->rsc", w_RN, sums, optimize=True))
    counted = count(metric, values_SN, score_S.tolist())
    if counted is None:
        return None
    return lambda w_RN: np.stack([c.resampled(w_RN) for c in counted], axis=1)


_Score = Callable[[np.ndarray], np.ndarray]


def _candidates(values_SN: Sequence[Sequence[Any]], aggregation: Aggregation) -> list[tuple[np.ndarray, _Score]]:
    """What the metric may be: sums over documents (S, N, 2), and the score that follows from them (…, 2)."""

    def ratio(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    flat = [value for values_N in values_SN for value in values_N]
    if all(isinstance(v, int | float) and math.isfinite(v) for v in flat):
        value_SN = np.asarray(values_SN, dtype=np.float64)
        pairs = np.stack([value_SN, np.ones_like(value_SN)], axis=-1)
        return [(pairs, ratio), (pairs, lambda sums: np.exp(-ratio(sums)))]
    if all(isinstance(v, tuple) and len(v) == 2 and all(isinstance(x, float | int) for x in v) for v in flat):
        pairs = np.asarray(values_SN, dtype=np.float64)
        if np.all(pairs[..., 1].sum(axis=1) > 0) and isinstance(flat[0][0], float):
            return [(pairs, lambda sums: -ratio(sums) / math.log(2)), (pairs, lambda sums: np.exp(-ratio(sums)))]
        return []
    try:
        alone = [[float(aggregation([value])) for value in values_N] for values_N in values_SN]
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return []
    value_SN = np.asarray(alone)
    return [(np.stack([value_SN, np.ones_like(value_SN)], axis=-1), ratio)]
