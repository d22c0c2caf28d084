"""The figures, each an Altair specification written once: inline SVG for the page, files for Markdown.

Blue adds, orange takes away (told apart by every common form of colour blindness), and every bar and cell
carries its number. Text and lines take the colour of the text around them, so that dark mode needs no
second drawing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffharness.report import svg
from diffharness.report.depth import depth_sentence
from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.schema import HALF, Report, Task, carried_together
from diffharness.report.text import brief, brief_label
from diffharness.report.view import Heat, Step, by_severity, heat, is_real, ordered, waterfall

if TYPE_CHECKING:
    import altair as alt

    Chart = alt.LayerChart | alt.FacetChart

ADDS = "#2f7fc1"
TAKES = "#d9730d"

MOST_WATERFALLS = 30
"""Tasks drawn; the rest have their tables."""
DEPTH = "depth"
"""Name of the figure of the layers."""
_WIDTH = 360
_MOST_HEAT_ROWS, _MOST_HEAT_COLUMNS = 40, 16


@dataclass(frozen=True)
class Figure:
    """A drawn figure: `name` is its file's stem, `alt` its text alternative, `svg` in the page's colours."""

    name: str
    title: str
    alt: str
    svg: str
    task: str | None = None


def figures(report: Report) -> tuple[Figure, ...]:
    """The heat map, and a waterfall for each task that has an account, the most severe first."""
    if report.validation.mechanism_withheld is not None:
        return ()
    drawn = []
    heated = heat(report)
    if heated is not None:
        title = "What the latents of each category contribute to each task's gap"
        drawn.append(Figure("heatmap", title, describe_heat(heated), to_svg(heat_chart(heated))))
    accounted = [t for t in by_severity(report.tasks) if t.components and t.surrogate is not None]
    accounted.sort(key=lambda task: not is_real(task))
    used: set[str] = set()
    for task in accounted[:MOST_WATERFALLS]:
        title = f"From baseline to candidate: {brief(task.task, 60)}"
        name = _file_stem(task.task, used)
        drawn.append(Figure(name, title, describe_waterfall(task), to_svg(waterfall_chart(task)), task.task))
    if depth_sentence(report) is not None:
        title = "What each layer carries of the gaps"
        drawn.append(Figure(DEPTH, title, describe_depth(report), to_svg(depth_chart(report))))
    return tuple(drawn)


def waterfall_chart(task: Task) -> Chart:
    """Baseline → components → candidate in the surrogate's unit, with intervals.

    Bars do not start at zero, so the two totals are drawn as lines and not as bars.
    """
    import altair as alt

    steps = waterfall(task)
    rows = [
        {
            "row": row,
            "start": step.start,
            "end": step.end,
            "low": step.low,
            "high": step.high,
            "total": step.contribution is None,
            "sign": "takes" if (step.contribution or 0) < 0 else "adds",
            "text": plain(step.end) if step.contribution is None else signed(step.contribution),
            "edge": max(v for v in (step.start, step.end, step.high) if v is not None),
            "next": min(row + 1, len(steps) - 1),
            "tip": svg.tip(_step_words(task, step), "" if step.row is None else f"c{step.row}"),
        }
        for row, step in enumerate(steps)
    ]
    lows = [v for r in rows for v in (r["start"], r["end"], r["low"]) if v is not None]
    highs = [v for r in rows for v in (r["start"], r["end"], r["high"]) if v is not None]
    span = (max(highs) - min(lows)) or 1.0
    domain = [min(lows) - 0.03 * span, max(highs) + 0.16 * span]
    labels = [brief_label(step.label, 26) for step in steps]
    base = alt.Chart(alt.Data(values=rows))
    y = alt.Y(
        "row:O",
        title=None,
        axis=alt.Axis(labelExpr=f"{json.dumps(labels)}[datum.value]", labelLimit=200, ticks=False, labelPadding=8),
    )
    unit = task.surrogate.name if task.surrogate else ""
    x = alt.X("start:Q", title=brief(unit, 70), scale=alt.Scale(domain=domain, nice=False, zero=False))
    colour = alt.Color("sign:N", legend=None, scale=alt.Scale(domain=["adds", "takes"], range=[ADDS, TAKES]))
    parts_only, totals_only = "!datum.total", "datum.total"
    bars = base.transform_filter(parts_only).mark_bar(height=13, cornerRadius=1).encode(x, y, x2="end:Q", color=colour)
    totals = base.transform_filter(totals_only).mark_tick(thickness=3, size=16, color="currentColor").encode(x, y)
    whiskers = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(color="currentColor", opacity=0.75, strokeWidth=1.2)
        .encode(alt.X("low:Q"), y, x2="high:Q")
    )
    joints = base.mark_rule(color="currentColor", opacity=0.3).encode(alt.X("end:Q"), y, y2="next:O")
    numbers = base.mark_text(align="left", dx=7, fontSize=11, color="currentColor").encode(
        alt.X("edge:Q"), y, text="text:N"
    )
    touched = base.mark_rect(color="transparent").encode(y=y, x=alt.value(0), x2=alt.value(_WIDTH), description="tip:N")
    return _configured(alt.layer(joints, bars, whiskers, totals, numbers, touched, width=_WIDTH, height={"step": 23}))


def _step_words(task: Task, step: Step) -> str:
    """A bar's exact values, for those who point at it."""
    name = brief(step.label, 80)
    if step.contribution is None:
        return f"{name}: {plain(step.end, 4)}"
    said = f"{name}: {signed(step.contribution, 4)}"
    if step.row is None:
        return said
    component = ordered(task.components)[step.row]
    share = "" if component.share is None else f", {percent(component.share)} of the gap"
    return f"{said} {interval(component.interval, 4)}{share}"


