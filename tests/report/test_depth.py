"""The depth profile in every view, and the same with hostile names."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from diffharness.report.charts import DEPTH, figures
from diffharness.report.depth import depth_sentence, print_depth, sparkline
from diffharness.report.html import render_html
from diffharness.report.markdown import render_markdown
from diffharness.report.markup import LIMIT_BYTES
from diffharness.report.schema import DepthProfile, Interval, LayerDepth, Report
from diffharness.report.terminal import print_report
from diffharness.report.view import is_real, primary
from tests.report.example import HOSTILE, bare

SHARES = (0.125, 0.5, 0.75, 1.0)


def layer(number: int, gap: float, share: float, *, shared: bool, reason: str | None = None) -> LayerDepth:
    if reason is not None:
        return LayerDepth(
            layer=number, carried=None, carried_raw=None, interval=None, share=None, share_interval=None, reason=reason
        )
    span = Interval(low=gap * share - 0.05, high=gap * share + 0.05)
    return LayerDepth(
        layer=number, carried=gap * share, carried_raw=4 * gap * share, interval=span,
        share=share if shared else None, share_interval=Interval(low=share - 0.1, high=share + 0.1) if shared else None,
    )  # fmt: skip


def profile(name: str, gap: float, *, moved: bool, refused: str | None = None) -> DepthProfile:
    rows = [layer(n, gap, share, shared=moved) for n, share in enumerate(SHARES)]
    if refused is not None:
        rows[0] = layer(0, gap, 0.0, shared=moved, reason=refused)
    return DepthProfile(
        task=name, unit="probability", moved=moved, n_documents=32, n_task=1200, gap=gap,
        gap_interval=Interval(low=gap - 0.1, high=gap + 0.1), layers=tuple(rows),
        share_reason=None if moved else "no gap to explain",
    )  # fmt: skip


def with_depth(report: Report, refused: str | None = None) -> Report:
    found = tuple(
        profile(task.task, task.surrogate.gap if task.surrogate else 0.1, moved=is_real(task), refused=refused)
        for task in primary(report)
    )
    return report.model_copy(update={"depth": found})


@pytest.fixture(scope="module")
def deep(report: Report) -> Report:
    return with_depth(report)


def printed(report: Report, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_sentence_says_which_layer_carries_half_and_what_is_read_above_the_compared_one(deep: Report) -> None:
    said = depth_sentence(deep)
    assert said is not None
    n = sum(task.moved for task in deep.depth)
    assert f"half of the {n} real gaps together is carried by layer 1 of 4" in said
    assert re.search(r"layer 2, which is compared, carries 75.%, and 25.% is read above it", said)


def test_one_gap_is_one_and_a_gap_in_the_head_is_named(report: Report) -> None:
    one = (profile("a", 0.4, moved=True), profile("b", 0.4, moved=False))
    assert str(depth_sentence(report.model_copy(update={"depth": one}))).startswith("half of the gap is carried by")
    rows = tuple(layer(n, 0.4, 0.1, shared=True) for n in range(4))
    late = report.model_copy(update={"depth": (one[0].model_copy(update={"layers": rows}),)})
    assert "no layer carries half of the gap: most of it is in how the final norm and the head" in str(
        depth_sentence(late)
    )


def test_without_a_real_gap_or_a_profile_nothing_is_said(report: Report) -> None:
    report = bare(report)
    still = report.model_copy(update={"depth": (profile("b", 0.4, moved=False),)})
    assert depth_sentence(report) is depth_sentence(still) is None
    assert "is carried by layer" not in printed(still) + printed(report)
    assert DEPTH not in {figure.name for figure in (*figures(still), *figures(report))}
    assert "At which layer" not in render_markdown(report) + render_html(report, ())
    assert "no gap to explain" in render_html(still, ())


def test_terminal_says_it_in_words(deep: Report) -> None:
    assert " ".join(str(depth_sentence(deep)).split()) in " ".join(printed(deep).split())
    assert all(len(line) <= 80 for line in printed(deep, 80).splitlines())


def test_markdown_has_a_row_a_task(deep: Report) -> None:
    page = render_markdown(deep)
    assert "At which layer do the gaps arise?" in page
    rows = [line for line in page.splitlines() if "32 of 1,200" in line]
    assert len(rows) == len(deep.depth)
    for one in deep.depth:
        (row,) = [row for row in rows if row.startswith(f"| {one.task} |")]
        assert (sparkline(one) in row) == one.moved
        assert ("no gap to explain" in row) == (not one.moved)
    assert sparkline(deep.depth[0]) == "▂▅▆█"
    assert len(page.encode()) <= LIMIT_BYTES


def test_page_has_chart_alternative_and_tables(deep: Report) -> None:
    drawn = figures(deep)
    (chart,) = [figure for figure in drawn if figure.name == DEPTH]
    assert chart.task is None
    assert "layer 1 50" in chart.alt
    page = render_html(deep, drawn)
    assert 'id="figure-depth"' in page
    assert 'id="figure-heatmap"' in page
    assert page.count("32 of 1,200") == len(deep.depth)
    assert "is read above it" in page
    assert "Every layer as a table" in page


def test_a_refused_layer_is_told_and_hostile_strings_stay_text(hostile: Report) -> None:
    script = "<script>alert(1)</script>[bold]x[/bold]\x1b[31m"
    bad = with_depth(hostile, refused=script)
    page, text = render_html(bad), render_markdown(bad)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[bold]x[/bold]\\x1b[31m" in page
    assert not [line for line in text.splitlines() if "32 of 1,200" in line and "<script>" in line]
    assert "\x1b" not in page + text + printed(bad)
    assert len(HOSTILE) == len(bad.depth)
    out = Console(file=io.StringIO(), width=200)
    print_depth(bad.depth, {script: script}, out, choice=(1, script))
    assert isinstance(out.file, io.StringIO)
    assert "[bold]x[/bold]" in out.file.getvalue()
    assert "\x1b" not in out.file.getvalue()


def test_command_prints_every_layer_the_choice_and_its_rule(deep: Report) -> None:
    out = Console(file=io.StringIO(), width=100)
    print_depth(deep.depth, {"other": "it has no surrogate"}, out, choice=(1, "it is the first"))
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    for one in deep.depth:
        assert one.task in shown
    assert "other: no profile, it has no surrogate" in shown
    assert "--layer auto picks layer 1: it is the first." in shown
    assert "Its rule: the first layer that carries half" in shown
