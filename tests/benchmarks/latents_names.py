"""The names of the default organism's latents against its own knowledge of which capability a token is of."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from diffharness import organism
from diffharness.config import RunConfig
from diffharness.latents.codes import TextEncoder
from diffharness.latents.description import ProbeReadings, annotate
from diffharness.organism.documents import task_name
from diffharness.organism.language import CAPABILITIES, singles
from diffharness.organism.plant import Plant
from diffharness.pipeline import Run
from diffharness.report.schema import Latent, Report
from diffharness.stages.naming import probes_of
from diffharness.stages.reading import MAIN, load_crosscoder

N_TEXTS = 8000
N_SHUFFLES = 10


def name_figures(seed: int, work: Path) -> dict[str, Any]:
    """Capabilities with a latent that leans the right way, and how many named latents are named rightly."""
    models = organism.build(seed=seed)
    config = RunConfig(
        baseline=str(models.baseline),
        candidate=str(models.candidate),
        ancestor=str(models.ancestor),
        tasks=("organism",),
        include_path=(organism.tasks_path(),),
        corpus=(str(models.corpus),),
        probes=models.probes,
        controls=False,
        seed=seed,
        output=work / f"names-{seed}",
    )
    run = Run(config)
    report, plant = run.report(), Plant.load(models.plant)
    moved = {name: pair for name, pair in plant.strengths.items() if pair[0] != pair[1]}
    leaning = {name: _leaning(report, name, up=pair[1] > pair[0]) for name, pair in moved.items()}
    truth = true_categories(run)
    names = [latent.category for latent in report.latents]
    probes = probes_of(run, MAIN, lambda *_: None)
    shuffled = [_shuffled_names(run, probes, np.random.default_rng([seed, number])) for number in range(N_SHUFFLES)]
    clear = [j.category if j.evidence.is_clear else "unclear" for j in report.latents]
    weight = [sum(map(abs, j.contributions.values())) for j in report.latents]
    detections = [j.evidence.detection.score for j in report.latents if j.evidence.detection is not None]
    return {
        "latents": len(names),
        "latents named": sum(name != "unclear" for name in names),
        "capabilities with a latent that leans the right way": float(np.mean([sum(v) > 0 for v in leaning.values()])),
        "latents that lean the right way, by ν with interval and by contribution": leaning,
        "latents with a clear name": sum(name != "unclear" for name in clear),
        "clear names that are right": _right(clear, truth),
        "named latents with the right category": _right(names, truth),
        "named latents with the right category, weighted by contribution": _right(names, truth, weight),
        "latents named, labels shuffled": float(np.mean([sum(n != "unclear" for n in names) for names in shuffled])),
        "named latents with the right category, labels shuffled": _right(
            [name for names in shuffled for name in names], truth * N_SHUFFLES
        ),
        "right category if every latent were named by its best, labels shuffled": float(
            np.mean([_right(_best(run, probes, np.random.default_rng([seed, number])), truth) for number in range(3)])
        ),
        "detection score of named latents": float(np.mean(detections)) if detections else 0.0,
        "category shift of the default plant": [
            row.model_dump(mode="json", include=_SHOWN) for row in report.categories
        ],
    }


_SHOWN = {
    "name", "protocol", "n_baseline", "total_baseline", "n_candidate", "total_candidate", "change", "interval",
    "p_value", "mass_baseline", "mass_candidate", "mass_change", "mass_interval", "mass_p_value",
}  # fmt: skip


def _leaning(report: Report, category: str, *, up: bool) -> tuple[int, int]:
    """Latents of a category that are specific to the stronger side with their whole intervals, and that write a
    tenth of a percent of the single task's gap or more in its direction."""
    task = next(t for t in report.tasks if t.task == task_name(category))
    assert task.surrogate is not None
    own = [latent for latent in report.latents if latent.category == category]
    by_nu = sum(latent.side == ("candidate" if up else "baseline") and _is_sure(latent) for latent in own)
    by_contribution = sum(latent.contributions.get(task.task, 0.0) / task.surrogate.gap > 0.001 for latent in own)
    return by_nu, by_contribution


def _is_sure(latent: Latent) -> bool:
    both = (latent.nu_reconstruction_interval, latent.nu_error_interval)
    return both[0] is not None and both[1] is not None and both[0].high < 0.5 and both[1].high < 0.2


@cache
def capability_of_line() -> dict[str, str]:
    """Every line of a single capability; what else the corpus holds is of two."""
    return {
        f"{example.prompt} {answer}": name
        for name in CAPABILITIES
        for example in singles(name)
        for answer in example.answers
    }


def true_categories(run: Run) -> list[str | None]:
    """The capability on whose tokens each latent has the most activation, per token; none where it never fires.

    Over corpus lines of a single capability, whose every token is of it.
    """
    vocabulary = organism_vocabulary(run)
    texts = run.harvested.texts[:N_TEXTS]
    lines = [" ".join(vocabulary[i] for i in text.ids[1:]) for text in texts]
    known = capability_of_line()
    encoder = TextEncoder(load_crosscoder(run, MAIN))
    lengths = [len(text.ids) - 1 for text in texts]
    codes = encoder(run.harvested.rows(MAIN, np.arange(len(texts)))[: sum(lengths)], lengths)
    place = {name: k for k, name in enumerate(CAPABILITIES)}
    capability_B = np.array([place.get(known.get(line, ""), -1) for line in lines])
    peaks = codes.peaks
    capability_P = capability_B[peaks.text_P.numpy()]
    mass_LK = np.zeros((encoder.crosscoder.n_latents, len(CAPABILITIES)))
    inside = capability_P >= 0
    np.add.at(mass_LK, (peaks.latent_P.numpy()[inside], capability_P[inside]), peaks.mass_P.numpy()[inside])
    n_tokens_K = np.array([np.array(lengths)[capability_B == k].sum() for k in range(len(CAPABILITIES))])
    density_LK = mass_LK / np.maximum(n_tokens_K, 1)
    return [CAPABILITIES[int(row.argmax())] if row.any() else None for row in density_LK]


def organism_vocabulary(run: Run) -> dict[int, str]:
    """Words by token id."""
    return {i: word for word, i in run.session.model("baseline").hf_tokenizer.get_vocab().items()}


def _right(names: list[str], truth: list[str | None], weight: list[float] | None = None) -> float:
    """Of the named latents that fire, the share named after the capability whose tokens excite them most."""
    weights = weight or [1.0] * len(names)
    named = [(n, t, w) for n, t, w in zip(names, truth, weights, strict=True) if n != "unclear" and t is not None]
    total = sum(w for _, _, w in named)
    return float(sum(w for n, t, w in named if n == t) / total) if total else 0.0


def _with_shuffled_labels(probes: ProbeReadings, rng: np.random.Generator) -> ProbeReadings:
    from dataclasses import replace

    categories = [probes.categories[i] for i in rng.permutation(len(probes.categories))]
    return replace(probes, categories=tuple(categories))


def _shuffled_names(run: Run, probes: ProbeReadings, rng: np.random.Generator) -> list[str]:
    return [a.category for a in annotate(load_crosscoder(run, MAIN), _with_shuffled_labels(probes, rng))]


def _best(run: Run, probes: ProbeReadings, rng: np.random.Generator) -> list[str]:
    """The best category of every latent, named or not."""
    found = annotate(load_crosscoder(run, MAIN), _with_shuffled_labels(probes, rng))
    return [a.best or "unclear" for a in found]
