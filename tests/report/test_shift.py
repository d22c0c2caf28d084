"""The category shift and the finding where nothing is specific, in every view; reports of before."""

from __future__ import annotations

import pytest

from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.numbers import interval, percent, points, signed
from diffharness.report.schema import CategoryShift, Latent, Report
from diffharness.report.view import changed_latents, protocols
from tests.report.example import example_report
from tests.report.test_quality import flat, printed


@pytest.fixture(scope="module")
def before(report: Report) -> Report:
    """The report as version 1.2 wrote it."""
    body = report.model_dump(mode="json", exclude={"annotation", "changed"})
    body["schema_version"] = "1.2"
    body["categories"] = body["categories"][8:]
    for part, model in (("categories", CategoryShift), ("latents", Latent)):
        new = [name for name, field in model.model_fields.items() if not field.is_required()]
        for row in body[part]:
            for name in set(new) - {"change_reason", "examples"}:
                del row[name]
    for latent in body["latents"]:
        for name in ("annotator", "contrast_share", "detection", "best"):
            del latent["evidence"][name]
        latent["examples"] = [
            {name: example[name] for name in ("tokens", "values", "source")} for example in latent["examples"][:3]
        ]
    return Report.model_validate(body)


def section(page: str, start: str, end: str) -> str:
    return page[page.index(start) : page.index(end)]


def test_the_default_protocol_comes_first_and_open(report: Report, page: str) -> None:
    assert [(p.name, p.is_default) for p in protocols(report)] == [("two crosscoders", True), ("three-way", False)]
    inside = section(page, '<section id="inside">', '<section id="latents">')
    first, _, other = inside.partition("<details")
    assert "Category shift by two crosscoders , on which the report rests" in flat(first)
    assert "three-way" not in first
    assert "The same by three-way" in other
    assert " open" not in other.split(">")[0]


def test_counts_and_masses_stand_side_by_side_with_both_conclusions(report: Report, page: str) -> None:
    said = flat(section(page, '<section id="inside">', '<section id="latents">')).replace("\u00a0", " ")
    markdown = render_markdown(report)
    for row in protocols(report)[0].rows:
        numbers = [percent(row.mass_baseline, 1), percent(row.mass_candidate, 1), signed(row.mass_change, 1)]
        numbers += [] if row.mass_interval is None else [interval(row.mass_interval, 1)]
        for number in numbers:
            assert number.replace("\u00a0", " ") in said
            assert number in markdown
        assert row.mass_conclusion in said
    assert "3 (2)" in said
    assert "3 of 14 (2)" in markdown
    assert "too few to tell; mass: up: 21 to 32 in 100" in markdown
    terminal = printed(report).replace("\u00a0", " ")
    assert "p 0.420, too few to tell  mass +10.2 points, p 0.004, up" in terminal
    assert "too few to tell: multilingual, " in terminal


def test_a_protocol_without_masses_has_counts_alone(report: Report) -> None:
    counts = report.model_copy(update={"categories": report.categories[:8], "changed": None})
    assert not protocols(counts)[0].has_mass_test
    page = render_html(counts, drawn=())
    inside = flat(section(page, '<section id="inside">', '<section id="latents">'))
    assert "Mass:" not in inside
    assert "points" not in inside
    assert "found again" not in inside
    assert "mass +" not in printed(counts)
    assert "mass" not in section(render_markdown(counts), "#### What changed inside?", "#### Which latents?")


def test_many_categories_with_long_conclusions_fit_beside_trust_and_provenance() -> None:
    report = example_report(n_tasks=80, n_latents=200)
    long = "up: " + "6 of 14 latents specific to the candidate against 2 of 19 specific to the baseline " * 3
    rows = tuple(
        row.model_copy(
            update={"name": f"{row.name} {n}", "conclusion": long, "mass_conclusion": long, "mass_change": 1.0}
        )
        for row in report.categories
        for n in range(5)
    )
    page = render_markdown(report.model_copy(update={"categories": rows}))
    assert len(page.encode()) <= LIMIT_BYTES
    for head in ("#### What changed inside?", "#### Which latents?", "#### Can it be trusted?", "#### Provenance"):
        assert head in page
    assert "completeness: residual" in page
    assert page.count("<details>") == page.count("</details>")
    assert "The 20 of 200 that contribute most" in page or "of 200 that contribute most" in page


def test_what_changed_where_little_is_specific_is_in_every_view(report: Report, page: str) -> None:
    assert report.changed is not None
    inside = section(page, '<section id="inside">', '<section id="latents">')
    assert inside.index(report.changed.sentence) < inside.index("Category shift")
    table = inside[: inside.index("<h3>Category shift")]
    markdown = section(render_markdown(report), "#### What changed inside?", "Category shift")
    for latent in changed_latents(report):
        assert latent.use is not None
        assert f'href="#latent-{latent.index}"' in table
        change = latent.use.rate_candidate - latent.use.rate_baseline
        for number in (signed(100 * change, 2), points(latent.use.rate_interval), interval(latent.use.mean_interval)):
            assert number in table
            assert number in markdown
        assert signed(max(latent.contributions.values(), key=abs)) in table
    terminal = " ".join(printed(report).split())
    assert report.changed.sentence in terminal
    assert "changed most: latents 3 (safety), 19 (instruction following), 43 (facts)" in terminal


def test_a_changed_latent_that_the_report_lacks_or_without_use_is_no_error(report: Report) -> None:
    assert report.changed is not None
    other = report.latents[4]
    assert other.use is None
    told = report.model_copy(
        update={"changed": report.changed.model_copy(update={"latents": (other.index, 123_456_789)})}
    )
    assert changed_latents(told) == (other,)
    assert "123456789" not in render_html(told, drawn=())
    assert "123456789" not in render_markdown(told)


def test_reports_of_before_still_open_and_say_nothing_new(before: Report) -> None:
    pages = flat(render_html(before, drawn=())), render_markdown(before), printed(before)
    html = pages[0][: pages[0].rindex("How to read it")]
    for word in (
        "Across its range",
        "Near misses",
        "Use by either",
        "unmatched",
        "names by",
        "Names by",
        "by Δnorm alone",
    ):
        assert not any(word in page for page in (html, *pages[1:]))
    assert "None" not in html
    latent = before.latents[0]
    assert f"Latent {latent.index}" in html
    assert "Where it fires most" in html
    assert "Hypothesis : safety , named by probes" in html
    assert len(protocols(before)) == 1


def test_a_withheld_mechanism_tells_nothing_of_the_inside(report: Report) -> None:
    withheld = report.validation.model_copy(update={"mechanism_withheld": "the replay does not hold"})
    told = report.model_copy(update={"validation": withheld})
    assert report.changed is not None
    for page in (render_html(told, drawn=()), render_markdown(told), " ".join(printed(told).split())):
        assert report.changed.sentence not in page
        assert "κ with" not in page
