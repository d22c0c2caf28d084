from __future__ import annotations

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser

import pytest

from diffharness.report.explorer import STATIC_CARDS
from diffharness.report.html import render_html
from diffharness.report.numbers import interval, plain, signed
from diffharness.report.schema import Report
from tests.report.embedded import embedded
from tests.report.example import HOSTILE, bare, example_report

_VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class _Page(HTMLParser):
    """Elements, attributes and text of a page, with its nesting checked."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open or ("script" in self._open and "type" not in self.all("script")[-1]):
            return
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _without_style(page: str) -> str:
    return re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)


def test_questions_are_answered_in_order(page: str) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Did the scores change?",
        "Why did they change?",
        "What changed inside?",
        "Which latents?",
        "Can it be trusted?",
        "How to read it",
        "Provenance",
    ]


def test_the_verdict_is_the_title_and_headings_do_not_skip_a_level(page: str) -> None:
    read = _Page(page)
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert "6 of 10 tasks changed" in read.text


def test_every_number_of_the_report_is_shown(report: Report, page: str) -> None:
    text = _Page(page).text
    for task in report.tasks:
        for number in (plain(task.baseline), plain(task.candidate), signed(task.gap), interval(task.interval)):
            assert number in text
        assert plain(task.surrogate.candidate if task.surrogate else None) in text
        for component in task.components:
            assert signed(component.contribution) in text
            assert interval(component.interval) in text
    for latent in report.latents:
        assert f"Latent {latent.index}" in text
        assert plain(latent.delta_norm, 2) in text
    for category in report.categories:
        assert category.conclusion in text


def test_the_page_loads_nothing_and_runs_one_script_of_its_own(page: str) -> None:
    read = _Page(page)
    assert not {tag for tag, _ in read.elements} & {"link", "img", "iframe", "object", "base", "form", "use"}
    assert read.all("script") == [{"type": "application/json", "id": "latent-data"}, {}]
    for _, attributes in read.elements:
        assert not any(name.startswith("on") or name in ("src", "style", "xlink:href") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_allows_this_style_and_script_and_nothing_else(page: str, tag: str) -> None:
    policy = _Page(page).all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}';" in policy


def test_the_script_reads_nothing_as_markup_or_code(page: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "Function(", "fetch", "import",
                 "XMLHttp", "WebSocket", "sendBeacon", "localStorage", "setTimeout(\""):  # fmt: skip
        assert word not in script


def test_every_link_leads_somewhere_and_ids_are_unique(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', _without_style(page))
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in _Page(page).all("a")}
    assert targets <= set(ids)


def test_tables_and_figures_have_words(page: str) -> None:
    read = _Page(page)
    assert len(read.all("caption")) == len(read.all("table"))
    assert all(attributes.get("scope") in ("col", "row", "colgroup") for attributes in read.all("th"))
    for attributes in read.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])


def test_hostile_strings_are_shown_as_text(hostile_page: str) -> None:
    read = _Page(hostile_page)
    assert not {tag for tag, _ in read.elements} & {"img", "iframe"}
    assert read.all("script") == [{"type": "application/json", "id": "latent-data"}, {}]
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    for text in HOSTILE:
        shown = text.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
        assert read.text.count(shown) > 3
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", hostile_page)
    assert len(hostile_page) < 3_000_000


def test_signs_and_words_stand_beside_every_colour(page: str) -> None:
    text = _Page(page).text
    for words in ("▲ improved", "▼ regressed", "= no change", "? inconclusive", "✓ agrees"):
        assert words in text
    marks = re.findall(r"<mark[^>]*>(.*?)</mark>", page)
    assert marks
    assert sum("<sub>" in mark for mark in marks) > 0.9 * len(marks)


def test_what_does_not_track_is_not_worded_as_a_cause(page: str) -> None:
    task = page[page.index("<bdi>organism_safety_multilingual</bdi></h3>") :]
    task = task[: task.index('<details class="task"')]
    assert "does not track exact_match" in task
    for words in ("✓", "is-yes", "are a cause"):
        assert words in page
        assert words not in task


def test_a_cause_is_named_only_where_a_claim_holds(report: Report, page: str) -> None:
    text = _Page(page).text
    assert "safety latents are a cause: without their change" in text
    assert "but they are not called a cause: not far enough from random sets after correction" in text
    assert "are a cause" not in _Page(render_html(bare(report), drawn=())).text


def test_both_origins_the_prior_and_the_interaction_are_on_the_page(report: Report, page: str) -> None:
    text = _Page(page).text
    for words in ("safety (read)", "error (read)", "prior", "interaction", "At which layer", "On the real metric"):
        assert words in text
    for task in report.tasks:
        if task.interaction is not None:
            assert signed(task.interaction) in text
        if task.upper_check is not None:
            assert signed(task.upper_check.change) in text


def test_a_withheld_mechanism_shows_no_account(report: Report) -> None:
    withheld = report.validation.model_copy(update={"mechanism_withheld": "the replay does not hold"})
    text = _Page(render_html(report.model_copy(update={"validation": withheld}))).text
    assert "Withheld: the replay does not hold" in text
    assert "hallucination management" not in text.split("How to read it")[0].split("Can it be trusted?")[0]


def test_an_empty_report_is_still_a_page(report: Report) -> None:
    empty = report.model_copy(
        update={
            "tasks": (),
            "latents": (),
            "categories": (),
            "categories_reason": "there is no ancestor",
            "quality": (),
            "validation": report.validation.model_copy(update={"completeness": None, "replay": (), "controls": ()}),
        }
    )
    text = _Page(render_html(empty)).text
    assert "No task was evaluated." in text
    assert "there is no ancestor" in text


def test_hostile_strings_can_not_end_or_leave_the_embedded_data(hostile: Report, hostile_page: str) -> None:
    start = hostile_page.index('id="latent-data">')
    data = hostile_page[start + len('id="latent-data">') : hostile_page.index("</script>", start)]
    assert not set("<>&\u2028\u2029") & set(data)
    latents = embedded(hostile_page)
    assert set(latents) == {latent.index for latent in hostile.latents}
    said = [latent["c"] for latent in latents.values()]
    assert "<script>alert(1)</script>" in said
    assert "</script><img src=x onerror=alert(2)>" in said


def test_most_latents_are_built_by_the_script_and_listed_without_it() -> None:
    report = example_report(n_tasks=2, n_latents=140)
    page = render_html(report, drawn=())
    assert page.count('<details class="latent"') == STATIC_CARDS
    without_script = page[page.index("<noscript>") : page.index("</noscript>")]
    assert without_script.count("<tr id=") == 140 - STATIC_CARDS
    assert set(embedded(page)) == {latent.index for latent in report.latents}
    assert "All 140 are shown." in page


def test_every_task_of_the_contents_list_and_of_the_scores_has_its_part(report: Report) -> None:
    other = report.tasks[0].model_copy(update={"metric": "other", "is_primary": False, "components": ()})
    page = render_html(report.model_copy(update={"tasks": (*report.tasks, other)}), drawn=())
    links = re.findall(r'href="#(task-\d+)"', page)
    assert len(links) == 2 * len(report.tasks) + 1
    assert {f'id="{link}"' in page for link in links} == {True}
