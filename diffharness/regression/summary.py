"""A verdict as Markdown: the summary of a step, and the body of a pull request's comment that is kept up to date.

Names and sentences are escaped; texts of documents and models stand in code spans, where neither mentions nor links
nor HTML are read. What does not fit is counted, not cut in half.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffharness.regression.outcome import FlippedDocument, RuleResult, Verdict
from diffharness.regression.words import CALM, LOST, SIGNS, carried, cost, settles, tally, worst_first
from diffharness.report.markup import LIMIT_BYTES, Page, code, escape
from diffharness.report.numbers import ABSENT, count, interval, plain, signed
from diffharness.report.text import brief

MARKER = "<!-- diffharness -->"
"""The first line of the comment: by it the next check finds its own and updates it in place."""
SUMMARY_LIMIT_BYTES = 1_000_000
"""Under GitHub's 1 MiB a step, over which the whole upload is given up."""
COMMENT_LIMIT_BYTES = LIMIT_BYTES
_LONGEST_NAME, _LONGEST_SENTENCE = 80, 400
_MOST_NOTES = 12
_RESERVED = 300
"""For the line that says that something was left out."""


def render_comment(verdict: Verdict) -> str:
    """The comment's body, at most 60 KB: the marker, the verdict, what did not pass and why; the rest folded away."""
    return f"{MARKER}\n{_render(verdict, COMMENT_LIMIT_BYTES - len(MARKER) - 1)}"


def render_summary(verdict: Verdict, limit: int = SUMMARY_LIMIT_BYTES) -> str:
    """The step's summary, at most `limit` bytes; empty where not even the verdict fits."""
    return _render(verdict, limit)


def _render(verdict: Verdict, limit: int) -> str:
    page = Page(limit)
    calm = [rule for rule in worst_first(verdict.rules) if rule.verdict in CALM]
    troubled = [rule for rule in worst_first(verdict.rules) if rule.verdict not in CALM]
    headline = f"### {SIGNS[verdict.verdict]} diffharness check: {verdict.verdict} (exit {verdict.exit_code})"
    if not page.add(headline):
        return ""
    said = [f"{escape(tally(verdict.rules))}: {code(verdict.run, 120)} against {code(verdict.against, 120)}."]
    said += [f"Note: {escape(brief(note, _LONGEST_SENTENCE))}" for note in verdict.notes[:_MOST_NOTES]]
    if len(verdict.notes) > _MOST_NOTES:
        said.append(f"… and {len(verdict.notes) - _MOST_NOTES} more notes, in `verdict.json`.")
    left_out = not page.add("  \n".join(said), _RESERVED)
    if troubled:
        rows, n_left = _rows(troubled, (page.limit - page.size) // 3)
        left_out |= not page.add("\n".join([_HEAD, *rows]), _RESERVED) or n_left > 0
    left_out |= not all(page.add(_told(rule), _RESERVED) for rule in troubled)
    if calm:
        rows, n_left = _rows(calm, page.limit - page.size - 2 * _RESERVED)
        left_out |= not page.add(_folded(tally(calm), [_HEAD, *rows]), _RESERVED) or n_left > 0
    if left_out:
        page.add(f"Cut to {count(limit)} bytes: what is left out here is in `verdict.json`.")
    return page.text


_HEAD = """| rule | verdict | baseline | candidate | difference | interval | margin | documents |
|---|---|--:|--:|--:|--:|--:|--:|"""


def _rows(rules: Sequence[RuleResult], budget: int) -> tuple[list[str], int]:
    """Rows of a table within a number of bytes, and how many rules are left out."""
    rows, used = [], len(_HEAD)
    for rule in rules:
        row = _row(rule)
        used += len(row.encode()) + 1
        if used > budget:
            break
        rows.append(row)
    return rows, len(rules) - len(rows)


def _row(rule: RuleResult) -> str:
    cells = (
        escape(brief(rule.rule, _LONGEST_NAME)),
        f"{SIGNS[rule.verdict]} {rule.verdict}",
        plain(rule.baseline),
        plain(rule.candidate),
        signed(rule.difference),
        interval(rule.interval),
        plain(rule.margin),
        count(rule.n) if rule.n is not None else ABSENT,
    )
    return f"| {' | '.join(cells)} |"


def _folded(title: str, lines: Sequence[str]) -> str:
    inside = "\n".join(lines)
    return f"<details><summary>{escape(title)}</summary>\n\n{inside}\n\n</details>"


def _told(rule: RuleResult) -> str:
    """A rule that did not pass: its sentence, what it cost, who carries it, and the documents folded away."""
    said = [f"**{escape(brief(rule.rule, _LONGEST_NAME))}**: {_sentence(rule.sentence)}"]
    if (n := settles(rule)) is not None:
        said.append(f"{n}.")
    if rule.verdict not in LOST or rule.why is None:
        return " ".join(said)
    points = []
    if rule.why.costs:
        points.append(f"- costs most: {'; '.join(escape(brief(cost(found), 160)) for found in rule.why.costs)}")
    if rule.why.carried is not None:
        points.append(f"- {_sentence(carried(rule.why.carried))}")
    if rule.why.reason is not None:
        points.append(f"- {_sentence(rule.why.reason)}")
    blocks = [" ".join(said), *(["\n".join(points)] if points else [])]
    if rule.why.flipped:
        title = "Documents that were answered better before"
        blocks.append(_folded(title, [_document(found) for found in rule.why.flipped]))
    return "\n\n".join(blocks)


def _sentence(text: str) -> str:
    return f"{escape(brief(text.strip(), _LONGEST_SENTENCE).rstrip('.'))}."


def _document(found: FlippedDocument) -> str:
    was = f"; was {code(found.baseline_answer, 80)}" if found.baseline_answer is not None else ""
    return (
        f"- document {found.doc_id}: {code(found.prompt)}; wanted {code(found.target, 80)}{was}; "
        f"now {code(found.candidate_answer, 80)}"
    )
