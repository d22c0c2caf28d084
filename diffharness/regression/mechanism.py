"""Rules on the mechanism, which a policy has to ask for: decided from a run's report alone.

Category contributions are corrected by Holm over all that rules match, specific latents over their rules, as in
`decision.py`, whose rule decides them: a cost is the loss, what it may cost is the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from diffharness.regression.comparison import Terms
from diffharness.regression.decision import Decision, decisions
from diffharness.regression.outcome import RuleResult
from diffharness.regression.why import contribution_of, direction, untrusted, why
from diffharness.report.numbers import p_words, percent, plain, signed
from diffharness.report.schema import CategoryShift, Interval, Report, Task
from diffharness.statistics.distributions import normal_cdf, normal_quantile
from diffharness.statistics.proportions import ratio_interval
from diffharness.statistics.roots import falling_root

__all__ = ["decide_contributions", "decide_quality", "decide_specific", "why"]


class Contribution(Protocol):
    """What `policy.ContributionRule` holds."""

    @property
    def category(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def min_contribution(self) -> float: ...


class Limit(Protocol):
    """What `policy.SpecificLimit` holds."""

    @property
    def side(self) -> Literal["baseline", "candidate"]: ...
    @property
    def change(self) -> float: ...


@dataclass(frozen=True)
class _Normal:
    """A number with a standard error."""

    gap: float
    standard_error: float | None
    freedom: float = math.inf
    method: str = ""
    approximate: str | None = None

    def bounds(self, level: float) -> tuple[float, float]:
        reach = float(normal_quantile((1 + level) / 2)) * (self.standard_error or 0.0)
        return self.gap - reach, self.gap + reach

    def errors_at(self, loss: float) -> tuple[float, float]:
        del loss
        return self.standard_error or 0.0, self.standard_error or 0.0

    def p_below(self, value: float) -> float:
        if not self.standard_error:
            return 0.0 if self.gap < value else 1.0
        return float(normal_cdf((self.gap - value) / self.standard_error))

    def p_above(self, value: float) -> float:
        return _Normal(-self.gap, self.standard_error).p_below(-value)


@dataclass(frozen=True)
class _Excess:
    """By how much one side's share of specific latents is below the other's: 1 − ratio, by Koopman's interval."""

    here: int
    total_here: int
    there: int
    total_there: int
    standard_error: float | None = None
    freedom: float = math.inf
    method: str = "score interval of the ratio"
    approximate: str | None = None

    @property
    def gap(self) -> float:
        if self.there == 0:
            return -math.inf
        return 1 - self.here * self.total_there / (self.total_here * self.there)

    def bounds(self, level: float) -> tuple[float, float]:
        found = ratio_interval(self.here, self.total_here, self.there, self.total_there, level)
        return (-math.inf, math.inf) if found is None else (1 - found[1], 1 - found[0])

    def errors_at(self, loss: float) -> tuple[float, float]:
        del loss
        return math.inf, math.inf

    def p_below(self, value: float) -> float:
        return falling_root(lambda alpha: self.bounds(1 - 2 * alpha)[1] - value, 0.0, 1e-9, 0.5 - 1e-9)

    def p_above(self, value: float) -> float:
        return falling_root(lambda alpha: value - self.bounds(1 - 2 * alpha)[0], 0.0, 1e-9, 0.5 - 1e-9)


