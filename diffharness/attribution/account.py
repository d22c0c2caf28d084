"""The account of a task: its documents' accounts summed to components, with intervals over documents.

Every mean is over the same documents with the same weights, so contributions add up to the surrogate's gap; what the
quadrature missed is reported as such. The account is the mean of both orders (`path.ORDERS`); half their difference is
the interaction, already shared out.

Legend: N documents, C components, K categories, L latents, O = 2 orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from diffharness.attribution.forms import TaskForms
from diffharness.attribution.path import Bracket, DocumentAccount
from diffharness.attribution.prompt import PromptEffect
from diffharness.statistics.bootstrap import bootstrap_means, percentile_interval, sign_flip_p
from diffharness.statistics.ranks import spearman

MINIMUM_RANK_CORRELATION = 0.5
CONTENT_FREE = 0.25
"""A prior is a content-free shift where the documents' own states agree in sign and within this share of it."""
WRITTEN, READ = "written", "read"


@dataclass(frozen=True)
class ComponentKey:
    """What a contribution belongs to."""

    kind: str
    origin: str | None
    category: str | None


OTHERS = (
    ComponentKey("bias", WRITTEN, None),
    ComponentKey("error", WRITTEN, None),
    ComponentKey("error", READ, None),
    ComponentKey("prior", None, None),
)
PROMPT = ComponentKey("prompt", None, None)
"""Only where the candidate was asked in its own chat template too (`prompt.py`)."""


@dataclass(frozen=True)
class ComponentSum:
    """One component of a task's gap, with what the documents say about its uncertainty."""

    key: ComponentKey
    contribution: float
    """Mean over documents, in the surrogate's unit."""
    contribution_raw: float
    """Mean over documents, in units of m; NaN for the prompt of generated answers, which no path integrates."""
    interaction: float
    """Half of what the two orders differ by."""
    low: float
    high: float
    p_value: float
    n_latents: int | None


@dataclass(frozen=True)
class TaskAccount:
    """One task's gap, split; values a document are in units of m, `scale_N` turns them into the surrogate's unit."""

    task: str
    forms: TaskForms
    accounts: tuple[DocumentAccount, ...]
    doc_ids: tuple[int, ...]
    """Accounted documents in order, those of constant score included."""
    baseline_N: np.ndarray
    """M_b a document."""
    candidate_N: np.ndarray
    """M_c a document, of its own prompt where that is accounted for."""
    scale_N: np.ndarray
    latents: Mapping[str, tuple[sparse.csr_array, sparse.csr_array]]
    """By origin and order: what each latent contributes (N, L)."""
    others_ONC: Float[np.ndarray, "O N 4"]
    """`OTHERS`, by order."""
    second_prior_ON: Float[np.ndarray, "O N"]
    upper_ON: Float[np.ndarray, "O N"]
    """What the stacks differ by on the documents' own states: prior and read together."""
    sample_N: np.ndarray
    """How many of the task's documents each stands for."""
    weight_N: np.ndarray
    """The same times what it weighs in the task's score (its bytes, where the score is a ratio)."""
    prompt_N2: Float[np.ndarray, "N 2"] | None = None
    """What the candidate's own prompt makes of M and of m; `None` where both models were asked alike."""

    def mean(self, values: np.ndarray | sparse.csr_array) -> np.ndarray:
        """The task's value of numbers a document (N) or (N, C)."""
        return (self.sample_N @ values) / self.weight_N.sum()

    @property
    def gap(self) -> float:
        """The surrogate's gap."""
        return float(self.mean(self.candidate_N - self.baseline_N))

    def latents_L(self, origin: str) -> Float[np.ndarray, " L"]:
        """What each latent contributes to the task's gap by one origin."""
        sums = [(self.sample_N * self.scale_N) @ part for part in self.latents[origin]]
        return np.asarray(sums).mean(axis=0) / self.weight_N.sum()

    @property
    def second_prior(self) -> float:
        """The prior at the second start, the states without their latents."""
        return float(self.mean(self.scale_N * self.second_prior_ON.mean(axis=0)))

    @property
    def upper(self) -> float:
        """What the stacks differ by on the documents' own states."""
        return float(self.mean(self.scale_N * self.upper_ON.mean(axis=0)))


def is_content_free(prior: float, upper: float) -> bool:
    """Whether what the stacks differ by on other texts is the same on the documents themselves."""
    return prior * upper > 0 and abs(upper - prior) <= CONTENT_FREE * abs(prior)


