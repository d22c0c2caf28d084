"""The report as Markdown of at most 60 KB, for a comment on a pull request, so its headings begin at the third level.

What does not fit is counted or named, never cut in half.

Names and sentences are escaped; texts of documents and models stand in code spans, where neither mentions
nor links nor HTML are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffharness.report.ablated import markdown_ablated
from diffharness.report.account_notes import account_notes
from diffharness.report.claims import markdown_claims
from diffharness.report.depth import markdown_depth
from diffharness.report.documents import markdown_flips as markdown_documents
from diffharness.report.flips import markdown_flips
from diffharness.report.markdown_latents import add_inside, add_latents
from diffharness.report.markdown_trust import add_provenance, add_trust
from diffharness.report.markup import LIMIT_BYTES, Page, code, escape
from diffharness.report.numbers import count, interval, percent, plain, signed
from diffharness.report.quality import stale_sentences
from diffharness.report.schema import Claim, Component, Document, Report, Task
from diffharness.report.settling import approximate_sentence, settling_sentence
from diffharness.report.shapley import markdown_shapley
from diffharness.report.text import brief
from diffharness.report.view import by_severity, is_real, label, ordered
from diffharness.report.words import VERDICT_SIGNS, account_sentence, check_word, headline, to_explain

_MOST_NOTES = 12
_MOST_COMPONENTS = 40
_MOST_DOCUMENTS = 3
_MOST_NAMES = 12


def render_markdown(report: Report, figures: Iterable[tuple[str, str, str | None]] = ()) -> str:
    """The whole report, in the order of its questions.

    `figures` are (path, text alternative, task or `None`) of the files that lie beside it.
    """
    pictures = list(figures)
    page = Page()
    page.add(f"### {escape(headline(report))}")
    page.add(_models(report))
    page.add("#### Did the scores change?")
    page.table(_SCORE_HEAD, [_score_row(task) for task in by_severity(report.tasks)], "tasks", share=0.4)
    for words in (settling_sentence(report), approximate_sentence(report)):
        if words is not None:
            page.add(f"{escape(words[0].upper() + words[1:])}.")
    end = Page(LIMIT_BYTES // 4)
    add_trust(end, report)
    add_provenance(end, report)
    inside = Page(LIMIT_BYTES // 3)
    _inside(inside, report)
    page.add("#### Why did they change?")
    _why(page, report, pictures, reserved=inside.size + end.size + _LEFT_OUT_BYTES)
    return page.text + inside.text + _left_out(page, inside, end) + end.text


_LEFT_OUT_BYTES = 1_000
"""Kept free for the names of what does not fit."""


def _left_out(*pages: Page) -> str:
    """A sentence on what did not fit; nothing where all did."""
    names = [name for page in pages for name in page.left_out]
    if not names:
        return ""
    said = ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )
    return f"Left out to stay below {LIMIT_BYTES // 1000} KB, and in `report.html`: {said}.\n\n"


_SCORE_HEAD = """| task | metric | n | baseline | candidate | gap | interval | verdict |
|---|---|--:|--:|--:|--:|--:|---|"""


def _score_row(task: Task) -> str:
    better = "" if task.higher_is_better else " (lower is better)"
    cells = (
        escape(brief(task.task, 80)) + (" (group)" if task.is_group else ""),
        escape(brief(task.metric, 40)) + better,
        count(task.n),
        plain(task.baseline),
        plain(task.candidate),
        f"**{signed(task.gap)}**" if is_real(task) else signed(task.gap),
        interval(task.interval),
        f"{VERDICT_SIGNS[task.verdict]} {task.verdict}",
    )
    return f"| {' | '.join(cells)} |"


def _models(report: Report) -> str:
    names = {m.side: code(m.name, 80) for m in report.models}
    lines = [
        f"Baseline {names.get('baseline', '–')}, candidate {names.get('candidate', '–')}, "
        f"layer {report.run.layer} of {report.run.n_layers}. The gap is candidate − baseline."
    ]
    same = report.comparability
    if not (same.documents_equal and same.prompts_equal and same.tokenizers_equal):
        lines.append("**The two sides did not read the same documents, prompts or token ids.**")
    lines += [f"**{escape(brief(sentence, 600))}.**" for sentence in stale_sentences(report)]
    notes = (*report.run.notes, *same.notes)
    lines += [escape(brief(note, 400)) for note in notes[:_MOST_NOTES]]
    if len(notes) > _MOST_NOTES:
        lines.append(f"… and {len(notes) - _MOST_NOTES} more notes, in `report.html`.")
    return "\n".join(f"{line}  " for line in lines).rstrip()


def _why(page: Page, report: Report, pictures: list[tuple[str, str, str | None]], reserved: int) -> None:
    real, nothing = to_explain(report)
    if nothing is not None:
        page.add(escape(brief(nothing, 600)))
    if report.validation.mechanism_withheld is not None:
        return
    for path, alternative, task in pictures:
        if task is None:
            page.add(f"![{escape(brief(alternative, 300))}]({path})", reserved, name=f"the figure `{path}`")
    by_task = {task: path for path, _, task in pictures if task is not None}
    left_out = 0
    for task in real:
        block = _account(task, report.claims, by_task.get(task.task))
        parts = (block, markdown_shapley(report, task), markdown_flips(report, task))
        block = "\n\n".join(part for part in parts if part is not None)
        if left_out or not page.add(block, reserved + 100):
            left_out += 1
    if left_out:
        page.add(f"… and {left_out} more tasks with a gap, in `report.html`.")
    flipped = markdown_documents(report)
    if flipped:
        summary = "<details><summary>The strongest flips, to their tokens</summary>"
        page.add("\n\n".join([summary, *flipped, "</details>"]), reserved, name="the strongest flips")
    for block in markdown_ablated(report):
        page.add(block, reserved, name="a what-if")
    beaten = markdown_claims(report)
    if beaten is not None:
        page.add(beaten, reserved, name="the table of what beats chance")
    layers = markdown_depth(report)
    if layers is not None:
        page.add(layers, reserved, name="the depth profile")


def _account(task: Task, claims: Sequence[Claim], picture: str | None) -> str:
    name = escape(brief(task.task, 80))
    said = " ".join([account_sentence(task, claims), *account_notes(task)])
    lines = [f"**{name}** ({signed(task.gap)}): {escape(brief(said, 2000))}"]
    if not task.components or task.surrogate is None:
        return lines[0]
    lines.append("<details><summary>The account, and documents that changed</summary>")
    if picture is not None:
        lines.append(f"![Waterfall; the table has its numbers]({picture})")
    surrogate = task.surrogate
    lines.append(
        f"{escape(brief(surrogate.name, 120))}: {plain(surrogate.baseline)} → {plain(surrogate.candidate)}, "
        f"gap {signed(surrogate.gap)}; not tracked: {signed(task.not_tracked)}."
    )
    rows = [_component_row(task, c) for c in ordered(task.components)[:_MOST_COMPONENTS]]
    head = "| component | origin | contribution | interval | share | exact check |\n|---|---|--:|--:|--:|---|"
    lines.append("\n".join([head, *rows]))
    if task.documents:
        lines.append("\n".join(_document_line(d) for d in task.documents[:_MOST_DOCUMENTS]))
    components, documents = len(task.components) - _MOST_COMPONENTS, len(task.documents) - _MOST_DOCUMENTS
    more = [f"{n} more {what}" for n, what in ((components, "components"), (documents, "documents")) if n > 0]
    if more:
        lines.append(f"… and {' and '.join(more)}, in `report.html`.")
    lines.append("</details>")
    return "\n\n".join(lines)


def _component_row(task: Task, component: Component) -> str:
    check = component.ablation
    if check is not None:
        checked = f"{signed(check.change)} {interval(check.interval)} {check_word(task, component)}"
    else:
        checked = escape(brief(component.ablation_reason or "", 80))
    cells = (
        escape(brief(label(component), 60)),
        component.origin or "–",
        signed(component.contribution),
        interval(component.interval),
        percent(component.share),
        checked,
    )
    return f"| {' | '.join(cells)} |"


def _document_line(document: Document) -> str:
    top = sorted(document.contributions.items(), key=lambda item: -abs(item[1]))[:3]
    account = ", ".join(f"{escape(brief(name, 40))} {signed(value)}" for name, value in top)
    return (
        f"- document {document.doc_id}: {code(document.prompt)}; "
        f"baseline {code(document.baseline_answer, 80)} ({plain(document.baseline_score)}), "
        f"candidate {code(document.candidate_answer, 80)} "
        f"({plain(document.candidate_score)}); {account}"
    )


def _inside(page: Page, report: Report) -> None:
    page.add("#### What changed inside?")
    if report.validation.mechanism_withheld is not None:
        page.add("Withheld, as above.")
        return
    add_inside(page, report)
    add_latents(page, report)
