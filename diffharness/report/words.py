"""The report's sentences: a run's verdict and a task's account, worded no stronger than they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from diffharness.report.claims import claim_of
from diffharness.report.numbers import count, interval, percent, plain, signed, small
from diffharness.report.schema import Claim, Component, Report, Task, TaskVerdict
from diffharness.report.view import Part, by_severity, is_explained, is_real, parts, primary

VERDICT_SIGNS: dict[TaskVerdict, str] = {
    "improved": "▲",
    "regressed": "▼",
    "no change": "=",
    "inconclusive": "?",
}
"""Stand beside the word, so that colour is never the only carrier."""

VERDICTS: tuple[TaskVerdict, ...] = ("improved", "regressed", "no change", "inconclusive")

_MENTIONED = 0.1
"""Parts below this share of the gap are not mentioned in a sentence; the table has them."""


def tally(report: Report) -> dict[TaskVerdict, int]:
    """Number of tasks by verdict on their primary metric."""
    counts = Counter(task.verdict for task in primary(report))
    return {verdict: counts[verdict] for verdict in VERDICTS}


def headline(report: Report) -> str:
    """The verdict of the run: how many tasks changed, and which category carries most of it."""
    counts, n = tally(report), len(primary(report))
    if n == 0:
        return "No task was evaluated."
    changed = counts["improved"] + counts["regressed"]
    rest = ", ".join(f"{v} in {counts[v]}" for v in ("no change", "inconclusive") if counts[v])
    if changed == 0:
        return f"No gap to explain in {_n(n, 'task')}: {rest}."
    moved = _listing([f"{counts[v]} {v}" for v in ("improved", "regressed") if counts[v]])
    sentence = f"{changed} of {_n(n, 'task')} changed: {moved}" + (f" ({rest})" if rest else "")
    return f"{sentence}; {_carrier(report)}."


def replay_sentence(report: Report) -> str | None:
    """Whether replay gives lm-eval's answers; none where nothing was compared."""
    checks = report.validation.replay
    if not checks:
        return None
    worst = max((c.maximum for c in checks if c.maximum is not None), default=None)
    n_decisions = sum(c.n_decisions for c in checks)
    changed = round(sum(c.n_decisions * (c.changed_share or 0.0) for c in checks))
    apart = f", at most {small(worst)} nats a token apart" if worst is not None else ""
    flipped = f", {count(changed)} of {count(n_decisions)} decisions changed" if n_decisions else ""
    return (
        f"replay gives lm-eval's answers in {sum(c.holds for c in checks)} of {len(checks)} comparisons{apart}{flipped}"
    )


def rescored_sentence(report: Report) -> str | None:
    """What lm-eval's grouping of requests got wrong; none where it got nothing wrong."""
    rows = report.validation.rescored
    if not rows:
        return None
    most = {row.task: max(r.n for r in rows if r.task == row.task) for row in rows}
    return (
        f"lm-eval's grouping of requests gave {_n(sum(most.values()), 'document')} of {_listing(list(most))} a wrong "
        f"log-probability (by {small(max(row.largest for row in rows))} nats at most); they were scored again without "
        "it, and the scores above rest on the right values"
    )


def corpus_sentence(report: Report) -> str | None:
    """What the crosscoder learned from, or a loaded one was measured on; none where there is none."""
    if not report.corpus:
        return None
    parts = [f"{source.source} ({percent(source.share)})" for source in report.corpus]
    shown = parts if len(parts) <= 6 else [*parts[:5], f"{len(parts) - 5} more"]
    loaded = bool(report.quality) and bool(report.quality[0].source)
    made = "crosscoder loaded, and measured on" if loaded else "crosscoder trained on"
    return f"{made} {count(sum(s.n_tokens for s in report.corpus))} tokens of {_listing(shown)}"


def _carrier(report: Report) -> str:
    if report.validation.mechanism_withheld is not None:
        return "why is withheld"
    explained = [task for task in report.tasks if is_explained(task)]
    if not explained:
        return "no account of it can be read as a cause"
    totals: dict[str, float] = {}
    best: dict[str, tuple[float, Task, Part]] = {}
    for task in explained:
        for part in parts(task):
            if part.kind != "latents" or part.category is None:
                continue
            size = abs(part.contribution)
            totals[part.category] = totals.get(part.category, 0.0) + size
            if size > best.get(part.category, (-1.0, task, part))[0]:
                best[part.category] = (size, task, part)
    if not totals:
        return "none of it is carried by latents of a category"
    category = max(totals, key=lambda name: (totals[name], name))
    _, task, part = best[category]
    gap = task.surrogate.gap if task.surrogate is not None else task.gap
    carried = f"{signed(part.contribution)} of {signed(gap)} in {task.task}"
    if category == "unclear":
        return f"what latents carry of it is mostly unclear in meaning ({carried})"
    return f"among categories, {category} carries most ({carried})"


def verdict_reason(task: Task, smallest_effect: float) -> str:
    """Why the task has its verdict."""
    spread, smallest = interval(task.interval), plain(smallest_effect)
    better = "higher" if task.higher_is_better else "lower"
    if is_real(task):
        return f"The interval {spread} excludes 0 and the gap reaches {smallest}; {better} is better."
    if task.verdict == "no change":
        return f"The whole interval {spread} lies within ±{smallest}."
    if task.interval.excludes_zero():
        return f"The interval {spread} excludes 0, but the gap stays below {smallest}."
    return f"The interval {spread} holds 0 and reaches beyond ±{smallest}."


