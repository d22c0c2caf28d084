"""The account of a task: its documents' accounts summed to components, with intervals over documents.

Every sum is over all documents of the task, so contributions add up to the surrogate's gap; what the quadrature
missed is reported as such. Legend: N documents, C components, K categories, L latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffharness.attribution.forms import TaskForms
from diffharness.attribution.path import DocumentAccount
from diffharness.statistics.bootstrap import bootstrap_means, percentile_interval, sign_flip_p
from diffharness.statistics.ranks import spearman

ORDER = "written under the candidate's upper stack, read at the baseline's state"
"""The one order that is computed, for the report."""
MINIMUM_RANK_CORRELATION = 0.5


@dataclass(frozen=True)
class ComponentKey:
    """What a contribution belongs to."""

    kind: str
    origin: str | None
    category: str | None


@dataclass(frozen=True)
class ComponentSum:
    """One component of a task's gap, with what the documents say about its uncertainty."""

    key: ComponentKey
    contribution: float
    """Mean over documents, in the surrogate's unit."""
    contribution_raw: float
    """Mean over documents, in units of m."""
    low: float
    high: float
    p_value: float
    n_latents: int | None


@dataclass(frozen=True)
class TaskAccount:
    """One task's gap, split."""

    task: str
    forms: TaskForms
    accounts: tuple[DocumentAccount, ...]
    doc_ids: tuple[int, ...]
    """All documents in order, those of constant score included."""
    baseline_N: np.ndarray
    """M_b a document."""
    candidate_N: np.ndarray
    written_NL: np.ndarray
    """What each latent writes, in the surrogate's unit."""
    written_raw_NL: np.ndarray
    other_N3: np.ndarray
    """Bias, error and upper, in the surrogate's unit."""
    other_raw_N3: np.ndarray
    weight_N: np.ndarray

    @property
    def gap(self) -> float:
        """The surrogate's gap."""
        return float((self.candidate_N - self.baseline_N).mean())

    @property
    def latents_L(self) -> np.ndarray:
        """What each latent contributes to the task's gap."""
        return self.written_NL.mean(axis=0)


OTHERS = (
    ComponentKey("bias", "written", None),
    ComponentKey("error", "written", None),
    ComponentKey("upper", None, None),
)


def collect(task: str, forms: TaskForms, accounts: Sequence[DocumentAccount], n_latents: int) -> TaskAccount:
    """Lay a task's document accounts out as arrays, with zeros for documents whose score can not differ."""
    by_id = {a.doc_id: a for a in accounts}
    doc_ids = tuple(sorted([*by_id, *forms.constant]))
    surrogates = {f.doc_id: f.surrogate for f in forms.forms}
    n = len(doc_ids)
    baseline_N, candidate_N = np.zeros(n), np.zeros(n)
    written_NL, written_raw_NL = np.zeros((n, n_latents)), np.zeros((n, n_latents))
    other_N3, other_raw_N3 = np.zeros((n, 3)), np.zeros((n, 3))
    for i, doc_id in enumerate(doc_ids):
        if doc_id in forms.constant:
            baseline_N[i] = candidate_N[i] = forms.constant[doc_id]
            continue
        account = by_id[doc_id]
        baseline_N[i] = surrogates[doc_id].metric(account.m_baseline)
        candidate_N[i] = surrogates[doc_id].metric(account.m_candidate)
        written_raw_NL[i] = account.written_L
        other_raw_N3[i] = account.bias, account.error, account.upper
        written_NL[i] = account.scale * written_raw_NL[i]
        other_N3[i] = account.scale * other_raw_N3[i]
    return TaskAccount(
        task=task,
        forms=forms,
        accounts=tuple(accounts),
        doc_ids=doc_ids,
        baseline_N=baseline_N,
        candidate_N=candidate_N,
        written_NL=written_NL,
        written_raw_NL=written_raw_NL,
        other_N3=other_N3,
        other_raw_N3=other_raw_N3,
        weight_N=np.array([forms.weights[d] for d in doc_ids]),
    )


def category_matrix(categories: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Which latent belongs to which category, (L, K) of 0 and 1."""
    return np.array([[float(own == name) for name in names] for own in categories]).reshape(len(categories), -1)


def contributions(
    account: TaskAccount, categories: Sequence[str], names: Sequence[str]
) -> tuple[list[ComponentKey], np.ndarray, np.ndarray]:
    """Each document's components: keys (C), values in the surrogate's unit (N, C) and in units of m (N, C)."""
    member_LK = category_matrix(categories, names)
    keys = [ComponentKey("latents", "written", name) for name in names] + list(OTHERS)
    values_NC = np.hstack([account.written_NL @ member_LK, account.other_N3])
    raw_NC = np.hstack([account.written_raw_NL @ member_LK, account.other_raw_N3])
    return keys, values_NC, raw_NC


def sum_components(
    account: TaskAccount, categories: Sequence[str], names: Sequence[str], rng: np.random.Generator
) -> list[ComponentSum]:
    """The task's components with paired bootstrap intervals and sign-flip p-values over documents.

    Where documents weigh differently (bytes), a resample's sum is divided by its share of the weight, as the
    task's score is a ratio of sums.
    """
    keys, values_NC, raw_NC = contributions(account, categories, names)
    weight_N = account.weight_N / account.weight_N.mean()
    draws_RX = bootstrap_means(np.hstack([values_NC, weight_N[:, None]]), rng)
    draws_RC = draws_RX[:, :-1] / draws_RX[:, -1:]
    found = percentile_interval(draws_RC, n=len(values_NC))
    p_values = np.atleast_1d(sign_flip_p(values_NC, rng, n_flips=1999))
    counts = {name: sum(c == name for c in categories) for name in names}
    return [
        ComponentSum(
            key=key,
            contribution=float(values_NC[:, c].mean()),
            contribution_raw=float(raw_NC[:, c].mean()),
            low=float(found.low[c]),
            high=float(found.high[c]),
            p_value=float(p_values[c]),
            n_latents=counts[key.category] if key.category is not None else None,
        )
        for c, key in enumerate(keys)
    ]


def tracking(
    account: TaskAccount, metric_difference_N: np.ndarray, metric_gap: float, higher_is_better: bool
) -> tuple[float | None, bool, str]:
    """How well the surrogate stands for the metric: rank correlation over documents, whether it tracks, and why.

    Args:
        account: the surrogate's side.
        metric_difference_N: candidate − baseline of each document's own metric, in the metric's direction.
        metric_gap: the task's gap.
        higher_is_better: the metric's direction.
    """
    sign = 1.0 if account.forms.higher_is_better == higher_is_better else -1.0
    correlation = spearman(sign * (account.candidate_N - account.baseline_N), metric_difference_N)
    if not np.any(metric_difference_N):
        return correlation, False, "no document's metric changed"
    if sign * account.gap * metric_gap < 0:
        return correlation, False, "the surrogate's gap has the opposite sign of the metric's"
    if correlation is not None and correlation < MINIMUM_RANK_CORRELATION:
        return (
            correlation,
            False,
            f"over documents the surrogate ranks with the metric at {correlation:.2f} only "
            f"(at least {MINIMUM_RANK_CORRELATION} is asked for)",
        )
    return correlation, True, "same sign, and documents rank alike"
