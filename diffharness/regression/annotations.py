"""GitHub's workflow commands: the worst rules as annotations, and text from outside that can not be a command.

A runner reads commands from standard output and error: `::name …` at the beginning of a line, blanks before it or
not, and the older `##[name]` anywhere in one (Azure: `##vso[`, TeamCity: `##teamcity[`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffharness.regression.outcome import RuleResult, RuleVerdict, Verdict
from diffharness.regression.words import SIGNS, cost, settles, worst_first
from diffharness.report.text import brief

MOST_OF_A_TYPE = 10
"""GitHub drops the others of a step without a word."""
_LONGEST_MESSAGE, _LONGEST_TITLE = 900, 120
_BREAK = "\u200b"
"""Zero width: two of a command's characters no longer stand side by side."""
_BETWEEN = re.compile("(?<=:)(?=:)|(?<=#)(?=#)")
_TYPES: dict[RuleVerdict, str] = {
    "regression": "error",
    "likely regression": "error",
    "error": "error",
    "inconclusive": "warning",
}


def inert(text: str) -> str:
    """The text with `::` and `##` broken: wherever a line is wrapped, no part of it is a command."""
    return _BETWEEN.sub(_BREAK, text)


def workflow_commands(verdict: Verdict) -> list[str]:
    """Lines for a runner's standard output: at most 10 of a type, the worst rules; what is left out is counted."""
    troubled = [rule for rule in worst_first(verdict.rules) if rule.verdict in _TYPES]
    lines: list[str] = []
    for kind in dict.fromkeys(_TYPES.values()):
        lines += _of_type(kind, [rule for rule in troubled if _TYPES[rule.verdict] == kind])
    if verdict.exit_code and not troubled:
        lines.append(command("error", f"diffharness: {verdict.verdict}", "; ".join(verdict.notes) or verdict.line))
    return lines


def _of_type(kind: str, rules: Sequence[RuleResult]) -> list[str]:
    kept = rules if len(rules) <= MOST_OF_A_TYPE else rules[: MOST_OF_A_TYPE - 1]
    lines = [command(kind, f"{SIGNS[rule.verdict]} {rule.verdict}: {rule.rule}", _message(rule)) for rule in kept]
    if len(kept) < len(rules):
        more = f"{len(rules) - len(kept)} more rules, not as far off as those shown, are in verdict.json"
        lines.append(command(kind, "diffharness", more))
    return lines


def _message(rule: RuleResult) -> str:
    said = [brief(rule.sentence, _LONGEST_MESSAGE // 2).rstrip(".")]
    if rule.why is not None and rule.why.costs:
        said.append(f"costs most: {', '.join(cost(found) for found in rule.why.costs)}")
    if (n := settles(rule)) is not None:
        said.append(n)
    return "; ".join(said)


def command(kind: str, title: str, message: str) -> str:
    """One workflow command, escaped as the runner undoes it."""
    title, message = inert(brief(title, _LONGEST_TITLE)), inert(brief(message, _LONGEST_MESSAGE))
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
