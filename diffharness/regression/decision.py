"""The rule that turns scores into verdicts, and what its errors are worth. Numbers in, results out.

A gap d is candidate − baseline, turned so that higher is better; m ≥ 0 is the loss that is accepted; L and U are the
bounds of an interval at 1 − 2 alpha, so that each is wrong with chance alpha. In this order:

1. L ≥ −m: **pass**; *improved* where L > 0 and d reaches the noise floor; a loss that U < 0 shows is named as lying
   inside the margin.
2. U < −m: **regression**. A loss beyond the margin is established.
3. U < 0 and d < −m: **likely regression**. The loss is real, its size straddles the margin.
4. Else **inconclusive**, with the loss that these documents could have found and the number that would settle it.

Which alphas. A check makes four kinds of claims, and each has a family of its own.

- *Alarm* (2 or 3) says that a score fell: it rejects H₀: gap ≥ 0. One alarm stops a run (a union–intersection test:
  Roy 1953, "On a heuristic method of test construction"), so twenty rules at 5 % would stop two of three runs in which
  nothing changed. Holm's step-down (1979, "A simple sequentially rejective multiple test procedure") over the
  one-sided p-values of H₀ keeps the chance of any false alarm at alpha, whichever other scores really fell.
- *Regression* says more: it rejects H₀: gap ≥ −m. Holm again, over these p-values. As they are larger one by one,
  every regression is an alarm, and the chance of calling any loss within its margin a regression is at most alpha. A
  *likely* regression has the first guarantee only: with a true loss inside the margin it is right that the score fell,
  and can be wrong in that the margin was passed. That is what its word says; `tests/benchmarks/gate.py` measures how
  often.
- *Pass* rejects H₀: gap ≤ −m, each rule at its alpha without correction. A run passes only if all of its rules do (an
  intersection–union test: Berger 1982, "Multiparameter hypothesis testing and acceptance sampling"): the chance that
  one passes while some score lost its margin or more is at most alpha, however many rules there are. Correcting would
  only make passing harder.
- *Improved* rejects H₀: gap ≤ 0, by Holm, so that no change does not look like progress in one of many scores.

The interval of a result is the one that its verdict rests on, and says its level. Rules with `correction: none` stand
outside all families. With several alphas each adjusted p-value is compared with its own rule's, and the families'
errors are at most the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np
from numpy.typing import NDArray

from diffharness.errors import UsageError
from diffharness.regression.comparison import ScoreComparison, Terms
from diffharness.regression.evidence import Evidence
from diffharness.regression.outcome import RuleResult, RuleVerdict
from diffharness.regression.power import detectable_loss, n_to_settle
from diffharness.regression.sentences import score_sentence
from diffharness.report.schema.base import Interval
from diffharness.statistics.multiple import holm

__all__ = ["Decision", "ScoreComparison", "Terms", "decide_scores", "decisions", "rule_verdict"]

_TOLERANCE = 1e-12
"""Scores are means of floats: 0.72 − 0.70 has to reach 0.02."""


@dataclass(frozen=True)
class Bounds:
    """The ends of intervals that the rule looks at, each at its claim's alpha."""

    low: float
    """Of passing."""
    high: float
    """Of an alarm."""
    high_beyond: float
    """Of a regression."""
    low_gain: float
    """Of an improvement."""


@dataclass(frozen=True)
class Decision:
    """What became of one rule."""

    verdict: RuleVerdict
    low: float
    high: float
    level: float
    """Of the interval that the verdict rests on."""
    falls: bool
    """Whether a loss is established, of whatever size."""
    p_loss: float
    """One-sided, of no loss."""
    p_beyond: float
    """One-sided, of a loss within the margin."""
    p_loss_corrected: float
    p_beyond_corrected: float
    n_rules: int
    """In its family."""
    alpha_first: float
    """What Holm asks of the smallest p-value: the alpha that detectable losses are computed with."""
    alpha_alarm: float
    """The alpha that an alarm of this rule had to keep to."""


def rule_verdict(gap: float, margin: float, bounds: Bounds, min_effect: float = 0.0) -> RuleVerdict:
    """The rule's four lines; see the head of this module."""
    if bounds.low >= -margin - _TOLERANCE:
        return "improved" if bounds.low_gain > 0 and gap >= min_effect - _TOLERANCE else "pass"
    if bounds.high_beyond < -margin - _TOLERANCE:
        return "regression"
    if bounds.high < 0 and gap < -margin - _TOLERANCE:
        return "likely regression"
    return "inconclusive"


