"""Words and rows about the documents whose score changed, for every view."""

from __future__ import annotations

from diffharness.report.markup import code, escape
from diffharness.report.numbers import count, p_value, percent, signed
from diffharness.report.schema import FlipExample, FlipKind, FlipKinds, Report, Task
from diffharness.report.text import brief

REST = "answer differs"
_MOST_PARTS = 3
_MOST_EXAMPLES = 2
_ANSWER = 60


def flips_of(report: Report, task: Task) -> FlipKinds | None:
    """The task's flips, where the row is of the metric that they were sorted by and there is something to show."""
    if not task.is_primary:
        return None
    found = next((row for row in report.flips if row.task == task.task), None)
    return found if found is not None and (found.kinds or found.position is not None) else None


def flips_sentence(found: FlipKinds) -> str:
    """How many documents changed, and how many of those lost and gained show a sign of something other than skill."""
    other = [kind for kind in found.kinds if kind.kind != REST]
    sentence = (
        f"{count(found.n_flips)} of {count(found.n)} documents changed their score: {count(found.n_lost)} lost, "
        f"{count(found.n_gained)} gained"
    )
    if not found.kinds:
        return f"{sentence}."
    lost, gained = sum(kind.n_lost for kind in other), sum(kind.n_gained for kind in other)
    if not lost + gained:
        return f"{sentence}; no answer shows a sign of anything but skill."
    return (
        f"{sentence}; of these, {count(lost)} and {count(gained)} show a sign of something other than skill "
        f"({_listing(other)}), which may be why."
    )


def position_sentence(found: FlipKinds) -> str | None:
    """Whether answers moved to one place among the choices."""
    moved = found.position
    if moved is None:
        return None
    said = "moved to" if moved.moved else "did not clearly move to one place; most to"
    return (
        f"Answers {said} choice {moved.position + 1}: {percent(moved.baseline)} → {percent(moved.candidate)} of the "
        f"answers, {percent(moved.right)} of the right ones (q {p_value(moved.q_value)})."
    )


def notes(found: FlipKinds) -> str | None:
    """What has to be known of the kinds."""
    said = [note for note in (found.reason if found.kinds else None, found.gap_reason) if note]
    return "; ".join(said) if said else None


def largest_parts(kind: FlipKind) -> str:
    """The components that contribute most to the kind's documents, a document."""
    if not kind.n_accounted:
        return ""
    top = sorted(kind.contributions.items(), key=lambda item: (-abs(item[1]), item[0]))[:_MOST_PARTS]
    return ", ".join(f"{brief(label, 40)} {signed(value)}" for label, value in top)


def terminal_line(report: Report, task: Task) -> str | None:
    """One line beneath a task's account; none where no sign of anything but skill is seen."""
    found = flips_of(report, task)
    other = [kind for kind in found.kinds if kind.kind != REST] if found is not None else []
    if found is None or not other:
        return None
    moved = f"{count(found.n_lost)} documents lost and {count(found.n_gained)} gained"
    return f"signs other than skill: {_listing(other)}, of {moved}"


def markdown_flips(report: Report, task: Task) -> str | None:
    """The table of kinds, with examples beneath it."""
    found = flips_of(report, task)
    if found is None:
        return None
    lines = [flips_sentence(found), position_sentence(found) or "", escape(brief(notes(found) or "", 300))]
    blocks = ["<details><summary>Answers that changed</summary>", " ".join(line for line in lines if line)]
    if found.kinds:
        head = "| answers that changed | lost | gained | gap | account of these, a document |\n|---|--:|--:|--:|---|"
        rows = [
            f"| {k.kind} | {count(k.n_lost)} | {count(k.n_gained)} | {signed(k.gap)} | {escape(largest_parts(k))} |"
            for k in found.kinds
        ]
        blocks.append("\n".join([head, *rows]))
        shown = [(k, e) for k in found.kinds if k.kind != REST for e in k.examples[:_MOST_EXAMPLES]]
        if shown:
            blocks.append("\n".join(_example(kind, example) for kind, example in shown))
    return "\n\n".join([*blocks, "</details>"])


def _example(kind: FlipKind, example: FlipExample) -> str:
    return (
        f"- {kind.kind}, document {example.doc_id} ({'lost' if example.is_loss else 'gained'}): right "
        f"{code(example.gold, _ANSWER)}, baseline {code(example.baseline_answer, _ANSWER)}, candidate "
        f"{code(example.candidate_answer, _ANSWER)}"
    )


def _listing(kinds: list[FlipKind]) -> str:
    return ", ".join(f"{count(kind.n_lost + kind.n_gained)} {kind.kind}" for kind in kinds)
