"""Whether contributions beat chance, in every view."""

from __future__ import annotations

import re

import pytest

from diffharness.report.claims import NO_CLAIMS, TITLE, claims_sentence, markdown_claims, ordered_claims, random_range
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.schema import Claim, Interval, RandomEffects, Report
from tests.report.example import HOSTILE, bare, example_report, hostile_report
from tests.report.test_quality import printed

CAUSE = Claim(
    task="organism_safety", category="safety", origin="written", effect=0.412,
    interval=Interval(low=0.301, high=0.502), n=96,
    random_effects=RandomEffects(mean=0.01, sd=0.02, q05=-0.031, q95=0.044, n_sets=24, exceed=0, factor=1.2),
    p_random=0.04, p_corrected=0.0021, mean_difference=0.222, reconstruct_only=-0.003, swap=0.433, is_causal=True,
    words="a cause",
)  # fmt: skip
SHORT = CAUSE.model_copy(
    update={"origin": "read", "effect": 0.612, "is_causal": False, "words": "contributes; a random set does as much"}
)
ALONE = CAUSE.model_copy(
    update={
        **dict.fromkeys(
            ("effect", "interval", "random_effects", "p_random", "p_corrected", "mean_difference", "reconstruct_only",
             "swap")
        ),
        "category": "facts", "n": 0, "is_causal": False, "words": "found only where it was looked for",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def claimed() -> Report:
    return example_report().model_copy(update={"claims": (ALONE, SHORT, CAUSE)})


def plain_text(view: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", view.replace("<wbr>", "")))


def test_every_view_sets_effects_beside_what_random_sets_do(claimed):
    pages = (plain_text(render_html(claimed)), render_markdown(claimed), plain_text(printed(claimed, 160)))
    for page in pages:
        assert TITLE in page
        assert "1 of 3 contributions" in page
        for told in ("safety in organism_safety", "+0.412", "[−0.031, +0.044]", "0.002", "a cause",
                     "safety (read) in organism_safety", "a random set does as much",
                     "found only where it was looked for"):  # fmt: skip
            assert told in page
    assert "+0.222" in pages[0]
    assert "0 of 24" in pages[0]


def test_causes_come_first(claimed):
    assert ordered_claims(claimed) == (CAUSE, SHORT, ALONE)
    assert random_range(ALONE) == "–"


def test_a_report_without_claims_says_that_nothing_is_a_cause():
    report = bare(example_report())
    assert claims_sentence(report) == NO_CLAIMS
    for page in (plain_text(render_html(report)), render_markdown(report)):
        assert NO_CLAIMS in page
    quiet = report.model_copy(update={"tasks": tuple(t for t in report.tasks if t.verdict == "no change")})
    assert markdown_claims(quiet) is None
    assert TITLE not in render_html(quiet)


def test_a_terminal_of_80_columns_keeps_every_number(claimed):
    page = printed(claimed, 80)
    assert max(map(len, page.splitlines())) <= 80
    for told in ("+0.412", "[−0.031, +0.044]", "0.002"):
        assert told in page


def test_names_from_outside_are_escaped_and_many_claims_fit():
    many = tuple(
        CAUSE.model_copy(update={"task": bad, "category": bad, "words": bad}) for bad in HOSTILE for _ in range(30)
    )
    report = hostile_report().model_copy(update={"claims": many})
    page, markdown = render_html(report), render_markdown(report)
    assert "<script>alert(1)</script>" not in page
    assert "<script>" not in (markdown_claims(report) or "<script>")
    assert "more, in `report.html`" in markdown
    assert len(markdown.encode()) <= LIMIT_BYTES
    assert "\x1b[31m" not in printed(report, 100)


def test_claims_survive_a_round_trip_and_older_reports_have_none(claimed):
    assert Report.model_validate_json(claimed.model_dump_json()).claims == claimed.claims
    older = claimed.model_dump(mode="json", exclude={"claims"})
    assert Report.model_validate(older).claims == ()
