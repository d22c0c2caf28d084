"""The mechanism behind one score's loss, from the run's own account of it."""

from __future__ import annotations

from diffharness.regression.outcome import Carried, CategoryCost, FlippedDocument, Why
from diffharness.report.numbers import percent, signed
from diffharness.report.schema import Component, Interval, Report, Task

_MOST_COSTS, _MOST_FLIPPED = 2, 3
_LARGEST_SHARE = 2.0
"""Of a part in the gap: parts that cancel make shares that say nothing."""
LOWER_UNITS = ("bits per byte",)
"""Units of surrogates of which less is better."""
_SPECIFIC = ("baseline-specific", "candidate-specific")


def why(report: Report, task: str) -> Why:
    """What is known of a task's loss: costs, flipped documents, and where the loss lies.

    Where the surrogate does not track the metric, or a check of the account failed, the documents alone and the reason.
    """
    row = next((one for one in report.tasks if one.task == task and one.is_primary and not one.is_group), None)
    if row is None:
        return Why(reason=f"the run's report has no account of {task}")
    flipped = _flipped(row)
    if (reason := untrusted(report, row)) is not None:
        return Why(flipped=flipped, reason=reason)
    return Why(costs=_costs(row), flipped=flipped, carried=_carried(report, row))


def untrusted(report: Report, task: Task) -> str | None:
    """Why nothing may be worded as a cause of a task's gap."""
    if report.validation.mechanism_withheld is not None:
        return f"the mechanism is withheld: {report.validation.mechanism_withheld}"
    stale = next((one.stale for one in report.quality if one.stale is not None), None)
    if stale is not None:
        return f"the crosscoder is stale: {stale}"
    if task.surrogate is None or not task.components:
        return f"the task has no account: {task.account_reason or 'none was made'}"
    if not task.surrogate.tracks:
        return f"the account's {task.surrogate.name} does not track the metric: {task.surrogate.tracks_reason}"
    return None


def direction(task: Task) -> float:
    """1 where more of the surrogate is better, −1 where less is."""
    unit = task.surrogate.unit if task.surrogate is not None else ""
    if unit == "score":  # the metric's own, of answers
        return 1.0 if task.higher_is_better else -1.0
    return -1.0 if unit in LOWER_UNITS else 1.0


def contribution_of(task: Task, category: str) -> tuple[float, Interval] | None:
    """What a category's latents contribute, written and read together, in the surrogate's unit.

    The two parts' intervals are added end by end: a standard deviation of a sum is at most the sum of the standard
    deviations, so it covers at least as often as they do, whatever goes together with what.
    """
    parts = [c for c in task.components if c.kind == "latents" and c.category == category]
    if not parts:
        return None
    low, high = (sum(getattr(part.interval, end) for part in parts) for end in ("low", "high"))
    method = parts[0].interval.method if len(parts) == 1 else f"{parts[0].interval.method}; written and read added"
    return sum(part.contribution for part in parts), Interval(
        low=low, high=high, level=min(part.interval.level for part in parts), method=method
    )


def _costs(task: Task) -> tuple[CategoryCost, ...]:
    """The categories that cost most, the worst first; those that cost nothing are left out."""
    names = dict.fromkeys(c.category for c in task.components if c.kind == "latents" and c.category is not None)
    found = {name: part for name in names if (part := contribution_of(task, name)) is not None}
    sign = direction(task)
    worst = sorted((name for name in found if sign * found[name][0] < 0), key=lambda name: sign * found[name][0])
    return tuple(
        CategoryCost(category=name, contribution=found[name][0], interval=found[name][1])
        for name in worst[:_MOST_COSTS]
    )


def _flipped(task: Task) -> tuple[FlippedDocument, ...]:
    """The documents that went wrong, in the report's order: those whose surrogate moved most first."""
    sign = 1.0 if task.higher_is_better else -1.0
    lost = [d for d in task.documents if sign * (d.candidate_score - d.baseline_score) < 0]
    return tuple(
        FlippedDocument(
            doc_id=d.doc_id, prompt=d.prompt, target=d.gold,
            baseline_answer=d.baseline_answer, candidate_answer=d.candidate_answer,
        )
        for d in lost[:_MOST_FLIPPED]
    )  # fmt: skip


def _carried(report: Report, task: Task) -> Carried:
    """The surrogate's gap in five parts, which sum to it but for what the quadrature missed."""
    specific = sum(
        latent.contributions.get(task.task, 0.0) - latent.read.get(task.task, 0.0)
        for latent in report.latents
        if latent.status in _SPECIFIC
    )
    latents = _total(task.components, "latents")
    error = _total(task.components, "error", "bias")
    upper = _total(task.components, "prior", "upper")
    prompt = _total(task.components, "prompt")
    parts = {
        "latents specific to one of the models": specific,
        "latents that both models have": latents - specific,
        "what the crosscoder does not read (error and bias)": error,
        "the layers above, before any latent": upper,
        "the candidate's own chat template in place of the baseline's": prompt,
    }
    return Carried(
        specific_latents=specific, other_latents=latents - specific, error=error, upper=upper, prompt=prompt,
        sentence=_sentence(task, parts),
    )  # fmt: skip


def _total(components: tuple[Component, ...], *kinds: str) -> float:
    return float(sum(c.contribution for c in components if c.kind in kinds))


def _sentence(task: Task, parts: dict[str, float]) -> str:
    gap, sign = sum(parts.values()), direction(task)
    name, most = min(parts.items(), key=lambda part: sign * part[1])
    unit = task.surrogate.unit if task.surrogate is not None else ""
    if sign * gap >= 0:
        return f"the account's {unit} did not fall ({signed(gap)}), so no part carries a loss"
    if most / gap >= 0.5:
        share = f" ({percent(most / gap)})" if most / gap <= _LARGEST_SHARE else ""
        return f"mostly carried by {name}: {signed(most)} of {signed(gap)} {unit}{share}"
    return f"no part carries half of {signed(gap)} {unit}; the largest is {name} with {signed(most)}"
