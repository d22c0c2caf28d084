from __future__ import annotations

import xml.etree.ElementTree as ET

from diffharness.report.charts import Figure, describe_waterfall, figures, standalone, to_png
from diffharness.report.numbers import signed
from diffharness.report.schema import Report
from diffharness.report.text import brief_label
from diffharness.report.view import waterfall
from tests.report.example import HOSTILE


def _texts(svg: str) -> str:
    return "\n".join(t for e in ET.fromstring(svg).iter() if e.tag.endswith("text") for t in e.itertext())


def test_every_accounted_task_is_drawn_with_its_numbers(report: Report, drawn: tuple[Figure, ...]) -> None:
    by_task = {figure.task: figure for figure in drawn}
    assert None in by_task
    for task in report.tasks:
        assert (task.task in by_task) == bool(task.components)
        if task.components:
            shown = _texts(by_task[task.task].svg)
            steps = [step for step in waterfall(task) if step.contribution is not None]
            assert all(brief_label(step.label, 26) in shown and signed(step.contribution) in shown for step in steps)
            assert {"bias", "error", "error (read)", "prior"} <= {step.label for step in steps}


def test_figures_take_the_colour_of_their_page_and_load_nothing(drawn: tuple[Figure, ...]) -> None:
    for figure in drawn:
        assert "currentColor" in figure.svg
        assert "style=" not in figure.svg
        assert "href=" not in figure.svg
        assert " id=" not in figure.svg


def test_a_figure_stands_alone_as_svg_and_png(drawn: tuple[Figure, ...]) -> None:
    ET.fromstring(standalone(drawn[1]))
    assert "prefers-color-scheme" in standalone(drawn[1])
    assert to_png(drawn[1]).startswith(b"\x89PNG")


def test_the_text_alternative_has_every_number(report: Report) -> None:
    said = describe_waterfall(report.tasks[0])
    steps = [step for step in waterfall(report.tasks[0]) if step.contribution is not None]
    assert {"safety", "safety (read)"} <= {step.label for step in steps}
    assert all(signed(step.contribution) in said for step in steps)


def test_hostile_labels_are_drawn_as_text(hostile: Report) -> None:
    pictures = figures(hostile)
    assert len({figure.name.lower() for figure in pictures}) == len(pictures)
    shown = "\n".join(_texts(figure.svg) for figure in pictures)
    for text in ("<script>alert(1)</script>", "'\"\\{{7*7}}{% x %}]]>--><!--", "\\u202egnp.exe"):
        assert text in shown
    assert len(HOSTILE) == len(hostile.tasks)
    for figure in pictures:
        tags = {e.tag.rsplit("}")[-1] for e in ET.fromstring(figure.svg).iter()}
        assert tags <= {"svg", "g", "path", "line", "text", "tspan", "rect", "defs"}
