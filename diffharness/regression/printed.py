"""A verdict on a terminal: the rules, why each loss happened, and last the line that agrees with the exit code.

Strings from outside reach rich only as `Text`, without control characters, and with a runner's commands broken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffharness.regression.annotations import inert, workflow_commands
from diffharness.regression.outcome import FlippedDocument, RuleResult, RuleVerdict, Verdict
from diffharness.regression.words import CALM, LOST, SIGNS, carried, cost, settles, tally, where, worst_first
from diffharness.report.numbers import interval, plain, signed
from diffharness.report.text import brief, squeeze

_STYLES: dict[RuleVerdict, str] = {
    "regression": "bold dark_orange",
    "likely regression": "bold dark_orange",
    "error": "bold dark_orange",
    "inconclusive": "none",
    "improved": "bold cyan",
    "pass": "dim",
}
_MOST_ROWS = 12
"""Rules in the table; what passes is folded into a count first."""
_MOST_TOLD = 6
"""Rules that are told in full, with their why."""
_MOST_FLIPPED = 3
_LONGEST_SENTENCE = 400
_LONGEST_LINE = 600


def print_verdict(verdict: Verdict, console: Console, environment: Mapping[str, str] | None = None) -> None:
    """Print all that a check has to say; the last line is the verdict's.

    Args:
        verdict: what was found.
        console: the command's standard output.
        environment: where `GITHUB_ACTIONS=true` asks for annotations; `None` is the process's own.
    """
    environment = os.environ if environment is None else environment
    console.print(_safe(f"diffharness check of {where(verdict)}", 2 * console.width), style="bold")
    if verdict.rules:
        console.print(_table(worst_first(verdict.rules), console.width))
    _print_left_out(verdict, console)
    told = [rule for rule in worst_first(verdict.rules) if rule.verdict not in CALM]
    for rule in told[:_MOST_TOLD]:
        _print_rule(rule, console)
    if len(told) > _MOST_TOLD:
        console.print(Text(f"… and {len(told) - _MOST_TOLD} more that did not pass, in verdict.json", style="dim"))
    for note in verdict.notes:
        console.print(_safe(f"note: {note}", _LONGEST_SENTENCE), style="dark_orange")
    if environment.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(verdict):
            console.print(Text(line), soft_wrap=True)
    console.print(Text(verdict_line(verdict)), soft_wrap=True)


def verdict_line(verdict: Verdict) -> str:
    """`Verdict.line` as it is printed: one line of bounded length that no runner obeys."""
    return inert(brief(verdict.line, _LONGEST_LINE))


def _shown(rules: list[RuleResult]) -> list[RuleResult]:
    """The rules of the table: all of a short list; of a long one those that did not pass, as far as there is room."""
    if len(rules) <= _MOST_ROWS:
        return rules
    return [rule for rule in rules if rule.verdict not in CALM][:_MOST_ROWS]


def _table(rules: list[RuleResult], width: int) -> Table:
    """A row a rule; only names of rules give way on a narrow terminal, never a number."""
    shown = _shown(rules)
    rows = [(signed(r.difference), interval(r.interval), plain(r.margin)) for r in shown]
    heads = ("difference", "interval", "margin")
    words = [f"{SIGNS[rule.verdict]} {rule.verdict}" for rule in shown]
    numbers_wide = sum(max(map(len, column)) for column in zip(heads, *rows, strict=True))
    room = max(8, width - numbers_wide - max(map(len, words), default=0) - 2 * len(heads) - 2)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("rule", no_wrap=True, max_width=room)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    names = _names(shown, room)
    for rule, name, numbers, word in zip(shown, names, rows, words, strict=True):
        table.add_row(Text(inert(name)), *map(Text, numbers), Text(word, style=_STYLES[rule.verdict]))
    return table


def _names(rules: list[RuleResult], room: int) -> list[str]:
    """Rules' names in a column: where one is too long, without what all tasks' names begin with."""
    names = [rule.rule.removesuffix(",none") for rule in rules]
    tasks = {rule.task or "" for rule in rules if rule.kind == "score"}
    pairs = zip(min(tasks, default=""), max(tasks, default=""), strict=False)
    same = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = same[: max(same.rfind(separator) for separator in "_/-") + 1]
    if start and len(tasks) > 1 and max(map(len, names)) > room:
        names = [f"…{name.removeprefix(start)}" if name.startswith(start) else name for name in names]
    return [squeeze(name, room) for name in names]


def _print_left_out(verdict: Verdict, console: Console) -> None:
    shown = {rule.rule for rule in _shown(worst_first(verdict.rules))}
    rest = [rule for rule in verdict.rules if rule.rule not in shown]
    if rest:
        console.print(Text(f"and {len(rest)} more: {tally(rest)}; all of them are in verdict.json", style="dim"))


def _print_rule(rule: RuleResult, console: Console) -> None:
    """A rule's sentence, and under it its why or what would settle it."""
    console.print(Text())
    head = Text.assemble((f"{SIGNS[rule.verdict]} ", _STYLES[rule.verdict]), (inert(brief(rule.rule, 70)), "bold"))
    console.print(head)
    room = console.width - 2
    lines = [_safe(rule.sentence, _LONGEST_SENTENCE)]
    if (n := settles(rule)) is not None:
        lines.append(Text(n))
    if rule.verdict in LOST and rule.why is not None:
        if rule.why.costs:
            lines.append(_safe(f"costs most: {'; '.join(cost(found) for found in rule.why.costs)}", 3 * room))
        if rule.why.carried is not None:
            lines.append(_safe(carried(rule.why.carried), _LONGEST_SENTENCE))
        lines += [_document(found, room) for found in rule.why.flipped[:_MOST_FLIPPED]]
        if rule.why.reason is not None:
            lines.append(_safe(rule.why.reason, _LONGEST_SENTENCE))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 2), expand=False))


def _document(found: FlippedDocument, room: int) -> Text:
    """A document in one line of at most `room` cells: its number, the prompt, what was wanted and answered."""
    start = f"doc {found.doc_id}: "
    each = max(6, (room - len(start) - len("“” wanted ; was , now ")) // 10)
    same = found.baseline_answer is None or found.baseline_answer == found.target
    wanted = brief(found.target, 3 * each if same else 2 * each)
    was = "" if same else f"; was {brief(found.baseline_answer or '', 2 * each)}"
    now = brief(found.candidate_answer, 3 * each if same else 2 * each)
    line = f"{start}“{squeeze(found.prompt, 4 * each)}” wanted {wanted}{was}, now {now}"
    return Text(inert(brief(line, room)), style="dim", no_wrap=True, overflow="ellipsis")


def _safe(text: str, limit: int) -> Text:
    return Text(inert(brief(text, limit)))
