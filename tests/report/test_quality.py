"""The quality of the crosscoders in every view."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.markdown_trust import quality_table
from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.quality import decoder_pairs, splice_sentence, stability_sentence, stale_sentences
from diffharness.report.schema import SCHEMA_VERSION, CrosscoderQuality, Report
from diffharness.report.terminal import print_report
from tests.report.example import STALE, stale_report

NEW = ("sparsity", "activation", "pairs", "splice", "splice_reason", "stability", "stability_reason", "stale", "source",
       "n_measured_tokens")  # fmt: skip


@pytest.fixture(scope="module")
def stale() -> Report:
    return stale_report()


@pytest.fixture(scope="module")
def before(report: Report) -> Report:
    """The report as version 1.1 wrote it."""
    body = report.model_dump(mode="json")
    body["schema_version"] = "1.1"
    for quality in body["quality"]:
        for name in NEW:
            del quality[name]
    return Report.model_validate(body)


def printed(report: Report, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def flat(page: str) -> str:
    """The page's words, without elements."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).replace("&#39;", "'").split())


def test_splice_loss_and_stability_are_in_every_view(report: Report) -> None:
    quality = report.quality[0]
    pages = flat(render_html(report, drawn=())), render_markdown(report)
    for loss in quality.splice.values():
        wanted = (signed(loss.delta_ce), interval(loss.interval), percent(loss.loss_recovered, 1), plain(loss.ce))
        for page in pages:
            assert all(number.replace("\u00a0", " ") in page.replace("\u00a0", " ") for number in wanted)
            assert percent(loss.loss_recovered_mean, 1).replace("\u00a0", " ") in page.replace("\u00a0", " ")
    assert all("it is measured for the main crosscoder alone" in page for page in pages)
    assert all("71" in page for page in pages)
    said = " ".join(printed(report).split())
    assert "ΔCE +0.021, +0.025 nats a token; loss recovered 99.2 %, 99.1 %" in said.replace("\u00a0", " ")
    assert "71 % of 478 latents are found again (decoder cosine above 0.9)" in said.replace("\u00a0", " ")


def test_a_stale_crosscoder_is_a_warning_near_the_verdict_and_in_its_own_part(stale: Report) -> None:
    assert len(stale_sentences(stale)) == 1
    page, shown = flat(render_html(stale, drawn=())), " ".join(STALE.split())
    assert shown in page[: page.index("Did the scores change?")]
    assert shown in page[page.index("Can it be trusted?") :]
    markdown = render_markdown(stale)
    assert STALE in markdown[: markdown.index("#### Did the scores change?")]
    assert STALE in markdown[markdown.index("#### Can it be trusted?") :]
    said = " ".join(printed(stale).split())
    assert shown in said[: said.index("task ")]
    assert shown in said[said.index("Can it be trusted") :]


def test_nothing_is_stale_in_a_report_that_says_nothing_of_it(report: Report, before: Report) -> None:
    for told in (report, before):
        assert stale_sentences(told) == ()
        assert "is stale" not in flat(render_html(told, drawn=()))


def test_where_a_crosscoder_came_from_and_each_of_its_layers_is_told(stale: Report) -> None:
    for page in (flat(render_html(stale, drawn=())), render_markdown(stale).replace("\\", "")):
        assert "normalisation taken as none" in page
        assert "candidate@3" in page.replace("\u200b", "")
        assert "None" not in page


def test_every_pair_of_decoders_has_its_histograms(report: Report, stale: Report) -> None:
    page = render_html(stale, drawn=())
    assert page.count('aria-label="decoder cosine from −1 to 1; counts: 0, 0, 1,') == 2
    assert page.count('aria-label="Δnorm from 0 to 1; counts: 2, 3, 5,') == 2
    assert render_html(report, drawn=()).count('aria-label="decoder cosine') == 3


def test_reports_of_before_still_open_and_are_shown(before: Report) -> None:
    assert SCHEMA_VERSION == "1.5"
    quality = before.quality[0]
    assert (splice_sentence(quality), stability_sentence(quality)) == (None, None)
    (pair,) = decoder_pairs(quality)
    assert (pair.delta_norm, pair.cosine_median) == (quality.delta_norm, 0.88)
    page = render_html(before, drawn=())
    assert page.count('aria-label="Δnorm from 0 to 1') == 3
    assert 'aria-label="decoder cosine' not in page
    assert "explained variance 93.0" in printed(before)
    assert "93.0" in render_markdown(before)


def test_a_crosscoder_of_one_model_has_no_pairs(report: Report) -> None:
    body = report.quality[0].model_dump()
    single = CrosscoderQuality.model_validate({**body, "models": ("baseline",), "pairs": ()})
    assert decoder_pairs(single) == ()


def test_the_quality_table_stands_alone(report: Report) -> None:
    rows = quality_table(report.quality[:1]).splitlines()
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {9}
