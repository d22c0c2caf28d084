from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from diffharness.report.markdown import render_markdown
from diffharness.report.markup import LIMIT_BYTES, code, escape
from diffharness.report.numbers import interval, signed
from diffharness.report.schema import Report
from diffharness.report.view import is_real
from tests.report.example import bare, example_report

_READER = MarkdownIt("commonmark", {"html": True}).enable("table")


class ReadPage(HTMLParser):
    """What a reader of the Markdown gets: elements, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = self.outside_code = ""
        self._in_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_code = self._in_code or tag == "code"
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.outside_code += "" if self._in_code else data


def read_markdown(markdown: str) -> ReadPage:
    """The page as a reader gets it."""
    return ReadPage(_READER.render(markdown))


def test_questions_are_answered_in_order(report: Report) -> None:
    headings = re.findall(r"^#+ .*", render_markdown(report), re.MULTILINE)
    assert headings[0].startswith("### 6 of 10 tasks changed")
    assert headings[1:] == [
        "#### Did the scores change?",
        "#### Why did they change?",
        "#### What changed inside?",
        "#### Which latents?",
        "#### Can it be trusted?",
        "#### Provenance",
    ]


def test_scores_and_components_are_in_it(report: Report) -> None:
    page = render_markdown(report, [("figures/a.svg", "A waterfall", "organism_safety")])
    assert "(figures/a.svg)" in page
    for task in report.tasks:
        assert signed(task.gap) in page
        assert interval(task.interval) in page
    for component in report.tasks[0].components:
        assert signed(component.contribution) in page


def test_the_example_fits_whole_with_all_that_was_tried(report: Report) -> None:
    page = render_markdown(report)
    assert len(page.encode()) <= LIMIT_BYTES
    assert "more tasks with a gap" not in page
    for words in ("safety latents are a cause", "| safety (read) | read |", "| prior | – |", "Does it beat chance?",
                  "On the real metric", "At which layer do the gaps arise?", "| refused | 2 | 0 |"):  # fmt: skip
        assert words in page, words
    assert "are a cause" not in render_markdown(bare(report))


def test_a_hundred_tasks_fit_and_what_is_left_out_is_counted() -> None:
    page = render_markdown(example_report(n_tasks=100, n_latents=500))
    assert len(page.encode()) <= LIMIT_BYTES
    assert re.search(r"… and \d+ more tasks with a gap", page)
    assert "#### Provenance" in page
    assert page.count("<details>") == page.count("</details>")
    assert len(render_markdown(example_report(n_tasks=700, n_latents=5)).encode()) <= LIMIT_BYTES


@pytest.mark.parametrize("n_tasks", [1, 30, 100])
def test_what_is_there_is_shown_or_named_as_left_out(n_tasks: int) -> None:
    report = example_report(n_tasks=n_tasks, n_latents=50)
    pictures = [("figures/heatmap.svg", "categories by tasks " * 20, None)]
    page = render_markdown(report, pictures)
    said = page.partition("Left out to stay below 60 KB, and in `report.html`: ")[2].partition("\n")[0]
    parts = {
        "the figure `figures/heatmap.svg`": "](figures/heatmap.svg)",
        "the table of what beats chance": "<summary>Does it beat chance?",
        "the depth profile": "At which layer do the gaps arise?",
        "how it was validated": "- completeness: ",
    }
    for name, shown in parts.items():
        assert (shown in page) != (name in said), name
    assert ("Left out" in page) == bool(said)
    assert len(page.encode()) <= LIMIT_BYTES


def test_a_long_account_crowds_out_what_follows_and_that_is_said(report: Report) -> None:
    long = "very " * 400
    tasks = tuple(task.model_copy(update={"task": f"{task.task}_{i}"}) for i in range(12) for task in report.tasks)
    claims = tuple(claim.model_copy(update={"words": long}) for claim in report.claims) * 4
    page = render_markdown(report.model_copy(update={"tasks": tasks, "claims": claims}))
    assert "Left out to stay below 60 KB, and in `report.html`: the table of what beats chance" in page
    assert len(page.encode()) <= LIMIT_BYTES


def test_notes_components_documents_and_crosscoders_beyond_the_most_are_counted(report: Report) -> None:
    task = next(task for task in report.tasks if task.documents and is_real(task))
    many = task.model_copy(
        update={"documents": task.documents[:1] * 9, "components": task.components + task.components[:1] * 60}
    )
    run = report.run.model_copy(update={"notes": tuple(f"note {i}" for i in range(30))})
    validation = report.validation.model_copy(update={"controls": report.validation.controls[:1] * 20})
    page = render_markdown(
        report.model_copy(
            update={"tasks": (many,), "run": run, "quality": report.quality[:1] * 15, "validation": validation}
        )
    )
    n_notes = len(run.notes) + len(report.comparability.notes) - 12
    n_components = len(many.components) - 40
    for said in (
        f"… and {n_notes} more notes, in",
        f"… and {n_components} more components and 6 more documents, in",
        "… and 3 more crosscoders, in",
        "… and 8 more controls, in",
    ):
        assert said in page, said


def test_hostile_strings_are_read_as_text(hostile: Report) -> None:
    page = render_markdown(hostile)
    assert len(page.encode()) <= LIMIT_BYTES
    read = read_markdown(page)
    assert not read.tags & {"script", "img", "a", "iframe"}
    assert read.attributes <= {"style"}  # the alignment of columns
    for text in (
        "<script>alert(1)</script>",
        "[x](javascript:alert(3))",
        "\\x1b[31mred",
        "'\"\\{{7*7}}{% x %}]]>--><!--",
    ):
        assert text in read.text
    assert "@" in read.outside_code
    assert not re.search(r"@\w|https?://", read.outside_code)


@given(st.text(max_size=80))
def test_escaped_text_reads_as_itself_and_makes_no_element(text: str) -> None:
    read = read_markdown(f"x {escape(text)}")
    assert read.tags <= {"p"}
    row = read_markdown(f"| a |\n|---|\n| x{escape(text)}y |")
    assert row.tags == {"table", "thead", "tbody", "tr", "th", "td"}


@given(st.text(alphabet="`ab| \n<@", max_size=30))
def test_a_code_span_holds_any_backticks(text: str) -> None:
    read = read_markdown(f"- x {code(text)} y")
    assert read.tags == {"ul", "li", "code"}
