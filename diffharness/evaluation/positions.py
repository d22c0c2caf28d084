"""Whether the answers to multiple-choice questions moved to one place among the choices, whatever stands there.

Legend: N documents, K places, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from diffharness.evaluation.ledger import Reading
from diffharness.evaluation.scores import DocumentScore

METRICS = ("acc", "acc_norm")
"""Those whose answer is the likeliest choice, or the likeliest a character."""
_RESAMPLES, _AT_A_TIME = 4_999, 250
_FEWEST_RIGHT = 5
"""Documents in which every place that is answered has to be right: else a place can not be told from skill."""


@dataclass(frozen=True)
class PositionShift:
    """The place that answers moved to most."""

    position: int
    """0-based."""
    left: int
    """The place that they left most."""
    baseline: float
    """Share of the baseline's answers at `position`."""
    candidate: float
    right: float
    """Share of the right answers at `position`."""
    left_baseline: float
    left_right: float
    p_value: float
    """That places were dealt between the sides by chance, within documents."""
    n: int


def chosen(document: DocumentScore, readings: Iterable[Reading], metric: str) -> int | None:
    """The place of the choice that lm-eval takes for the answer; `None` where a likelihood is not known."""
    found = {r.index: r.log_likelihood for r in readings if r.index < len(document.choices) and r.repeat == 0}
    values = [found.get(i) for i in range(len(document.choices))]
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return None
    lengths = [max(1, len(c)) if metric == "acc_norm" else 1 for c in document.choices]
    return int(np.argmax(np.array(known) / lengths))


def position_shift(
    base_N: Int[np.ndarray, " N"],
    cand_N: Int[np.ndarray, " N"],
    right_N: Int[np.ndarray, " N"],
    rng: np.random.Generator,
) -> PositionShift | None:
    """How answers moved between places, tested by swapping the sides within documents.

    The statistic is the largest change of a place's count, documents weighed so that every place is right equally
    often: a model that only loses skill leaves the right places, wherever they are, and no place gains by that alone.
    `None` where no answer moved, or where some place that is answered is hardly ever right.

    Args:
        base_N: the baseline's places.
        cand_N: the candidate's.
        right_N: the right ones.
        rng: deals the sides.
    """  # fmt: skip
    moved = base_N != cand_N
    if not moved.any():
        return None
    n_places = int(max(base_N.max(), cand_N.max(), right_N.max())) + 1
    right_K = np.bincount(right_N, minlength=n_places)
    answered_K = np.bincount(np.concatenate([base_N, cand_N]), minlength=n_places)
    if (right_K[answered_K > 0] < _FEWEST_RIGHT).any():
        return None
    eye = np.eye(n_places, dtype=np.float32)
    weight_N = (1 / right_K[right_N[moved]]).astype(np.float32)
    moves_NK = (eye[cand_N[moved]] - eye[base_N[moved]]) * weight_N[:, None]
    change_K = moves_NK.sum(0)
    n_as_large = _n_as_large(moves_NK, float(np.abs(change_K).max()), rng)
    position, left = int(change_K.argmax()), int(change_K.argmin())
    return PositionShift(
        position=position,
        left=left,
        baseline=float(np.mean(base_N == position)),
        candidate=float(np.mean(cand_N == position)),
        right=float(np.mean(right_N == position)),
        left_baseline=float(np.mean(base_N == left)),
        left_right=float(np.mean(right_N == left)),
        p_value=(1 + n_as_large) / (1 + _RESAMPLES),
        n=len(base_N),
    )


def _n_as_large(moves_NK: Float[np.ndarray, "N K"], largest: float, rng: np.random.Generator) -> int:
    """In how many resamples, sides swapped at random in each document, a place's weighed count changes as much."""
    found = 0
    for start in range(0, _RESAMPLES, _AT_A_TIME):
        size = (min(_AT_A_TIME, _RESAMPLES - start), len(moves_NK))
        signs_RN = rng.integers(0, 2, size).astype(np.float32) * 2 - 1
        found += int((np.abs(signs_RN @ moves_NK).max(1) >= largest - 1e-6).sum())
    return found


def at_the_position(
    shift: PositionShift, lost: Mapping[int, bool], base: Mapping[int, int], cand: Mapping[int, int]
) -> set[int]:
    """The flips that the shift may have made: losses to a place that the candidate answers more often than it is right.

    And gains of answers that the baseline gave at a place that it answered more often than it is right.

    Args:
        shift: what moved.
        lost: by document whose score changed, whether it was lost.
        base: the baseline's place by document.
        cand: the candidate's.
    """
    over = shift.candidate > shift.right, shift.left_baseline > shift.left_right
    return {
        i
        for i, is_loss in lost.items()
        if (is_loss and over[0] and cand[i] == shift.position) or (not is_loss and over[1] and base[i] == shift.left)
    }
