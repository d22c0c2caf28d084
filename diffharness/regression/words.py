"""What every view of a verdict says alike: the order of the rules, their signs and sentences.

Sentences hold strings from outside as they are; each view makes them safe in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.regression.outcome import Carried, CategoryCost, RuleResult, RuleVerdict, Verdict
from diffharness.report.numbers import count, interval, signed
from diffharness.report.text import brief

SIGNS: dict[RuleVerdict, str] = {
    "regression": "▼",
    "likely regression": "▼",
    "error": "!",
    "inconclusive": "?",
    "improved": "▲",
    "pass": "=",
}
"""Stand beside the word, so that colour is never the only carrier; the worst verdict first."""

LOST: tuple[RuleVerdict, ...] = ("regression", "likely regression")
CALM: tuple[RuleVerdict, ...] = ("improved", "pass")
"""Nothing has to be done about these."""

_ORDER = {verdict: position for position, verdict in enumerate(SIGNS)}


def worst_first(rules: Sequence[RuleResult]) -> list[RuleResult]:
    """The rules by verdict, then by how far beyond its margin each one lost."""
    return sorted(rules, key=lambda rule: (_ORDER[rule.verdict], -_beyond(rule), rule.rule))


def _beyond(rule: RuleResult) -> float:
    return -(rule.difference or 0.0) - (rule.margin or 0.0)


def tally(rules: Sequence[RuleResult]) -> str:
    """`regression 1, inconclusive 2, pass 9`, the worst first."""
    counts = {verdict: sum(rule.verdict == verdict for rule in rules) for verdict in SIGNS}
    return ", ".join(f"{verdict} {n}" for verdict, n in counts.items() if n) or "no rule"


def settles(rule: RuleResult) -> str | None:
    """How many documents would decide an inconclusive rule; none where that is not known."""
    if rule.verdict != "inconclusive" or rule.n_to_settle is None:
        return None
    has = f", {count(rule.n)} were compared" if rule.n is not None else ""
    return f"{count(rule.n_to_settle)} documents would settle it{has}"


def cost(found: CategoryCost) -> str:
    """`safety −0.310 [−0.350, −0.270]`."""
    spread = f" {interval(found.interval)}" if found.interval is not None else ""
    return f"{brief(found.category, 60)} {signed(found.contribution)}{spread}"


def carried(found: Carried) -> str:
    """Where a loss lies: the run's own sentence, and the parts it rests on."""
    parts = (
        f"specific latents {signed(found.specific_latents)}",
        f"other latents {signed(found.other_latents)}",
        f"error {signed(found.error)}",
        f"upper layers {signed(found.upper)}",
        *([f"own chat template {signed(found.prompt)}"] if found.prompt else []),
    )
    return f"{found.sentence.strip().rstrip('.')} ({', '.join(parts)})"


def where(verdict: Verdict) -> str:
    """`reports/run against baseline.json`."""
    return f"{verdict.run} against {verdict.against}"