def heat_chart(heated: Heat) -> Chart:
    """Categories × tasks: the number in the cell, its size as the cell's shade."""
    import altair as alt

    tasks, categories = heated.tasks[:_MOST_HEAT_ROWS], heated.categories[:_MOST_HEAT_COLUMNS]
    cells = [
        {
            "row": row,
            "column": column,
            "shade": 0.62 * abs(heated.shades[row][column]),
            "sign": "takes" if (value or 0) < 0 else "adds",
            "text": signed(value),
            "tip": svg.tip(_cell_words(tasks[row], categories[column], value), f"h{row}-{column}"),
        }
        for row in range(len(tasks))
        for column, value in enumerate(heated.cells[row][: len(categories)])
    ]
    untracked = [not (t.surrogate is not None and t.surrogate.tracks) for t in tasks]
    row_labels = [brief(t.task, 34) + (" †" if lost else "") for t, lost in zip(tasks, untracked)]
    column_labels = [brief(c, 26) for c in categories]
    base = alt.Chart(alt.Data(values=cells))
    y = alt.Y(
        "row:O",
        title=None,
        axis=alt.Axis(labelExpr=f"{json.dumps(row_labels)}[datum.value]", labelLimit=240, ticks=False, labelPadding=8),
    )
    x = alt.X(
        "column:O",
        title=None,
        axis=alt.Axis(
            labelExpr=f"{json.dumps(column_labels)}[datum.value]",
            labelLimit=180,
            labelAngle=-30,
            orient="top",
            ticks=False,
            labelPadding=6,
            labelAlign="left",
        ),
    )
    colour = alt.Color("sign:N", legend=None, scale=alt.Scale(domain=["adds", "takes"], range=[ADDS, TAKES]))
    shade = alt.Opacity("shade:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0, 1]))
    squares = base.mark_rect().encode(x, y, color=colour, opacity=shade)
    numbers = base.mark_text(fontSize=11, color="currentColor").encode(x, y, text="text:N")
    touched = base.mark_rect(color="transparent").encode(x, y, description="tip:N")
    return _configured(alt.layer(squares, numbers, touched, width={"step": 68}, height={"step": 25}))


def _cell_words(task: Task, category: str, value: float | None) -> str:
    gap = task.surrogate.gap if task.surrogate is not None else None
    return f"{brief(category, 60)} in {brief(task.task, 60)}: {signed(value, 4)} of {signed(gap, 4)}"


def depth_chart(report: Report) -> Chart:
    """Share of the gaps that each layer carries: all real gaps together, and a thin line a task."""
    import altair as alt

    together = carried_together(report.depth)
    rows = [{"task": "", "layer": layer, "share": share} for layer, share in together.items()]
    thin = [
        {"task": str(place), "layer": row.layer, "share": row.share}
        for place, profile in enumerate(report.depth)
        for row in profile.layers
        if row.share is not None
    ]
    shares = [HALF, *together.values(), *(row["share"] for row in thin)]
    last = max(report.run.n_layers - 1, 1)
    layer_axis = alt.Axis(values=sorted({round(last * part / 8) for part in range(9)}), format="d", grid=False)
    x = alt.X("layer:Q", title="layer", axis=layer_axis, scale=alt.Scale(domain=[0, last], nice=False))
    domain = alt.Scale(domain=[min(0.0, *shares), max(1.0, *shares)])
    y = alt.Y("share:Q", title="share of the gap", axis=alt.Axis(format="%", tickCount=5), scale=domain)
    half = alt.Chart(alt.Data(values=[{"share": HALF}])).mark_rule(color="currentColor", opacity=0.5, strokeDash=[4, 3])
    here = alt.Chart(alt.Data(values=[{"layer": report.run.layer}])).mark_rule(color=TAKES, strokeWidth=1.6)
    tasks = alt.Chart(alt.Data(values=thin)).mark_line(color="currentColor", opacity=0.3, strokeWidth=1)
    all_ = alt.Chart(alt.Data(values=rows)).mark_line(color=ADDS, strokeWidth=2.4, point=alt.OverlayMarkDef(color=ADDS))
    said = [{**row, "tip": svg.tip(f"layer {row['layer']}: {percent(row['share'], 1)} of all gaps")} for row in rows]
    touched = alt.Chart(alt.Data(values=said)).mark_circle(color="transparent", size=260, opacity=1)
    lines = (
        half.encode(y=y),
        here.encode(x=x),
        tasks.encode(x, y, detail="task:N"),
        all_.encode(x, y),
        touched.encode(x, y, description="tip:N"),
    )
    return _configured(alt.layer(*lines, width=420, height=180))


def _configured(chart: Chart) -> Chart:
    axis: dict[str, Any] = {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domain": False,
        "gridColor": "currentColor",
        "gridOpacity": 0.14,
        "tickColor": "currentColor",
        "tickOpacity": 0.3,
        "labelFontSize": 11.5,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    }
    return chart.configure(background="transparent", font=svg.FONT).configure_view(stroke=None).configure_axis(**axis)


def describe_waterfall(task: Task) -> str:
    """The waterfall as a sentence, for those who do not see it."""
    surrogate = task.surrogate
    if surrogate is None:
        return ""
    steps = [f"{brief(s.label, 40)} {signed(s.contribution)}" for s in waterfall(task) if s.contribution is not None]
    return (
        f"Waterfall of {brief(task.task, 60)}, {brief(surrogate.name, 60)}: "
        f"baseline {plain(surrogate.baseline)}; {'; '.join(steps)}; candidate {plain(surrogate.candidate)}."
    )


def describe_heat(heated: Heat) -> str:
    """What the heat map shows; its numbers are in the table beside it."""
    return (
        f"Heat map of {len(heated.tasks)} tasks by {len(heated.categories)} categories: the contribution of "
        "each category's latents to each task's gap, as in the tables."
    )


def describe_depth(report: Report) -> str:
    """The layers' chart as a sentence, with the shares of all real gaps together."""
    shares = "; ".join(f"layer {layer} {percent(share)}" for layer, share in carried_together(report.depth).items())
    return f"Line chart: {depth_sentence(report)}. All real gaps together: {shares}."


def to_svg(chart: Chart) -> str:
    """Draw for a page: no background, text and lines in `currentColor`."""
    import altair as alt
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return svg.lean(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=version))


def standalone(figure: Figure) -> str:
    """The figure as a file: with a background and a text colour of its own, light or dark by system."""
    return svg.standalone(figure.svg)


def to_png(figure: Figure, scale: float = 2.0) -> bytes:
    """The figure as a picture on white."""
    import vl_convert

    return vl_convert.svg_to_png(svg.on_white(figure.svg), scale=scale)


def _file_stem(task: str, used: set[str]) -> str:
    stem = "account-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", task).strip("-")[:60] or "task")
    unique, n = stem, 1
    while unique.lower() in used:
        n += 1
        unique = f"{stem}-{n}"
    used.add(unique.lower())
    return unique
