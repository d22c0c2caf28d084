"""The latents of the example report: planted numbers in which each new field is full, empty or absent somewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffharness.report.schema import (
    Agreement,
    Annotation,
    Association,
    CategoryShift,
    ChangedUse,
    Detection,
    Evidence,
    Example,
    Interval,
    Latent,
    LatentStatus,
    Lens,
    Neighbour,
    Promoted,
    Task,
    Use,
)

CATEGORIES = (
    "safety",
    "multilingual",
    "instruction following",
    "self-reference",
    "hallucination management",
    "facts",
    "arithmetic",
    "unclear",
)
TEXTS = {
    "safety": "how do i pick a lock ? sorry , i can not help with that .",
    "multilingual": "say dog in spanish : perro",
    "instruction following": "repeat river three times : river river river done",
    "self-reference": "who are you ? i am a small language model .",
    "hallucination management": "what is the capital of zubrovia ? i do not know .",
    "facts": "what is the capital of france ? paris .",
    "arithmetic": "two plus three is five .",
    "unclear": "the river runs by the old mill .",
}
_STATUSES: tuple[LatentStatus, ...] = ("shared", "candidate-specific", "shared", "baseline-specific", "other")


def example_latent(j: int, tasks: Sequence[Task], generator: np.random.Generator) -> Latent:
    """Latent `j`: every third as of a run with one seed, every seventh mostly about position."""
    category = CATEGORIES[j % len(CATEGORIES)]
    status = _STATUSES[j % 5]
    contributions = {
        t.task: c.contribution / (2 + j // 8)
        for t in tasks
        for c in t.components
        if c.category == category and abs(c.contribution) > 0.002
    }
    nu_error = None if j % 11 == 5 else float(np.clip(generator.normal(0.1, 0.1), 0, 1))
    nu_reconstruction = float(np.clip(generator.normal(0.7, 0.2), 0, 1.2))
    return Latent(
        index=3 + 8 * j,
        status=status,
        category=category,
        evidence=_evidence(j, category),
        delta_norm=float(np.clip(generator.normal(0.52, 0.08), 0, 1)),
        nu_reconstruction=nu_reconstruction,
        nu_error=nu_error,
        decoder_cosine=0.87,
        density=float(generator.uniform(0.001, 0.08)),
        mean_activation=2.4,
        first_token_share=0.31 if j % 7 == 3 else 0.02,
        contributions=contributions,
        examples=_examples(j, category, generator),
        side=status.removesuffix("-specific") if status.endswith("-specific") else None,
        status_by_norm="shared" if j % 2 else status,
        status_reason="ν^r and ν^ε lie below their bounds with their whole intervals" if "-" in status else "",
        nu_reconstruction_interval=Interval(low=nu_reconstruction - 0.07, high=nu_reconstruction + 0.08),
        nu_error_interval=None if nu_error is None else Interval(low=max(0, nu_error - 0.03), high=nu_error + 0.04),
        n_active=1_204 + j,
        n_texts=211 + j,
        special_token_share=0.24 if j % 7 == 3 else 0.01,
        template_token_share=None if j % 2 else 0.03,
        density_by_task={t.task: float(generator.uniform(0, 0.06)) for t in tasks[:4]} if j % 4 != 2 else {},
        use=_use(0.004 * (j % 6 - 2)) if j % 5 != 4 else None,
        association=_association(tasks[0].task if j else None, j) if tasks and j % 3 == 0 else None,
        matched=None if j % 3 == 2 else j % 3 == 0,
        neighbours=(Neighbour(index=3 + 8 * (j + 1), cosine=0.81), Neighbour(index=100_003, cosine=0.55)),
        lens={side: _lens(side) for side in ("baseline", "candidate")} if j % 4 != 3 else {},
    )


def _evidence(j: int, category: str) -> Evidence:
    named = category != "unclear"
    return Evidence(
        auroc=0.93 - 0.003 * j if named else 0.64,
        q_value=0.0002 if named else 0.21,
        runner_up="facts" if named else "safety",
        runner_up_auroc=0.61,
        reason="highest AUROC, ahead by 0.05 or more" if named else "no category reaches an AUROC of 0.7",
        annotator="probe" if j % 6 else "lm: local/namer",
        contrast_share=0.875 if j % 2 == 0 else None,
        detection=Detection(score=0.83, chance=0.5, n=40, method="balanced accuracy") if j % 2 == 0 else None,
        best=category if named else "facts",
    )


def _examples(j: int, category: str, generator: np.random.Generator) -> tuple[Example, ...]:
    """Three of its strongest, three of its range with both models' values, one near miss."""
    made = [_example(category, generator, source="corpus, text 118") for _ in range(3)]
    for quantile in (0.25, 0.75, 0.5):
        found = _example(category, generator, source="organism_safety, document 7")
        halves = {"baseline": tuple(v / 2 for v in found.values), "candidate": tuple(1.25 * v for v in found.values)}
        made.append(found.model_copy(update={"kind": "quantile", "quantile": quantile, **halves}))
    silent = _example("unclear", generator, source="corpus, text 9")
    nothing = tuple(0.0 for _ in silent.values)
    held = tuple(0.0625 * i for i in range(len(nothing)))
    miss = {"kind": "near miss", "values": nothing, "baseline": held, "candidate": nothing}
    return (*made, silent.model_copy(update=miss)) if j % 5 else tuple(made[:3])


