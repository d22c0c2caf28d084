"""Flipped documents in every view: accounts that add up, tokens with their numbers, and strings that can not act."""

from __future__ import annotations

import re

import pytest

from diffharness.report import documents as room
from diffharness.report.documents import account_rows, by_token, documents_of, lines, markdown_flips, number
from diffharness.report.html import render_html
from diffharness.report.schema import (
    FlippedDocument,
    OtherFlips,
    Report,
    TaskDocuments,
    TokenColumn,
    TokenSegment,
)
from tests.report.example import HOSTILE

BAD = " ".join(HOSTILE)


def segment(name: str, values: list[float], texts: list[str] | None = None, first: int = 0, n: int | None = None):
    """With the same numbers of two categories, the second's halved and negative."""
    size = len(values)
    return TokenSegment(
        name=name, n_tokens=size if n is None else n, places=tuple(range(first, first + size)), lengths=(1,) * size,
        texts=tuple(texts or [f" w{p}" for p in range(size)]),
        values=(tuple(values), tuple(-v / 2 for v in values), *((0.0,) * size for _ in range(3))),
        left_out=(0.0,) * 5,
    )  # fmt: skip


def flipped(doc_id: int = 3, bad: str = "safety", segments: tuple[TokenSegment, ...] | None = None) -> FlippedDocument:
    made = segments or (segment("prompt", [0.0, -0.4, 0.01]), segment("choice 1", [0.2, -0.001]))
    columns = [TokenColumn(kind="latents", category=name, sum=value) for name, value in ((bad, -0.191), ("facts", 0.1))]
    columns += [TokenColumn(kind=kind, category=None, sum=0.0) for kind in ("other", "bias", "error")]
    return FlippedDocument(
        doc_id=doc_id, is_loss=True, kind=None, prompt=bad, gold=bad, baseline_answer=bad, candidate_answer=bad,
        baseline_score=1.0, candidate_score=0.0, baseline_surrogate=0.9, candidate_surrogate=0.3,
        contributions={bad: -0.5, f"{bad} (read)": 0.309, "facts": 0.1, "bias": -0.2, "prior": -0.3}, residual=-0.009,
        columns=tuple(columns), segments=made,
    )  # fmt: skip


def with_documents(report: Report, found: tuple[FlippedDocument, ...], bad: str = "not drawn") -> Report:
    others = (OtherFlips(reason=bad, lost=tuple(range(40, 60)), gained=(61,)),)
    rows = tuple(
        TaskDocuments(task=t.task, metric=t.metric, unit=bad, documents=found, others=others)
        for t in report.tasks
        if t.is_primary
    )
    return report.model_copy(update={"documents": rows})


def page_of(report: Report) -> str:
    """The page without its figures."""
    return render_html(report, ())


def section(page: str) -> str:
    """From the first task's documents on."""
    return page[page.index("Documents that changed</h4>") :]


def test_rows_of_the_account_add_up_to_the_documents_gap():
    document = flipped()
    rows = account_rows(document)
    assert rows[0].name == "prior"
    assert [(r.name, r.written, r.read) for r in rows[1:3]] == [("bias", -0.2, None), ("safety", -0.5, 0.309)]
    assert sum(r.sum for r in rows) == pytest.approx(document.candidate_surrogate - document.baseline_surrogate)
    many = document.model_copy(update={"contributions": {f"c{n}": 0.1 * n for n in range(20)}})
    assert [r.name for r in account_rows(many)][-2:] == ["12 smaller", "missed by the quadrature"]
    assert sum(r.sum for r in account_rows(many)) == pytest.approx(19.0 - 0.009)


def test_tokens_are_shaded_by_sign_and_size_on_one_scale():
    first, second = lines(flipped())
    assert (first.category, first.sum, second.category) == ("safety", -0.191, "facts")
    prompt, choice = first.strips
    assert [t.shade for t in prompt.tokens] == [None, "t5", None]
    assert [t.shade for t in choice.tokens] == ["a3", None]
    assert [t.shade for t in second.strips[0].tokens] == [None, "a3", None], "half as strong, on the same scale"