def collect(
    task: str,
    forms: TaskForms,
    accounts: Sequence[DocumentAccount],
    n_latents: int,
    sample: Mapping[int, float] | None = None,
    prompt: Mapping[int, PromptEffect] | None = None,
) -> TaskAccount:
    """Lay a task's document accounts out as arrays, with zeros for documents whose score can not differ.

    Args:
        task: its name.
        forms: its documents.
        accounts: those that were accounted for.
        n_latents: of the crosscoder.
        sample: how many documents each of these stands for; by default 1.
        prompt: of every document, what the candidate's own prompt makes of its score; by default there is none.
    """
    by_id = {a.doc_id: a for a in accounts}
    doc_ids = tuple(sorted([*by_id, *forms.constant]))
    surrogates = {f.doc_id: f.surrogate for f in forms.forms}
    n, empty = len(doc_ids), sparse.csr_array((1, n_latents))
    baseline_N, candidate_N, scale_N = np.zeros(n), np.zeros(n), np.zeros(n)
    others_ONC, second_prior_ON, upper_ON = np.zeros((2, n, len(OTHERS))), np.zeros((2, n)), np.zeros((2, n))
    rows: dict[str, tuple[list[sparse.csr_array], list[sparse.csr_array]]] = {WRITTEN: ([], []), READ: ([], [])}
    for i, doc_id in enumerate(doc_ids):
        account = by_id.get(doc_id)
        if account is None:
            baseline_N[i] = candidate_N[i] = forms.constant[doc_id]
        else:
            baseline_N[i] = surrogates[doc_id].metric(account.m_baseline)
            candidate_N[i] = surrogates[doc_id].metric(account.m_candidate)
            scale_N[i] = account.scale
            second_prior_ON[:, i] = account.second_prior
            upper_ON[:, i] = account.upper
        for order in (0, 1):
            if account is not None:
                written, read = account.written[order], account.read[order]
                others_ONC[order, i] = written.bias, written.error, read.error, account.prior[order]
            for origin, orders in rows.items():
                bracket: Bracket | None = None if account is None else getattr(account, origin)[order]
                orders[order].append(empty if bracket is None else bracket.latents)
    sample_N = np.array([1.0 if sample is None else sample.get(d, 1.0) for d in doc_ids])
    mean_weight = float(np.mean(list(forms.weights.values())))
    prompt_N2 = None if prompt is None else np.array([(prompt[d].metric, prompt[d].m) for d in doc_ids])
    return TaskAccount(
        task=task,
        forms=forms,
        accounts=tuple(accounts),
        doc_ids=doc_ids,
        baseline_N=baseline_N,
        candidate_N=candidate_N if prompt_N2 is None else candidate_N + prompt_N2[:, 0],
        scale_N=scale_N,
        latents={
            origin: (sparse.csr_array(sparse.vstack(orders[0])), sparse.csr_array(sparse.vstack(orders[1])))
            for origin, orders in rows.items()
        },
        others_ONC=others_ONC,
        second_prior_ON=second_prior_ON,
        upper_ON=upper_ON,
        sample_N=sample_N,
        weight_N=sample_N * np.array([forms.weights[d] for d in doc_ids]) / mean_weight,
        prompt_N2=prompt_N2,
    )


def category_matrix(categories: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Which latent belongs to which category, (L, K) of 0 and 1."""
    return np.array([[float(own == name) for name in names] for own in categories]).reshape(len(categories), -1)


@dataclass(frozen=True)
class Contributions:
    """Each document's components."""

    keys: tuple[ComponentKey, ...]
    values_NC: Float[np.ndarray, "N C"]
    """In the surrogate's unit."""
    raw_NC: Float[np.ndarray, "N C"]
    """In units of m."""
    interaction_NC: Float[np.ndarray, "N C"]
    """Half of (candidate's stack first − baseline's stack first), in the surrogate's unit; the prior and read parts
    have one too, and over all components it is 0."""

    def with_prompt(self, prompt_N2: Float[np.ndarray, "N 2"]) -> Contributions:
        """The same and `PROMPT`, which no order of the stacks is of."""
        columns = prompt_N2[:, :1], prompt_N2[:, 1:], np.zeros((len(prompt_N2), 1))
        parts = self.values_NC, self.raw_NC, self.interaction_NC
        return Contributions((*self.keys, PROMPT), *(np.hstack(pair) for pair in zip(parts, columns, strict=True)))


def contributions(account: TaskAccount, categories: Sequence[str], names: Sequence[str]) -> Contributions:
    """Each document's components: latents by category and origin, then `OTHERS`, then `PROMPT` where there is one."""
    member_LK = category_matrix(categories, names)
    keys = [ComponentKey("latents", origin, name) for origin in (WRITTEN, READ) for name in names]
    orders = [
        np.hstack([*(account.latents[origin][order] @ member_LK for origin in (WRITTEN, READ)), others_NC])
        for order, others_NC in enumerate(account.others_ONC)
    ]
    raw_NC, scale_N1 = (orders[0] + orders[1]) / 2, account.scale_N[:, None]
    half_NC = (orders[0] - orders[1]) / 2
    found = Contributions((*keys, *OTHERS), scale_N1 * raw_NC, raw_NC, scale_N1 * half_NC)
    return found if account.prompt_N2 is None else found.with_prompt(account.prompt_N2)


def sum_components(
    account: TaskAccount,
    categories: Sequence[str],
    names: Sequence[str],
    rng: np.random.Generator,
    clusters: Sequence[str] | None = None,
) -> list[ComponentSum]:
    """The task's components with paired bootstrap intervals and sign-flip p-values over documents.

    A resample's sum is divided by its own weight: documents may weigh differently (bytes), and drawn documents stand
    for others, so that the interval holds the error of the draw too.

    Args:
        account: the task's.
        categories: of every latent.
        names: the categories that there are.
        rng: draws documents and signs.
        clusters: of every accounted document; whole clusters are drawn and flipped.
    """
    parts = contributions(account, categories, names)
    sampled_NC = account.sample_N[:, None] * parts.values_NC
    draws_RX = bootstrap_means(np.hstack([sampled_NC, account.weight_N[:, None]]), rng, clusters=clusters)
    n_units = len(sampled_NC) if clusters is None else len(set(clusters))
    found = percentile_interval(draws_RX[:, :-1] / draws_RX[:, -1:], n=n_units)
    p_values = np.atleast_1d(sign_flip_p(sampled_NC, rng, n_flips=1999, clusters=clusters))
    counts = {name: sum(c == name for c in categories) for name in names}
    sums = [account.mean(values_NC) for values_NC in (parts.values_NC, parts.raw_NC, parts.interaction_NC)]
    return [
        ComponentSum(
            key=key,
            contribution=float(sums[0][c]),
            contribution_raw=float(sums[1][c]),
            interaction=float(sums[2][c]),
            low=float(found.low[c]),
            high=float(found.high[c]),
            p_value=float(p_values[c]),
            n_latents=counts[key.category] if key.category is not None else None,
        )
        for c, key in enumerate(parts.keys)
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