def decisions(terms: Sequence[Terms], evidence: Sequence[Evidence]) -> list[Decision]:
    """Decide all score rules of one check."""
    alphas = np.array([one.alpha for one in terms])
    corrected = np.array([one.correction == "holm" for one in terms], dtype=bool)
    p_loss = np.array([one.p_below(0.0) for one in evidence])
    p_beyond = np.array([max(p_loss[i], one.p_below(-terms[i].margin)) for i, one in enumerate(evidence)])
    p_gain = np.array([one.p_above(0.0) for one in evidence])
    loss, beyond, gain = (_Family.of(p, alphas, corrected) for p in (p_loss, p_beyond, p_gain))
    n_holm = int(corrected.sum())
    found = []
    for i, (asked, one) in enumerate(zip(terms, evidence, strict=True)):
        low, high = one.bounds(1 - 2 * asked.alpha)
        bounds = Bounds(
            low=low,
            high=one.bounds(1 - 2 * loss.alphas[i])[1] if loss.rejected[i] else math.inf,
            high_beyond=one.bounds(1 - 2 * beyond.alphas[i])[1] if beyond.rejected[i] else math.inf,
            low_gain=one.bounds(1 - 2 * gain.alphas[i])[0] if gain.rejected[i] else -math.inf,
        )
        verdict = rule_verdict(one.gap, asked.margin, bounds, asked.min_effect)
        rests_on = {"improved": gain, "regression": beyond, "likely regression": loss, "inconclusive": loss}
        alpha = float(rests_on[verdict].alphas[i]) if verdict in rests_on else asked.alpha
        low, high = one.bounds(1 - 2 * alpha)
        found.append(
            Decision(
                verdict, low, high, 1 - 2 * alpha, bounds.high < 0,
                float(p_loss[i]), float(p_beyond[i]), float(loss.p[i]), float(beyond.p[i]),
                n_rules=n_holm if corrected[i] else 1,
                alpha_first=asked.alpha / n_holm if corrected[i] else asked.alpha,
                alpha_alarm=float(loss.alphas[i]),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Family:
    """Holm's steps over one kind of claim."""

    p: NDArray[np.float64]
    """Adjusted."""
    rejected: NDArray[np.bool_]
    alphas: NDArray[np.float64]
    """What each p-value was held against: alpha over the rules that were left at its step."""

    @classmethod
    def of(cls, p: NDArray[np.float64], alphas: NDArray[np.float64], corrected: NDArray[np.bool_]) -> _Family:
        adjusted = p.copy()
        adjusted[corrected] = holm(p[corrected])
        rejected = adjusted <= alphas
        left = np.ones(len(p))
        members = np.flatnonzero(corrected)
        n_rejected = int(rejected[members].sum())
        rank = np.empty(len(members), dtype=np.intp)
        rank[np.argsort(p[members], kind="stable")] = np.arange(len(members))
        left[members] = len(members) - np.where(rejected[members], rank, n_rejected)
        return cls(adjusted, rejected, alphas / np.maximum(left, 1))


def decide_scores(comparisons: Sequence[ScoreComparison], seed: int = 0) -> tuple[RuleResult, ...]:
    """Decide the score rules of one check, in their order.

    A rule whose scores are no numbers is an `error`, and the others are decided without it.

    Args:
        comparisons: all of them: those with `correction` holm are corrected together.
        seed: of resamples.

    Raises:
        UsageError: a margin lies below the noise floor.
        ValueError: arrays that do not fit together.
    """
    _refuse_small_margins(comparisons)
    problems = [one.problem() for one in comparisons]
    sound = [one for one, problem in zip(comparisons, problems, strict=True) if problem is None]
    n_holm = sum(one.terms.correction == "holm" for one in sound)
    smallest = [one.terms.alpha / (n_holm if one.terms.correction == "holm" else 1) for one in sound]
    evidence = [one.evidence(alpha, seed) for one, alpha in zip(sound, smallest, strict=True)]
    decided = iter(zip(evidence, decisions([one.terms for one in sound], evidence), strict=True))
    return tuple(
        _error(one, problem) if problem is not None else _result(one, *next(decided))
        for one, problem in zip(comparisons, problems, strict=True)
    )


def _refuse_small_margins(comparisons: Sequence[ScoreComparison]) -> None:
    """Name every margin below its noise floor at once, and the least that may be asked for."""
    small = [one for one in comparisons if one.terms.margin < one.terms.min_effect]
    if not small:
        return
    said = [
        f"rule {one.rule!r}: its margin of {one.terms.margin:g} lies below the noise floor of "
        f"{one.terms.min_effect:g} that the A/A run found"
        for one in small
    ]
    up = Context(prec=3, rounding=ROUND_CEILING)
    least = {one.task: f"{float(up.create_decimal(repr(float(one.terms.min_effect)))):g}" for one in small}
    tasks = ", ".join(f"{task}: {{margin: {margin}}}" for task, margin in least.items())
    raise UsageError(
        f'{"; ".join(said)}; raise the margin in the policy (--policy FILE), where `tasks: {{{tasks}, "*": {{}}}}` '
        "would do and keeps all other tasks gated"
    )


def _error(one: ScoreComparison, problem: str) -> RuleResult:
    return RuleResult(
        rule=one.rule, kind="score", verdict="error", sentence=problem, task=one.task, metric=one.metric,
        margin=one.terms.margin, alpha=one.terms.alpha, n=one.n,
    )  # fmt: skip


def _result(one: ScoreComparison, evidence: Evidence, decision: Decision) -> RuleResult:
    terms, (baseline, candidate) = one.terms, one.scores()
    finite = math.isfinite(decision.low) and math.isfinite(decision.high)
    settles = decision.verdict == "inconclusive"
    detectable = detectable_loss(evidence, terms.margin, decision.alpha_first)
    return RuleResult(
        rule=one.rule,
        kind="score",
        verdict=decision.verdict,
        sentence=score_sentence(one.n, terms, evidence, decision, detectable),
        task=one.task,
        metric=one.metric,
        baseline=baseline,
        candidate=candidate,
        difference=evidence.gap,
        interval=Interval(low=decision.low, high=decision.high, level=decision.level, method=evidence.method)
        if finite
        else None,
        margin=terms.margin,
        alpha=terms.alpha,
        n=one.n,
        p_value=decision.p_beyond,
        p_corrected=decision.p_beyond_corrected,
        detectable=detectable,
        n_to_settle=n_to_settle(evidence, one.n, terms.margin, terms.alpha, decision.alpha_alarm) if settles else None,
    )