def test_the_number_of_every_shaded_token_is_in_the_text(report):
    values = [0.4 - 0.01 * p for p in range(30)]
    page = section(page_of(with_documents(report, (flipped(segments=(segment("prompt", values),)),))))
    for value in values:
        shown = number(value)
        assert re.search(
            rf'<mark class="a\d" title="{re.escape(shown)}">[^<]*<(sub|span class="hidden")>\s*\{shown}', page
        )
    assert len(re.findall(r"<sub>", page[: page.index("facts</bdi></span> <span")])) == 8


def test_a_long_prompt_is_shown_around_its_strongest_token_with_counts(report):
    values = [0.0] * 120 + [-1.0] + [0.0] * 20
    found = lines(flipped(segments=(segment("prompt", values, first=500, n=2000),)))[0].strips[0]
    assert len(found.tokens) == 61
    assert (found.n_before, found.n_after) == (580, 2000 - 641)
    page = page_of(with_documents(report, (flipped(segments=(segment("prompt", values, first=500, n=2000),)),)))
    assert "… 580 before" in page
    assert "1,359 after …" in page


def test_tokens_across_a_gap_are_not_shown_as_neighbours():
    parts = segment("prompt", [0.1] * 50 + [0.9] + [0.1] * 49, n=300)
    cut = parts.model_copy(update={"places": tuple(p if p < 60 else p + 100 for p in range(100))})
    found = lines(flipped(segments=(cut,)))[0].strips[0]
    assert (found.n_before, len(found.tokens), found.n_after) == (10, 50, 240)


def test_small_numbers_do_not_read_as_nothing():
    assert [number(v) for v in (0.5, -0.0123, 0.0012, -0.00034, 1e-9)] == [
        "+0.500", "−0.012", "+0.0012", "−0.00034", "0.000000",
    ]  # fmt: skip


def test_documents_without_tokens_are_listed_with_their_reason(report):
    page = page_of(with_documents(report, (flipped(),)))
    assert "21 more changed (20 lost, 1 gained): not drawn; documents 40, 41, " in page
    assert "51 and 9 more." in page


def test_a_page_shows_the_tokens_of_the_first_documents_of_every_task(report, monkeypatch):
    found = with_documents(report, tuple(flipped(n) for n in range(4)))
    n_tasks = len(found.documents)
    assert len(by_token(found)) == min(room.MOST_BY_TOKEN, 4 * n_tasks)
    monkeypatch.setattr(room, "MOST_BY_TOKEN", n_tasks + 2)
    shown = by_token(found)
    assert {task for task, n in shown if n == 0} == {row.task for row in found.documents}
    assert len([n for _, n in shown if n == 1]) == 2
    assert page_of(found).count("Its tokens are in") == 4 * n_tasks - (n_tasks + 2)


def test_older_reports_show_the_documents_that_they_have(report):
    body = report.model_dump(mode="json")
    body.pop("documents")
    older = Report.model_validate(body)
    assert older.documents == ()
    assert all(documents_of(older, task) is None for task in older.tasks)
    assert markdown_flips(older) == []
    assert "Documents that changed most" in page_of(older)


def test_markdown_has_the_strongest_of_the_worst_tasks(report):
    found = markdown_flips(with_documents(report, (flipped(5), flipped(6))))
    assert len(found) == 3
    assert all("document 5: lost** (" in block for block in found), "one a task while there are tasks"
    assert "account of its −0.600: prior −0.300, bias −0.200, safety −0.191" in found[0]
    assert "- tokens: `w1` (prompt) safety −0.400; " in found[0]


def test_hostile_strings_are_shown_and_can_not_act(report):
    long = "x" * 1_000_000
    made = segment(BAD, [0.5, -0.3, 0.2], [BAD, long, "\u202eשלום\n"])
    found = with_documents(report, (flipped(bad=BAD, segments=(made,)),), BAD)
    page, text = section(page_of(found)), "\n".join(markdown_flips(found))
    inside = page[: page.index("<section")] if "<section" in page else page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in inside
    assert "<img" not in page
    assert not re.search("[\u202e\x1b\x07]", inside + text)
    assert "\\u202eשלום↵" in inside
    assert "x" * 100 not in inside + text
    assert "<script" not in re.sub(r"`+[^`]*`+", "", text)
    assert len(text) < 5_000
