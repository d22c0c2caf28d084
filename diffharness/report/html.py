"""The report as one HTML file: one script of its own, no request, every string from outside escaped.

The templates know layout only. What they show is made in `view`, `words`, `numbers` and `charts`; strings pass
`clean` on their way to the page and are then escaped by jinja. The page reads without its script, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffharness.report import (
    ablated,
    cards,
    claims,
    depth,
    documents,
    flips,
    latent_words,
    numbers,
    quality,
    shapley,
    text,
    view,
    words,
)
from diffharness.report.account_notes import account_notes
from diffharness.report.charts import DEPTH, MOST_WATERFALLS, Figure, figures
from diffharness.report.explorer import STATIC_CARDS, Detail, Explorer, explore, task_names
from diffharness.report.glossary import GLOSSARY, anchor
from diffharness.report.schema import Component, Latent, Report, Task
from diffharness.report.settling import interval_reason

LIMIT_BYTES = 4_900_000
"""Of the whole page; what does not fit of the latents is left out, and said so."""
LEAST_FOR_LATENTS = 600_000
"""What the latents may take however long the rest is."""
MOST_OPEN = 12
"""Tasks that stand open at first."""
MOST_CHECKED = 6
"""Exact checks beside a waterfall; the table below it has every one."""
MOST_LISTED = 40
"""Tasks in the contents list."""
MOST_DOCUMENTS = 6
_MOST_CHARACTERS = 1_200
_SENTENCE_BYTES = 400
"""Kept free for the sentence that says what was left out."""
_LATENTS_PLACE = Markup('<section id="latents"></section>')
"""Where the latents go once it is known how much room they have; no string from outside can read like it."""


@dataclass(frozen=True)
class Whisker:
    """An interval and its middle on a common scale, in hundredths of the width."""

    low: float
    middle: float
    high: float


def render_html(report: Report, drawn: Iterable[Figure] | None = None) -> str:
    """The whole page. `drawn` are the report's figures where they were drawn already."""
    environment = _environment()
    pictures = tuple(figures(report) if drawn is None else drawn)
    style, script = (_templates().joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    carded = cards.carded(report)
    page = environment.get_template("report.html.jinja").render(
        report=report,
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        latents_place=_LATENTS_PLACE,
        heading=words.headline(report),
        tally=words.tally(report),
        sentence=partial(words.account_sentence, claims=report.claims),
        sentences={
            "corpus": _capital(words.corpus_sentence(report)),
            "replay": _capital(words.replay_sentence(report)),
            "rescored": _capital(words.rescored_sentence(report)),
            "shapley": _capital(shapley.agreement_sentence(report)),
            "annotation": _capital(latent_words.annotation_sentence(report.annotation)),
        },
        stale=quality.stale_sentences(report),
        model_rows=quality.model_rows(report.quality),
        tasks=view.by_severity(report.tasks),
        explained_order=sorted(view.by_severity(view.primary(report)), key=lambda task: not view.is_real(task)),
        task_places=_task_places(report),
        whiskers=_whiskers(report.tasks),
        waterfalls={figure.task: figure for figure in pictures if figure.task is not None},
        heatmap=next((figure for figure in pictures if figure.task is None and figure.name != DEPTH), None),
        depth_figure=next((figure for figure in pictures if figure.task is None and figure.name == DEPTH), None),
        claims_said=claims.claims_sentence(report),
        depth_sentence=_capital(depth.depth_sentence(report)),
        heat=view.heat(report),
        carded={latent.index for latent in carded},
        protocols=view.protocols(report),
        changed=view.changed_latents(report),
        n_waterfalls=MOST_WATERFALLS,
        glossary=GLOSSARY,
        config=json.dumps(report.provenance.config, indent=2, ensure_ascii=False, default=str, sort_keys=True),
    )
    room = max(LEAST_FOR_LATENTS, LIMIT_BYTES - len(page.encode()))
    return page.replace(_LATENTS_PLACE, _latents_section(environment, report, carded, room), 1)


def _latents_section(environment: Environment, report: Report, carded: tuple[Latent, ...], room: int) -> str:
    """The section of the latents in about `room` bytes: a few cards, a list for readers without script, the data."""
    shared: dict[str, Any] = {"carded": {latent.index for latent in carded}}
    shared["m"] = environment.get_template("macros.jinja").make_module(shared)
    card = environment.get_template("_card.html.jinja")

    def draw(latent: Latent, detail: Detail) -> str:
        return card.render(j=latent, detail=detail, is_open=False, **shared)

    template = environment.get_template("_latents.html.jinja")
    shown = () if report.validation.mechanism_withheld else carded

    def section(found: Explorer) -> str:
        return template.render(
            report=report,
            latents=shown,
            static_latents=shown[:STATIC_CARDS],
            listed_latents=shown[STATIC_CARDS:],
            latent_data=found.data,
            latent_tasks=[text.brief(name, 80) for name in found.tasks],
            latent_categories=sorted({text.brief(latent.category, 60) for latent in shown}),
            left_out=found.left_out(),
            has_presence=any(example.baseline for latent in shown for example in latent.examples),
            n_latents_left=len(report.latents) - len(carded),
            sentences={"annotation": _capital(latent_words.annotation_sentence(report.annotation))},
            **shared,
        )

    around = len(section(Explorer({}, Markup(), task_names(shown), frozenset())).encode())
    return section(explore(shown, draw, room - around - _SENTENCE_BYTES))


def _hash(content: str) -> str:
    """The content's SHA-256 as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _task_places(report: Report) -> dict[str, int]:
    """By task, the place of its section; none where there are no sections."""
    if report.validation.mechanism_withheld:
        return {}
    return {task.task: place for place, task in enumerate(view.by_severity(report.tasks), 1) if task.is_primary}


def _capital(sentence: str | None) -> str | None:
    return sentence and sentence[0].upper() + sentence[1:]


def _templates() -> Traversable:
    return resources.files("diffharness.report") / "templates"


def _environment() -> Environment:
    """Jinja with autoescape on for every template, and `clean` before it for every string."""
    environment = Environment(
        loader=FileSystemLoader(str(_templates())),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        plain=numbers.plain,
        signed=numbers.signed,
        percent=numbers.percent,
        interval=numbers.interval,
        points=numbers.points,
        span=numbers.span,
        p=numbers.p_value,
        small=numbers.small,
        count=numbers.count,
        seconds=numbers.seconds,
        brief=text.brief,
        long=lambda value: text.shorten(value, _MOST_CHARACTERS),
        svg=_inline,
        breakable=text.breakable,
        anchor=anchor,
        notes=account_notes,
        example_groups=cards.groups,
        lens_rows=cards.lens_rows,
        task_rows=cards.task_rows,
        token=cards.token_name,
        token_number=documents.number,
        position=latent_words.position_sentence,
        by_norm=latent_words.norm_sentence,
        association=latent_words.association_sentence,
        annotator=latent_words.annotator_name,
        capital=_capital,
        by_size=_by_size,
        identity=id,
    )
    environment.tests["told"] = latent_words.is_told
    environment.globals.update(
        check_word=words.check_word,
        claims=claims,
        flips=flips,
        flipped=documents,
        shapley=shapley,
        decoder_pairs=quality.decoder_pairs,
        rule_words=quality.rule_words,
        glossary_text=GLOSSARY.__getitem__,
        is_real=view.is_real,
        is_explained=view.is_explained,
        label=view.label,
        ordered=view.ordered,
        share_of=_share_of,
        side_name=view.side_name,
        verdict_signs=words.VERDICT_SIGNS,
        verdict_reason=words.verdict_reason,
        interval_reason=interval_reason,
        weight_of=view.weight_of,
        ablated_name=ablated.shown_name,
        ablated_rows=ablated.by_change,
        at_layer=depth.at,
        read_above=depth.read_above,
        most_documents=MOST_DOCUMENTS,
        most_listed=MOST_LISTED,
        most_open=MOST_OPEN,
        most_checked=MOST_CHECKED,
        most_neighbours=cards.MOST_NEIGHBOURS,
        most_tasks=cards.MOST_TASKS,
    )
    return environment


def _cleaned(value: Any) -> Any:
    return text.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _inline(figure: Figure, identity: str) -> Markup:
    """A figure's own SVG (its labels are escaped by the renderer) as an image with a text alternative."""
    label = Markup.escape(text.one_line(figure.alt))
    attributes = f'<svg class="chart" role="img" id="{Markup.escape(identity)}" aria-label="{label}" '
    return Markup(figure.svg.replace("<svg ", attributes, 1))


def _whiskers(tasks: tuple[Task, ...]) -> Mapping[int, Whisker]:
    """Each task's interval, by identity: one scale for scores within [0, 1], one for each other metric."""
    scales: dict[str, float] = {}

    def scale_of(task: Task) -> str:
        return (
            "" if min(task.baseline, task.candidate) >= 0 and max(task.baseline, task.candidate) <= 1 else task.metric
        )

    for task in tasks:
        reach = max(abs(task.interval.low), abs(task.interval.high), abs(task.gap))
        scales[scale_of(task)] = max(scales.get(scale_of(task), 0.0), reach)
    made = {}
    for task in tasks:
        place = partial(_place, reach=scales[scale_of(task)] or 1.0)
        made[id(task)] = Whisker(place(task.interval.low), place(task.gap), place(task.interval.high))
    return made


def _place(value: float, reach: float) -> float:
    return round(50 + 46 * value / reach, 2)


def _share_of(component: Component, task: Task) -> float:
    """The component's size over the task's largest, −1 to 1, for the bar in its table."""
    largest = max((abs(c.contribution) for c in task.components), default=0.0)
    return component.contribution / largest if largest else 0.0


def _by_size(contributions: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
    """Named contributions, the largest in absolute value first."""
    return sorted(contributions.items(), key=lambda item: (-abs(item[1]), item[0]))[:limit]
