"""A comparison as Markdown of at most 60 KB; strings from outside are escaped."""

from __future__ import annotations

from diffharness.report.compare.model import ComparedRun, Comparison, Difference
from diffharness.report.compare.words import (
    headline,
    link,
    of_gaps,
    part_label,
    ranked,
    reasons,
    run_sentence,
    traced,
    word,
)
from diffharness.report.markup import LIMIT_BYTES, Page, escape
from diffharness.report.numbers import interval, p_value, signed
from diffharness.report.side_by_side import add_parts, add_scores
from diffharness.report.text import brief

_DIFFERENCE_HEAD = """| part | run | unit | difference | interval | q | | most of it in |
|---|---|---|--:|--:|--:|---|---|"""


def render_markdown(comparison: Comparison) -> str:
    """The whole comparison; what does not fit is counted."""
    page = Page(where="in `comparison.html`")
    end = Page(LIMIT_BYTES // 4, where="in `comparison.html`")
    _add_notes(end, comparison)
    page.limit -= end.size
    page.add(f"### {escape(headline(comparison))}")
    page.add("\n".join(_run_line(run) for run in comparison.runs[:30]))
    page.add("#### Did the scores change?")
    page.add("The candidate's score, and the gap (candidate − baseline) with its 95 % interval.")
    add_scores(page, comparison, scores=True)
    if comparison.sums:
        _add_differences(page, comparison)
    else:
        page.add("There is no gap to explain.")
    add_parts(page, comparison, origins=True)
    return page.text + end.text


def _run_line(run: ComparedRun) -> str:
    name, address = escape(brief(run.name, 60)), link(run)
    return f"- {name if address is None else f'[{name}](<{address}>)'}: {escape(brief(run_sentence(run), 400))}"


def _add_differences(page: Page, comparison: Comparison) -> None:
    against = escape(brief(comparison.runs[0].name, 60))
    page.add(f"#### What differs most from {against}?")
    page.add(
        "Summed over the tasks that moved, written and read together. `differs`: the interval excludes 0 and q ≤ 5 %."
    )
    rows = [*of_gaps(comparison), *ranked(comparison)]
    page.table(_DIFFERENCE_HEAD, [_difference_row(comparison, row) for row in rows], "differences", share=0.4)
    for said in reasons(comparison):
        page.add(f"No interval: {escape(brief(said, 300))}.")


def _difference_row(comparison: Comparison, row: Difference) -> str:
    names = (escape(brief(name, 60)) for name in (part_label(row), row.run, row.unit))
    numbers = signed(row.difference), interval(row.interval), p_value(row.q_value), word(row)
    return f"| {' | '.join([*names, *numbers, escape(traced(comparison, row)) if row.is_clear else ''])} |"


def _add_notes(page: Page, comparison: Comparison) -> None:
    page.add("#### What to know")
    said = [*comparison.notes, *(f"{line}." for line in comparison.left_out)]
    kept = 0
    for line in said:
        if not page.add(f"- {escape(brief(line, 600))}", reserved=300):
            break
        kept += 1
    if kept < len(said):
        page.add(f"- and {len(said) - kept} more, in `comparison.html`.")
    page.add(f"Made by <code>{escape(brief(comparison.command, 150))}</code>.")