def decide_contributions(report: Report, rules: Sequence[Contribution], alpha: float = 0.05) -> tuple[RuleResult, ...]:
    """`category: safety, task: "*", min_contribution: -0.01`: a result for each task of a rule.

    What is written and read together is held against the least; its standard error is that of its interval. A task
    whose account can not be trusted is inconclusive, with the reason.
    """
    rows = [row for row in report.tasks if row.is_primary and not row.is_group]
    matched = [(rule, row) for rule in rules for row in rows if fnmatchcase(row.task, rule.task)]
    open_, decided = {}, []
    for position, (rule, row) in enumerate(matched):
        if _unchanged(row):
            open_[position] = _contribution(rule, row, "pass", f"no document's score differs on {row.task}")
            continue
        reason = untrusted(report, row)
        found = contribution_of(row, rule.category)
        if reason is None and found is None:
            reason = f"the account has no latents of {rule.category}"
        if reason is not None or found is None:
            open_[position] = _contribution(rule, row, "inconclusive", str(reason))
        else:
            decided.append((position, rule, row, *found))
    terms = [Terms(max(-rule.min_contribution, 0.0), alpha) for _, rule, *_ in decided]
    evidence = [
        _Normal(direction(row) * value - max(rule.min_contribution, 0.0), _error(interval))
        for _, rule, row, value, interval in decided
    ]
    for (position, rule, row, value, _), one in zip(
        decided, decisions(terms, evidence) if decided else [], strict=True
    ):
        verdict = "pass" if one.verdict == "improved" else one.verdict
        open_[position] = _contribution(
            rule, row, verdict, _contribution_words(rule, row, value, one), value, one, alpha
        )
    return tuple(open_[position] for position in range(len(matched)))


def _unchanged(row: Task) -> bool:
    """Whether there is no loss of the metric that a category could have caused."""
    return row.gap == 0 and row.n > 0 and row.interval.method.startswith("no document's score differs")


def _error(interval: Interval) -> float:
    return (interval.high - interval.low) / (2 * float(normal_quantile((1 + interval.level) / 2)))


def _contribution(
    rule: Contribution,
    row: Task,
    verdict: Literal["pass", "regression", "likely regression", "inconclusive", "error"],
    sentence: str,
    value: float | None = None,
    decision: Decision | None = None,
    alpha: float | None = None,
) -> RuleResult:
    return RuleResult(
        rule=f"{rule.category} in {row.task}", kind="contribution", verdict=verdict, sentence=sentence, task=row.task,
        metric=f"{row.metric},{row.filter}", category=rule.category,
        difference=None if value is None else direction(row) * value,
        interval=None if decision is None else _shown(decision, max(rule.min_contribution, 0.0)),
        margin=max(-rule.min_contribution, 0.0), alpha=alpha, n=row.n_accounted or None,
        p_value=None if decision is None else decision.p_beyond,
        p_corrected=None if decision is None else decision.p_beyond_corrected,
    )  # fmt: skip


def _shown(decision: Decision, least: float = 0.0) -> Interval:
    return Interval(low=decision.low + least, high=decision.high + least, level=decision.level, method="normal")


def _contribution_words(rule: Contribution, row: Task, value: float, one: Decision) -> str:
    interval = _shown(one, max(rule.min_contribution, 0.0))
    unit = row.surrogate.unit if row.surrogate is not None else ""
    found = (
        f"{rule.category} latents contribute {signed(direction(row) * value)} "
        f"[{signed(interval.low)}, {signed(interval.high)}] {unit} to {row.task}, at least "
        f"{signed(rule.min_contribution)} is asked for"
    )
    said = {
        "regression": f"; they contribute less ({p_words(one.p_beyond_corrected)}, corrected over {one.n_rules})",
        "likely regression": f"; they cost something ({p_words(one.p_loss_corrected)}) and probably too much",
        "inconclusive": "; neither shown nor excluded: account for more documents",
    }
    return found + said.get(one.verdict, "")


