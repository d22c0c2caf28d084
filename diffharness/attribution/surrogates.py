"""Surrogates: smooth stand-ins for a task's metric, whose gap can be integrated along a path.

A document's score is a function of the log-likelihoods of its readings. The path integrates `m` (log-odds or
log-likelihood, because probabilities saturate and hide their causes); the report shows `M`, in the metric's unit.
Table of the design, "Surrogates M of the metric". Legend: R readings of a document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Paths: TypeAlias = Callable[[Tensor], Tensor]
"""From the log-likelihoods of a batch's readings (R) to m of its documents (G), differentiable."""


class Surrogate(Protocol):
    """How a document's score follows from its readings' log-likelihoods (nats)."""

    @staticmethod
    def batched(surrogates: Sequence[Any], readings: Sequence[slice], device: torch.device) -> Paths:
        """`path` of many documents of one kind at once: a document at a time costs more than the layers above.

        Args:
            surrogates: of this class.
            readings: where each document's readings are among the batch's.
            device: of the log-likelihoods.
        """
        ...

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """The integrated quantity m; differentiable."""
        ...

    def metric(self, m: float) -> float:
        """M at m, in the metric's unit."""
        ...

    def slope(self, m: float) -> float:
        """dM/dm."""
        ...


def paths(surrogates: Sequence[Surrogate], readings: Sequence[slice], device: torch.device) -> Paths:
    """`path` of all documents of a batch; as `Surrogate.batched`, of any classes."""
    groups: dict[type, list[int]] = {}
    for g, surrogate in enumerate(surrogates):
        groups.setdefault(type(surrogate), []).append(g)
    parts = [
        kind.batched([surrogates[g] for g in own], [readings[g] for g in own], device) for kind, own in groups.items()
    ]
    place_G = torch.tensor([g for own in groups.values() for g in own], device=device).argsort()
    return lambda log_likelihood_R: torch.cat([part(log_likelihood_R) for part in parts])[place_G]


def _sums(readings: Sequence[slice], weights: Sequence[Sequence[float]], device: torch.device) -> Paths:
    """Weighted sums of each document's readings."""
    document_R = torch.tensor([g for g, w in enumerate(weights) for _ in w], device=device)
    reading_R = torch.tensor([r for s in readings for r in range(s.start, s.stop)], device=device)
    weight_R = torch.tensor([x for w in weights for x in w], dtype=torch.float64, device=device)

    def sums(log_likelihood_R: Tensor) -> Tensor:
        zeros_G = log_likelihood_R.new_zeros(len(readings))
        return zeros_G.index_add(0, document_R, log_likelihood_R[reading_R] * weight_R.to(log_likelihood_R.dtype))

    return sums


def _sigmoid(m: float) -> float:
    return 1 / (1 + math.exp(-m)) if m >= 0 else math.exp(m) / (1 + math.exp(m))


def _log_odds(log_p: Tensor) -> Tensor:
    log_p = log_p.clamp(max=-1e-15)
    log_rest = torch.where(log_p > -math.log(2), torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))
    return log_p - log_rest


@dataclass(frozen=True)
class Choice:
    """Multiple choice: m = log-odds of the right choices among all, M = their probability."""

    gold: tuple[int, ...]
    divisors: tuple[float, ...]
    """What each choice's log-likelihood is divided by before the softmax (1, or its length for `acc_norm`)."""
    unconditional: bool = False
    """Whether readings K … 2K − 1 are the choices without context, to be subtracted (`acc_mutual_info`)."""

    @staticmethod
    def batched(surrogates: Sequence[Choice], readings: Sequence[slice], device: torch.device) -> Paths:
        """See `Surrogate.batched`."""
        n, most = len(surrogates), max(len(s.divisors) for s in surrogates)
        with_context_GK = torch.zeros(n, most, dtype=torch.long)
        without_GK, divisor_GK = torch.zeros_like(with_context_GK), torch.ones(n, most, dtype=torch.float64)
        right_GK, wrong_GK = torch.zeros(n, most, dtype=torch.bool), torch.zeros(n, most, dtype=torch.bool)
        unconditional_G1 = torch.tensor([[float(s.unconditional)] for s in surrogates], dtype=torch.float64)
        for g, (own, where) in enumerate(zip(surrogates, readings, strict=True)):
            k = len(own.divisors)
            with_context_GK[g, :k] = torch.arange(where.start, where.start + k)
            if own.unconditional:
                without_GK[g, :k] = torch.arange(where.start + k, where.start + 2 * k)
            divisor_GK[g, :k] = torch.tensor(own.divisors, dtype=torch.float64)
            wrong_GK[g, :k] = True
            right_GK[g, list(own.gold)] = True
        wrong_GK &= ~right_GK
        index = [t.to(device) for t in (with_context_GK, without_GK, right_GK, wrong_GK)]
        scale = [t.to(device) for t in (divisor_GK, unconditional_G1)]

        def odds(log_likelihood_R: Tensor) -> Tensor:
            scores_GK = log_likelihood_R[index[0]]
            if any(s.unconditional for s in surrogates):
                scores_GK = scores_GK - scale[1].to(scores_GK) * log_likelihood_R[index[1]]
            scores_GK = scores_GK / scale[0].to(scores_GK)
            right_G, wrong_G = (scores_GK.masked_fill(~kept, -math.inf).logsumexp(1) for kept in index[2:])
            return right_G - wrong_G

        return odds

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """Log-odds of the right choices."""
        n = len(self.divisors)
        scores = log_likelihood_R[:n]
        if self.unconditional:
            scores = scores - log_likelihood_R[n : 2 * n]
        scores = scores / scores.new_tensor(self.divisors)
        right = torch.zeros(n, dtype=torch.bool, device=scores.device)
        right[list(self.gold)] = True
        return scores[right].logsumexp(0) - scores[~right].logsumexp(0)

    def metric(self, m: float) -> float:
        """Probability of the right choices."""
        return _sigmoid(m)

    def slope(self, m: float) -> float:
        """p (1 − p)."""
        return _sigmoid(m) * _sigmoid(-m)