def to_explain(report: Report) -> tuple[tuple[Task, ...], str | None]:
    """The tasks with a gap, the worst first; where none is to be told of, none and the sentence that says why."""
    if (withheld := report.validation.mechanism_withheld) is not None:
        return (), f"Withheld: {withheld}"
    real = tuple(task for task in by_severity(primary(report)) if is_real(task))
    return real, None if real else "There is no gap to explain."


def account_sentence(task: Task, claims: Sequence[Claim] = ()) -> str:
    """One task's account in plain words.

    A part is worded as a cause only where the gap is real, the surrogate tracks the metric, the exact check has the
    gap's sign with an interval that excludes zero, and it beat random sets of latents.

    Args:
        task: its row of the report.
        claims: all of the report's.
    """
    if task.surrogate is None or not task.components:
        reason = _as_clause(task.account_reason or "no reason was recorded")
        return f"There is no account of this task: {reason}."
    if not is_real(task):
        return _without_a_gap(task)
    gap = task.surrogate.gap
    if not task.surrogate.tracks:
        return (
            f"The surrogate ({task.surrogate.name}, gap {signed(gap)}) does not track {task.metric}: "
            f"{_as_clause(task.surrogate.tracks_reason)}. Its parts are listed below and say nothing about "
            f"what caused the gap of {signed(task.gap)}."
        )
    sized = [p for p in parts(task) if abs(p.contribution) >= _MENTIONED * abs(gap)]
    mentioned = sized[:4]
    if not mentioned:
        return f"The gap of {signed(gap)} is spread over parts that are each below a tenth of it."
    verb = "carry" if part_name(mentioned[0]).endswith("s") else "carries"
    carried = [f"{part_name(mentioned[0])} {verb} {_amount(mentioned[0])}"]
    carried += [f"{part_name(p)} {_amount(p)}" for p in mentioned[1:]]
    sentences = [f"Of the {signed(gap)} gap ({task.surrogate.name}), {_listing(carried)}."]
    checked = [check_sentence(task, p, claims) for p in mentioned if p.kind == "latents"]
    if not checked:
        checked = ["No category's latents carry a tenth of it."]
    return " ".join(sentences + checked)


def _without_a_gap(task: Task) -> str:
    if task.verdict == "no change":
        return "There is no gap to explain: the scores agree within the smallest effect."
    return (
        "There is no gap to explain: it is not known whether the scores differ. "
        "The parts below add up to a gap that may be chance."
    )


def part_name(part: Part) -> str:
    """How a sentence calls a part of a gap."""
    if part.kind == "latents":
        return "latents of unclear meaning" if part.category == "unclear" else f"{part.category} latents"
    return {
        "bias": "the crosscoder's bias",
        "error": "what the crosscoder does not reconstruct",
        "upper": "the upper layers",
        "prior": "the prior",
        "prompt": "the candidate's own chat template in place of the baseline's",
    }.get(part.kind, part.kind)


def check_agrees(task: Task, component: Component) -> bool | None:
    """Whether the exact check has the sign of the component, each relative to its own gap.

    `None` where there was no check. The metric and its surrogate may point in opposite directions
    (perplexity and log-likelihood), so the signs are compared against the two gaps.
    """
    if component.ablation is None or task.surrogate is None:
        return None
    return component.contribution * task.surrogate.gap * component.ablation.change * task.gap > 0


def check_word(task: Task, component: Component) -> str:
    """The exact check's verdict in a table's cell; empty where there is no gap that it could be a check of."""
    agrees = check_agrees(task, component)
    if agrees is None or component.ablation is None or not is_explained(task):
        return ""
    if not agrees:
        return "does not agree"
    return "agrees" if component.ablation.interval.excludes_zero() else "same sign, holds 0"


def check_sentence(task: Task, part: Part, claims: Sequence[Claim] = ()) -> str:
    """What the exact check, and random sets of latents, say about the part's written contribution."""
    written = next((c for c in part.members if c.origin == "written"), part.members[0])
    name = part_name(part)
    if written.ablation is None:
        reason = _as_clause(written.ablation_reason or "no reason was recorded")
        return f"There is no exact check of {name}: {reason}."
    check = written.ablation
    moved = f"without their change the candidate scores {plain(check.score)}, not {plain(_asked_alike(task))}"
    if not check_agrees(task, written):
        return (
            f"The exact check does not agree about {name} ({signed(check.change)} {task.metric}), "
            "so they are not called a cause."
        )
    if not check.interval.excludes_zero():
        return (
            f"The exact check of {name} has the same sign ({signed(check.change)} {task.metric}), "
            f"but its interval {interval(check.interval)} holds 0."
        )
    claim = claim_of(claims, task.task, part.category, "written")
    if claim is None:
        return f"The exact check agrees about {name} ({moved}), but whether random latents do as much was not tried."
    if not claim.is_causal:
        return f"The exact check agrees about {name} ({moved}), but they are not called a cause: {_short_of(claim)}."
    if written.contribution * (task.surrogate.gap if task.surrogate else 0.0) < 0:
        return f"The exact check agrees that {name} work against the gap: {moved}."
    return f"The exact check agrees that {name} are a cause: {moved}."


def _asked_alike(task: Task) -> float:
    """What the candidate scores where it is asked in the baseline's chat template, as the exact checks ask it."""
    own = next((c.ablation for c in task.components if c.kind == "prompt" and c.ablation is not None), None)
    return task.candidate if own is None else own.score


def _short_of(claim: Claim) -> str:
    """What a claim lacks."""
    return _as_clause(claim.words.removeprefix("contributes; "))


def _amount(part: Part) -> str:
    share = f" ({percent(part.share)})" if part.share is not None else ""
    return f"{signed(part.contribution)}{share}"


def _as_clause(sentence: str) -> str:
    return sentence.strip().rstrip(".")


def _listing(items: list[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _n(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