def decide_specific(report: Report, limits: Mapping[str, Limit], alpha: float = 0.05) -> tuple[RuleResult, ...]:
    """`hallucination management: {side: baseline, change: 50%}`: a result for each category.

    The share of a category among the latents specific to `side` may exceed its share on the other side by `change`:
    with `baseline`, what the candidate lost of a category; with `candidate`, what it gained. By the report's default
    protocol.
    """
    results: dict[str, RuleResult] = {}
    decided: list[tuple[str, Limit, CategoryShift, _Excess]] = []
    for name, limit in limits.items():
        row = next((one for one in report.categories if one.name == name and one.is_default), None)
        if row is None:
            reason = report.categories_reason or f"the report counts no specific latents of {name}"
            results[name] = _specific(name, limit, "inconclusive", reason)
        elif row.n_baseline == row.n_candidate == 0:
            sentence = f"no {name} latent is specific to either model"
            results[name] = _specific(name, limit, "pass", sentence, row)
        else:
            counts = (row.n_baseline, row.total_baseline), (row.n_candidate, row.total_candidate)
            (here, total), (there, other) = counts if limit.side == "baseline" else reversed(counts)
            if min(total, other) == 0:
                reason = "one model has no specific latent at all to take a share of"
                results[name] = _specific(name, limit, "inconclusive", reason, row)
            else:
                decided.append((name, limit, row, _Excess(here, total, there, other)))
    terms = [Terms(limit.change, alpha) for _, limit, _, _ in decided]
    found = decisions(terms, [excess for *_, excess in decided]) if decided else []
    for (name, limit, row, excess), one in zip(decided, found, strict=True):
        verdict = "pass" if one.verdict == "improved" else one.verdict
        words = _specific_words(name, limit, row, excess, one)
        results[name] = _specific(name, limit, verdict, words, row, excess, one, alpha)
    return tuple(results[name] for name in limits)


def _specific(
    name: str,
    limit: Limit,
    verdict: Literal["pass", "regression", "likely regression", "inconclusive", "error"],
    sentence: str,
    row: CategoryShift | None = None,
    excess: _Excess | None = None,
    decision: Decision | None = None,
    alpha: float | None = None,
) -> RuleResult:
    finite = decision is not None and math.isfinite(decision.low) and math.isfinite(decision.high)
    return RuleResult(
        rule=f"{name} specific to the {limit.side}", kind="specific", verdict=verdict, sentence=sentence, category=name,
        baseline=None if row is None else float(row.n_baseline),
        candidate=None if row is None else float(row.n_candidate),
        difference=excess.gap if excess is not None and math.isfinite(excess.gap) else None,
        interval=Interval(low=decision.low, high=decision.high, level=decision.level, method=_Excess.method)
        if decision is not None and finite else None,
        margin=limit.change, alpha=alpha, n=None if row is None else row.n_baseline + row.n_candidate,
        p_value=None if decision is None else decision.p_beyond,
        p_corrected=None if decision is None else decision.p_beyond_corrected,
    )  # fmt: skip


def _specific_words(name: str, limit: Limit, row: CategoryShift, excess: _Excess, one: Decision) -> str:
    other = "candidate" if limit.side == "baseline" else "baseline"
    more = f"{percent(-excess.gap, sign=True)}" if math.isfinite(excess.gap) else "all"
    most = "no limit" if math.isinf(one.low) else percent(-one.low, sign=True)
    found = (
        f"{excess.here} of {excess.total_here} latents specific to the {limit.side} are {name}, {excess.there} of "
        f"{excess.total_there} of the {other}'s: {more} [{percent(-one.high, sign=True)}, {most}], "
        f"{percent(limit.change, sign=True)} is allowed ({row.protocol})"
    )
    said = {"regression": "; that is more", "likely regression": "; that is probably more"}
    return found + said.get(one.verdict, "; too few latents to tell" if one.verdict == "inconclusive" else "")


def decide_quality(report: Report, minimum: float) -> RuleResult:
    """`min_explained_variance`: what the crosscoder that the account rests on has to explain of either model."""
    name = "explained variance"
    rows = [row for row in report.quality if {"baseline", "candidate"} <= {side.split("@")[0] for side in row.models}]
    found = {side: value for row in rows or report.quality for side, value in row.explained_variance.items()}
    if not found:
        return RuleResult(rule=name, kind="quality", verdict="inconclusive", sentence="the report measures none",
                          margin=minimum)  # fmt: skip
    side, least = min(found.items(), key=lambda one: one[1])
    enough = least >= minimum
    remedy = "" if enough else "; train a crosscoder for this pair, or one with more latents"
    sentence = f"the crosscoder explains {plain(least)} of the {side}'s variance, {minimum:g} is asked for{remedy}"
    return RuleResult(
        rule=name, kind="quality", verdict="pass" if enough else "regression", sentence=sentence,
        difference=least - minimum, margin=0.0,
    )  # fmt: skip