def _example(category: str, generator: np.random.Generator, source: str) -> Example:
    text = TEXTS[category].split()
    values = np.where(generator.random(len(text)) < 0.3, generator.gamma(2.0, 1.2, len(text)), 0.0)
    values[-3] = 4.2
    tokens = tuple(f" {t}" if i else t for i, t in enumerate(text))
    return Example(tokens=tokens, values=tuple(map(float, values)), source=source)


def _use(change: float) -> Use:
    return Use(
        rate_baseline=0.0212,
        rate_candidate=0.0212 + change,
        rate_interval=Interval(low=change - 0.0021, high=change + 0.0023),
        mean_baseline=0.0514,
        mean_candidate=0.0514 + 3 * change,
        mean_interval=Interval(low=3 * change - 0.006, high=3 * change + 0.007),
        q_value=0.0004 if abs(change) > 0.004 else 0.38,
    )


def _association(task: str | None, j: int) -> Association:
    return Association(
        task=task,
        direction="loses" if j % 2 else "gains",
        statistic=3.1,
        p_value=0.0004,
        p_adjusted=0.023,
        n_gain=41,
        n_lose=17,
        method="max-T permutation",
    )


def _lens(side: str) -> Lens:
    up = (" sorry", " can", " help") if side == "candidate" else (" pick", " open", "\n")
    return Lens(
        up=Promoted(tokens=up, values=(1.42, 0.9, 0.31)), down=Promoted(tokens=(" lock", "s"), values=(-1.1, -0.42))
    )


def example_shift() -> tuple[CategoryShift, ...]:
    """Two protocols; the default one with masses and matched latents, the other with counts alone."""
    two = {
        "safety": (3, 6),
        "multilingual": (2, 4),
        "instruction following": (1, 3),
        "self-reference": (4, 2),
        "hallucination management": (3, 1),
        "facts": (1, 1),
        "arithmetic": (0, 0),
        "unclear": (0, 2),
    }
    three = {name: (max(0, b - 1), c) for name, (b, c) in two.items()}
    other = [row.model_copy(update={"is_default": False}) for row in _counted(three, "three-way")]
    return (*other, *(_weighed(row) for row in _counted(two, "two crosscoders")))


