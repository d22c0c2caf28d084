"""Surrogates: smooth stand-ins for a task's metric, whose gap can be integrated along a path.

A document's score is a function of the log-likelihoods of its readings. The path integrates `m` (log-odds or
log-likelihood, because probabilities saturate and hide their causes); the report shows `M`, in the metric's unit.
Table of the design, "Surrogates M of the metric". Legend: R readings of a document.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Surrogate(Protocol):
    """How a document's score follows from its readings' log-likelihoods (nats)."""

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """The integrated quantity m; differentiable."""
        ...

    def metric(self, m: float) -> float:
        """M at m, in the metric's unit."""
        ...

    def slope(self, m: float) -> float:
        """dM/dm."""
        ...


def _sigmoid(m: float) -> float:
    return 1 / (1 + math.exp(-m)) if m >= 0 else math.exp(m) / (1 + math.exp(m))


@dataclass(frozen=True)
class Choice:
    """Multiple choice: m = log-odds of the right choices among all, M = their probability."""

    gold: tuple[int, ...]
    divisors: tuple[float, ...]
    """What each choice's log-likelihood is divided by before the softmax (1, or its length for `acc_norm`)."""
    unconditional: bool = False
    """Whether readings K … 2K − 1 are the choices without context, to be subtracted (`acc_mutual_info`)."""

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

    def path(self, log_likelihood_R: Float[Tensor, " R"]) -> Float[Tensor, ""]:
        """log p − log(1 − p), stable at both ends."""
        log_p = log_likelihood_R.sum().clamp(max=-1e-12)
        log_rest = torch.where(log_p > -math.log(2), torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))
        return log_p - log_rest

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