@dataclass(frozen=True)
class TargetProbability:
    """Greedy accuracy of a target: m = log-odds of its probability, M = its probability."""

    @staticmethod
    def batched(surrogates: Sequence[TargetProbability], readings: Sequence[slice], device: torch.device) -> Paths:
        """See `Surrogate.batched`."""
        del surrogates
        sums = _sums(readings, [[1.0] * (s.stop - s.start) for s in readings], device)
        return lambda log_likelihood_R: _log_odds(sums(log_likelihood_R))

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """log p − log(1 − p), stable at both ends."""
        return _log_odds(log_likelihood_R.sum())

    def metric(self, m: float) -> float:
        """Probability of the target."""
        return _sigmoid(m)

    def slope(self, m: float) -> float:
        """p (1 − p)."""
        return _sigmoid(m) * _sigmoid(-m)


@dataclass(frozen=True)
class LogLikelihood:
    """A log-likelihood: m = its sum over the readings times `path_scale`, M = m times `metric_scale`.

    Perplexity of a target: m a token, M the document's log-likelihood in nats. Rolling: M in bits per byte, scaled
    so that the mean over the task's documents is the task's bits per byte.
    """

    path_scale: float
    metric_scale: float

    @staticmethod
    def batched(surrogates: Sequence[LogLikelihood], readings: Sequence[slice], device: torch.device) -> Paths:
        """See `Surrogate.batched`."""
        weights = [[own.path_scale] * (s.stop - s.start) for own, s in zip(surrogates, readings, strict=True)]
        return _sums(readings, weights, device)

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """Scaled log-likelihood."""
        return log_likelihood_R.sum() * self.path_scale

    def metric(self, m: float) -> float:
        """M, linear in m."""
        return m * self.metric_scale

    def slope(self, m: float) -> float:
        """Constant."""
        del m
        return self.metric_scale


@dataclass(frozen=True)
class Preference:
    """Generated answers: m = log p(candidate's answer) − log p(baseline's answer), both teacher-forced.

    M = r_b + (r_c − r_b) · σ(m), the expected score of choosing between the two recorded answers.
    Readings: the baseline's answer, then the candidate's.
    """

    baseline_score: float
    candidate_score: float

    @staticmethod
    def batched(surrogates: Sequence[Preference], readings: Sequence[slice], device: torch.device) -> Paths:
        """See `Surrogate.batched`; with repeats the mean over all pairs."""
        weights = [
            [sign / own.n_pairs for _ in range((s.stop - s.start) // 2) for sign in (-1.0, 1.0)]
            for own, s in zip(surrogates, readings, strict=True)
        ]
        return _sums(readings, weights, device)

    @property
    def n_pairs(self) -> int:
        """Pairs of answers, those that are equal included."""
        return 1

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """Log-odds of the candidate's answer against the baseline's."""
        return log_likelihood_R[1] - log_likelihood_R[0]

    def metric(self, m: float) -> float:
        """Expected score."""
        return self.baseline_score + (self.candidate_score - self.baseline_score) * _sigmoid(m)

    def slope(self, m: float) -> float:
        """(r_c − r_b) σ (1 − σ)."""
        return (self.candidate_score - self.baseline_score) * _sigmoid(m) * _sigmoid(-m)


def scale_to_metric(surrogate: Surrogate, m_baseline: float, m_candidate: float) -> float:
    """What turns contributions to m into contributions to M: (M_c − M_b)/(m_c − m_b), or dM/dm where those meet.

    With it, contributions that sum to m_c − m_b sum exactly to M_c − M_b and keep their proportions.
    """
    if abs(m_candidate - m_baseline) <= 1e-6:
        return surrogate.slope((m_baseline + m_candidate) / 2)
    return (surrogate.metric(m_candidate) - surrogate.metric(m_baseline)) / (m_candidate - m_baseline)