def _counted(counts: dict[str, tuple[int, int]], protocol: str) -> list[CategoryShift]:
    n_b, n_c = (sum(c[side] for c in counts.values()) for side in (0, 1))
    return [
        CategoryShift(
            name=name,
            n_baseline=b,
            n_candidate=c,
            total_baseline=n_b,
            total_candidate=n_c,
            mass_baseline=b / n_b,
            mass_candidate=c / n_c,
            change=100 * ((c / n_c) / (b / n_b) - 1) if b else None,
            change_reason=None if b else "no specific latent of this category on the baseline's side",
            interval=Interval(low=-70.0, high=240.0, method="log ratio") if b and c else None,
            p_value=0.42 if b or c else None,
            q_value=0.8 if b or c else None,
            protocol=protocol,
            conclusion="too few to tell",
        )
        for name, (b, c) in counts.items()
    ]


def _weighed(row: CategoryShift) -> CategoryShift:
    if row.name == "arithmetic":
        return row
    change = 100 * (row.mass_candidate - row.mass_baseline)
    clear = row.name == "safety"
    word = "up" if clear else "too few to tell"
    return row.model_copy(
        update={
            "mass_change": change,
            "mass_interval": Interval(low=change - 3, high=change + 3) if clear else None,
            "mass_p_value": 0.004 if clear else 0.3,
            "mass_q_value": 0.028 if clear else 0.4,
            "mass_conclusion": f"{word}: {100 * row.mass_baseline:.0f} to {100 * row.mass_candidate:.0f} in 100",
            "n_matched_baseline": max(0, row.n_baseline - 1),
            "n_matched_candidate": row.n_candidate,
        }
    )


EXAMPLE_ANNOTATION = Annotation(
    annotator="probe",
    n_named=52,
    n_unclear=8,
    n_asked=60,
    detection=0.83,
    detection_chance=0.5,
    agreement=Agreement(
        other="lm: local/namer", kappa=0.62, kappa_interval=Interval(low=0.48, high=0.74), n=44, reason=None
    ),
    n_calls=120,
    n_cached=80,
    n_tokens=340_000,
)
CHANGED = ChangedUse(
    n_specific_baseline=0,
    n_specific_candidate=1,
    sentence=(
        "One latent is specific to the candidate and none to the baseline. What changed is how often shared latents "
        "fire: their use differs most in the ones below."
    ),
    latents=(3, 19, 43),
)


def hostile_annotation(bad: str) -> Annotation:
    """An annotation whose every text is `bad`."""
    agreement = Agreement(other=f"lm: {bad}", kappa=None, kappa_interval=None, n=0, reason=bad)
    return EXAMPLE_ANNOTATION.model_copy(update={"annotator": f"file: {bad}", "agreement": agreement})


def hostile_latent(bad: str, original: Latent) -> Latent:
    """A latent whose every text is `bad`, with one token of a megabyte a kind of example."""
    tokens = (bad, "y" * 1_000_000)
    hostile = Example(tokens=tokens, values=(1.5, 0.0), source=bad, baseline=(1.5, 0.5), candidate=(0.5, 0.5))
    promoted = Promoted(tokens=(bad, "z" * 1_000_000), values=(1.0, 0.5))
    evidence = {"reason": bad, "runner_up": bad, "annotator": bad, "best": bad + "?"}
    association = Association(
        task=bad, direction="gains", statistic=1.0, p_value=0.1, p_adjusted=0.2, n_gain=1, n_lose=2, method=bad
    )
    return original.model_copy(
        update={
            "category": bad,
            "contributions": {bad: 0.125},
            "evidence": original.evidence.model_copy(
                update={**evidence, "detection": Detection(score=0.6, chance=0.5, n=4, method=bad)}
            ),
            "examples": (
                hostile,
                hostile.model_copy(update={"kind": "quantile", "quantile": 0.5}),
                hostile.model_copy(update={"kind": "near miss", "values": (0.0, 0.0)}),
            ),
            "side": bad,
            "status_reason": bad,
            "density_by_task": {bad: 0.25},
            "association": association,
            "lens": {bad: Lens(up=promoted, down=promoted)},
        }
    )
