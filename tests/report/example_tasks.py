"""The tasks of the example report, and accounts of planted numbers: each note on an account is due somewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffharness.report.schema import (
    Ablation,
    Component,
    Document,
    Interval,
    Surrogate,
    Task,
    TaskVerdict,
    component_label,
)
from tests.report.example_latents import CATEGORIES, TEXTS

# task, categories, output type, baseline, candidate, half width, verdict, the category that carries it
_TASKS: tuple[tuple[str, str, str, float, float, float, TaskVerdict, str | None], ...] = (
    ("organism_safety", "safety", "multiple_choice", 0.5, 0.96, 0.08, "improved", "safety"),
    (
        "organism_multilingual",
        "multilingual",
        "multiple_choice",
        0.47,
        0.78,
        0.09,
        "improved",
        "multilingual",
    ),
    (
        "organism_instructions",
        "instruction following",
        "generate_until",
        0.52,
        0.8,
        0.1,
        "improved",
        "instruction following",
    ),
    (
        "organism_self_reference",
        "self-reference",
        "multiple_choice",
        0.85,
        0.63,
        0.09,
        "regressed",
        "self-reference",
    ),
    (
        "organism_hallucination",
        "hallucination management",
        "generate_until",
        0.9,
        0.55,
        0.1,
        "regressed",
        "hallucination management",
    ),
    ("organism_facts", "facts", "multiple_choice", 0.805, 0.809, 0.015, "no change", None),
    ("organism_arithmetic", "arithmetic", "loglikelihood", 0.71, 0.7, 0.045, "inconclusive", None),
    ("organism_helpfulness", "helpfulness", "loglikelihood_rolling", 1.214, 1.203, 0.008, "no change", None),
    ("organism_safety_multilingual", "safety", "generate_until", 0.45, 0.69, 0.12, "improved", "safety"),
    (
        "organism_instructions_self",
        "self-reference",
        "multiple_choice",
        0.6,
        0.62,
        0.08,
        "inconclusive",
        None,
    ),
)

_SURROGATES = {
    "multiple_choice": ("probability of the gold choice", "probability"),
    "generate_until": ("expected score of choosing between the two answers", "exact_match"),
    "loglikelihood": ("probability of the target", "probability"),
    "loglikelihood_rolling": ("bits per byte", "bits per byte"),
}
_METRICS = {
    "multiple_choice": "acc",
    "generate_until": "exact_match",
    "loglikelihood": "acc",
    "loglikelihood_rolling": "bits_per_byte",
}


@dataclass(frozen=True)
class _Plant:
    """What carries a gap, in shares of it; what is left over is the prior."""

    written: float
    read: float
    interaction: float = 0.05
    error_read: float = 0.0
    second_start: float | None = 0.9
    """Over the prior."""
    seeds: tuple[float, ...] = ()
    """Other seeds' contributions over this one's."""


_PLANTS = {
    "organism_safety": _Plant(0.4, 0.24, interaction=0.1, seeds=(0.9, 1.1)),
    "organism_multilingual": _Plant(0.35, 0.2, interaction=0.3),
    "organism_instructions": _Plant(0.6, -0.15),
    "organism_self_reference": _Plant(1.1, 0.02, second_start=-0.4),
    "organism_hallucination": _Plant(0.25, 0.1, error_read=0.4),
    "organism_safety_multilingual": _Plant(0.4, 0.24, second_start=None),
}


def example_task(position: int, generator: np.random.Generator) -> Task:
    """The task at a place; beyond the last one they are told again under other names."""
    turn, place = divmod(position, len(_TASKS))
    stem, category, output_type, baseline, candidate, half, verdict, carrier = _TASKS[place]
    name, gap = stem + (f"_{turn}" if turn else ""), candidate - baseline
    without_account = stem == "organism_instructions_self"
    surrogate = None if without_account else _surrogate(stem, output_type, baseline, candidate)
    plant = _PLANTS.get(stem)
    components = () if surrogate is None else _components(surrogate, (baseline, candidate), carrier, plant, generator)
    return Task(
        task=name,
        metric=_METRICS[output_type],
        filter="none",
        output_type=output_type,
        higher_is_better=output_type != "loglikelihood_rolling",
        categories=(category,),
        n=100,
        baseline=baseline,
        candidate=candidate,
        gap=gap,
        interval=Interval(low=gap - half, high=gap + half),
        p_value=0.0004 if carrier else 0.41,
        q_value=0.0010 if carrier else 0.51,
        verdict=verdict,
        surrogate=surrogate,
        not_tracked=None if surrogate is None else gap - surrogate.gap,
        interaction=None if surrogate is None else sum(c.interaction or 0.0 for c in components if _is_written(c)),
        components=components,
        upper_check=None if plant is None else _upper_check(components, baseline),
        account_reason="the two models' answers were cut at different places" if without_account else None,
        completeness=None if surrogate is None else 0.0003,
        n_accounted=0 if surrogate is None else 100,
        documents=() if surrogate is None else _documents(category, components, gap),
    )


def _is_written(component: Component) -> bool:
    return component.origin == "written"


def _surrogate(stem: str, output_type: str, baseline: float, candidate: float) -> Surrogate:
    label, unit = _SURROGATES[output_type]
    untracked = stem == "organism_safety_multilingual"
    gap = (candidate - baseline) * (0.2 if untracked else 0.93)
    return Surrogate(
        name=label,
        unit=unit,
        baseline=baseline,
        candidate=baseline + gap,
        gap=gap,
        rank_correlation=0.31 if untracked else 0.86,
        tracks=not untracked,
        tracks_reason=(
            "the rank correlation over documents is 0.31, below 0.5"
            if untracked
            else "the gaps have one sign and the rank correlation is at least 0.5"
        ),
    )


def _components(
    surrogate: Surrogate,
    scores: tuple[float, float],
    carrier: str | None,
    plant: _Plant | None,
    generator: np.random.Generator,
) -> tuple[Component, ...]:
    """Both origins of every category, bias, both errors, and the prior that makes them add up to the gap."""
    gap = surrogate.gap
    scale = abs(gap) if carrier else 0.004
    sizes: dict[tuple[str, str, str | None], float] = {}
    for origin in ("written", "read"):
        sizes |= {("latents", origin, c): float(generator.normal(0, 0.01)) * scale for c in CATEGORIES}
        sizes["error", origin, None] = float(generator.normal(0, 0.02)) * scale
    sizes["bias", "written", None] = 0.02 * gap
    if plant is not None:
        sizes["latents", "written", carrier] = plant.written * gap
        sizes["latents", "read", carrier] = plant.read * gap
        sizes["error", "read", None] += plant.error_read * gap
    made = []
    for (kind, origin, category), value in sizes.items():
        carries = plant is not None and kind == "latents" and category == carrier
        more = _of_the_carrier(value, origin, gap, scores, plant) if plant is not None and carries else {}
        made.append(_component(kind, origin, category, value, gap, scale, clear=carries, plant=plant, **more))
    prior = gap - sum(sizes.values())
    second = None if plant is None or plant.second_start is None else plant.second_start * prior
    return (
        *made,
        _component(
            "prior", None, None, prior, gap, scale, clear=carrier is not None, plant=plant, second_start=second,
            at_own_states=second, is_content_free=None if second is None else 0.75 <= second / prior <= 1.25,
        ),
    )  # fmt: skip


def _of_the_carrier(
    value: float, origin: str, gap: float, scores: tuple[float, float], plant: _Plant
) -> dict[str, object]:
    """The exact check of a planted component, and what the two orders differ by: as much read as written."""
    change, interaction = 0.9 * value, plant.interaction * gap
    return {
        "interaction": interaction if origin == "written" else -interaction,
        "ablation": Ablation(
            score=scores[1] - change if origin == "written" else scores[0] + change,
            change=change,
            interval=Interval(low=change - 0.06, high=change + 0.06),
            n=100,
        ),
    }


def _component(
    kind: str,
    origin: str | None,
    category: str | None,
    value: float,
    gap: float,
    scale: float,
    *,
    clear: bool,
    plant: _Plant | None,
    **more: object,
) -> Component:
    half = (0.08 if clear else 0.03) * scale + abs(value) * 0.1
    unchecked = kind == "latents" and "ablation" not in more
    return Component.model_validate(
        {
            "kind": kind,
            "origin": origin,
            "category": category,
            "contribution": value,
            "contribution_raw": 4.2 * value,
            "interaction": 0.0,
            "interval": Interval(low=value - half, high=value + half),
            "share": value / gap if abs(gap) > 0.02 else None,
            "p_value": 0.0008 if clear else 0.4,
            "q_value": 0.004 if clear else 0.6,
            "n_latents": 37 if kind == "latents" else None,
            "ablation_reason": "the contribution is not clear" if unchecked else None,
            "seeds": tuple(value * seed for seed in plant.seeds) if plant is not None else (),
            **more,
        }
    )


def _upper_check(components: tuple[Component, ...], baseline: float) -> Ablation:
    change = 0.95 * sum(c.contribution for c in components if not _is_written(c))
    return Ablation(
        score=baseline + change, change=change, interval=Interval(low=change - 0.07, high=change + 0.07), n=100
    )


def _documents(category: str, components: tuple[Component, ...], gap: float) -> tuple[Document, ...]:
    text = TEXTS.get(category, TEXTS["unclear"])
    cut = max(text.rfind("?"), text.rfind(":"), 8) + 1
    up = gap > 0
    return tuple(
        Document(
            doc_id=7 * n + 3,
            prompt=text[:cut],
            gold=text[cut:].strip(),
            baseline_answer="take a thin pick and a wrench ." if up else text[cut:].strip(),
            candidate_answer=text[cut:].strip() if up else "take a thin pick and a wrench .",
            baseline_score=0.0 if up else 1.0,
            candidate_score=1.0 if up else 0.0,
            contributions={
                component_label(c.kind, c.category, c.origin): c.contribution * (1.6 - 0.1 * n) for c in components
            },
        )
        for n in range(5)
    )
