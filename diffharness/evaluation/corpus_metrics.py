"""Metrics of a whole task (f1, mcc, bleu, chrf, ter): as functions of counts that add up over documents.

With them a resample costs a matrix product in place of a second look at every text. Legend: N documents, C counts,
R resamples, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from sacrebleu.metrics.base import Metric

_MOST_LABELS = 32
"""Labels of which a table of gold and answer is kept a document."""
_TEXT_METRICS = ("bleu", "chrf", "chrf++", "ter")


@dataclass(frozen=True)
class Counts:
    """What a metric needs to know of each document."""

    counts_NC: Float[np.ndarray, "N C"]
    score: Callable[[Float[np.ndarray, "R C"]], Float[np.ndarray, " R"]]
    """From sums of counts to the task's score."""

    def resampled(self, weights_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        """The score on resampled documents, given how often each was drawn."""
        return self.score(weights_RN @ self.counts_NC)


def count(metric: str, sides: Sequence[Sequence[Any]], scores: Sequence[float] | None) -> tuple[Counts, ...] | None:
    """Every side's counts, or `None` where they do not make lm-eval's scores (then the metric is another of that name).

    The sides' counts have the same meaning, so that a document's may be exchanged.

    Args:
        metric: lm-eval's name.
        sides: by side, each document's (gold, answer), labels or texts.
        scores: what lm-eval's own function makes of each side; `None` where that was tried on more documents before.
    """
    if not all(isinstance(v, tuple) and len(v) == 2 for side in sides for v in side):
        return None
    found: Sequence[Counts | None] = ()
    if metric in _TEXT_METRICS:
        found = [_texts(metric, side) for side in sides]
    elif metric in ("f1", "mcc") and all(isinstance(label, int) for side in sides for v in side for label in v):
        pairs = [np.asarray(side, dtype=np.int64) for side in sides]
        labels = np.unique(np.concatenate(pairs))
        found = [_labels(metric, side, labels) for side in pairs]
    counted = tuple(side for side in found if side is not None)
    if len(counted) != len(sides) or len({side.counts_NC.shape for side in counted}) != 1:
        return None
    if scores is None:
        return counted
    made = [float(side.resampled(np.ones((1, len(side.counts_NC))))[0]) for side in counted]
    close = all(abs(m - score) <= 1e-9 * max(1, abs(score)) for m, score in zip(made, scores, strict=True))
    return counted if close else None


def is_right(value: Any) -> float | None:
    """Whether a (gold, answer) pair of labels agrees, as 1 or 0; `None` for other values."""
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int)):
        return None
    gold = value[0] if isinstance(value[0], tuple) else (value[0],)
    return float(value[1] in gold) if all(isinstance(g, int) for g in gold) else None


def _labels(metric: str, pairs_N2: np.ndarray, labels: np.ndarray) -> Counts | None:
    n = len(labels)
    if metric == "f1" and not set(labels.tolist()) <= {0, 1}:
        return None
    if metric == "f1":
        gold_N, answer_N = pairs_N2.astype(bool).T
        columns = (gold_N & answer_N, ~gold_N & answer_N, gold_N & ~answer_N)
        return Counts(np.stack(columns, axis=1).astype(float), _f1)
    if n > _MOST_LABELS:
        return None
    gold_N, answer_N = np.searchsorted(labels, pairs_N2).T
    return Counts(np.eye(n * n)[gold_N * n + answer_N], lambda sums_RC: _mcc(sums_RC.reshape(-1, n, n)))


def _f1(sums_R3: Float[np.ndarray, "R 3"]) -> Float[np.ndarray, " R"]:
    """2 TP / (2 TP + FP + FN); 0 where nothing is positive."""
    right_R = 2 * sums_R3[:, 0]
    return _divided(right_R, right_R + sums_R3[:, 1] + sums_R3[:, 2])


def _mcc(table_RKK: Float[np.ndarray, "R K K"]) -> Float[np.ndarray, " R"]:
    """Matthews' coefficient for K labels (Gorodkin 2004, "Comparing two K-category assignments"); 0 where undefined."""
    gold_RK, answer_RK = table_RKK.sum(2), table_RKK.sum(1)
    n_R, right_R = table_RKK.sum((1, 2)), np.trace(table_RKK, axis1=1, axis2=2)
    covariance_R = right_R * n_R - (gold_RK * answer_RK).sum(1)
    spread_R = (n_R**2 - (gold_RK**2).sum(1)) * (n_R**2 - (answer_RK**2).sum(1))
    return _divided(covariance_R, np.sqrt(spread_R))


def _divided(over_R: np.ndarray, under_R: np.ndarray) -> Float[np.ndarray, " R"]:
    return np.divide(over_R, under_R, out=np.zeros(len(over_R)), where=under_R > 0)


def _texts(metric: str, pairs: Sequence[tuple[Any, Any]]) -> Counts | None:
    """sacrebleu's own statistics a document, as lm-eval calls it: with its defaults."""
    references = [list(gold) if isinstance(gold, tuple) else [gold] for gold, _ in pairs]
    answers: list[Any] = [
        answer[0] if isinstance(answer, tuple) and len(answer) == 1 else answer for _, answer in pairs
    ]
    if len({len(r) for r in references}) != 1 or not all(isinstance(t, str) for r in (*references, answers) for t in r):
        return None
    made = _text_metric(metric)
    # sacrebleu bootstraps with these itself; they are not public
    statistics = made._extract_corpus_statistics(answers, list(zip(*references, strict=True)))  # pyright: ignore[reportPrivateUsage]
    score = made._compute_score_from_stats  # pyright: ignore[reportPrivateUsage]
    return Counts(
        np.asarray(statistics, dtype=np.float64),
        lambda sums_RC: np.array([score(sums_C.tolist()).score for sums_C in sums_RC]),
    )


def _text_metric(metric: str) -> Metric:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if metric == "bleu":
        return BLEU(force=True)
    if metric == "ter":
        return TER()
    return CHRF(word_order=2 if metric == "chrf++" else 0)
