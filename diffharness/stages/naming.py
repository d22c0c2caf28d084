"""Who names the latents: the annotators of a run, asked and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.stages.reading import MAIN, Progress

if TYPE_CHECKING:
    from diffharness.config import RunConfig
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.latents.annotation import Annotation
    from diffharness.latents.annotators.evidence import LatentEvidence
    from diffharness.latents.description import ProbeReadings
    from diffharness.latents.examples import CollectedExamples, LatentExample
    from diffharness.latents.taxonomy import Taxonomy
    from diffharness.pipeline import Run
    from diffharness.report import schema

ANSWERS = "annotations"
"""Folder of a run in which answers of annotating models are kept."""

MOST_LATENTS = 1 << 20
"""Of a crosscoder whose size is not known yet, when a person's table is looked through."""

Shown = Callable[["LatentExample"], tuple[tuple[str, ...], tuple[float, ...]]]
"""An example's tokens and activations."""


def taxonomy_of(run: Run) -> Taxonomy:
    """The categories that a run knows."""
    from diffharness.latents.taxonomy import load_taxonomy

    return load_taxonomy(run.config.taxonomy)


def is_named_by_probes(run: Run) -> bool:
    """Whether the names of the latents are those of probes."""
    return run.config.annotator[0] == "probe"


def is_named_by_model(run: Run) -> bool:
    """Whether they are those of a language model."""
    from diffharness.latents.annotators.spec import parse_annotator

    return run.config.annotator[0] != "none" and parse_annotator(run.config.annotator[0]).kind == "lm"


def check_annotators(config: RunConfig) -> None:
    """Find annotators that can not work, before anything long.

    Raises:
        UsageError: naming the annotator.
    """
    from diffharness.latents.annotators.file import annotate_by_file
    from diffharness.latents.annotators.spec import parse_annotator
    from diffharness.latents.probes import run_probes
    from diffharness.latents.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(config.taxonomy)
    for spec in config.annotator:
        if spec == "none":
            continue
        parsed = parse_annotator(spec)
        if parsed.kind == "file":
            annotate_by_file(Path(parsed.argument), config.latents or MOST_LATENTS, taxonomy)
        elif parsed.kind == "lm":
            from diffharness.evaluation.generating import check_generator

            check_generator(spec)
    run_probes(config.probes, config.taxonomy)


def probes_of(run: Run, sides: tuple[str, ...], progress: Progress) -> ProbeReadings:
    """The probes as some sides read them."""
    from diffharness.latents.description import read_probes
    from diffharness.latents.probes import run_probes

    model = run.session.model("baseline")
    rows: list[tuple[list[int], str | None, int | None]] = []
    for probe in run_probes(run.config.probes, run.config.taxonomy):
        rows.append((model.tokenize(probe.text), probe.category, None))
        if probe.contrast is not None:
            rows.append((model.tokenize(probe.contrast), None, len(rows) - 1))
    where = f"--probes {run.config.probes}" if run.config.probes is not None else "a built-in probe (see --probes)"
    run.session.check_tokens({i for ids, _, _ in rows for i in ids}, where)
    return read_probes([run.session.reader(side) for side in sides], rows, run.session.skipped_ids, progress)


@dataclass(frozen=True)
class Dictionary:
    """What an annotator may look at."""

    crosscoder: Crosscoder
    sides: tuple[str, ...]
    order: Sequence[int]
    """Latents, those to be named first in front."""
    collected: CollectedExamples | None
    """Needed by annotating models alone."""
    shown: Shown


def name_latents(
    run: Run, dictionary: Dictionary, progress: Progress
) -> tuple[tuple[Annotation, ...], schema.Annotation | None]:
    """The latents' names by the run's (first) annotator, and what is to be said about the naming.

    A person's labels are of the main crosscoder's latents; those of another crosscoder are named by probes.
    """
    from diffharness.report import schema

    if run.config.annotator[0] == "none":
        from diffharness.latents.annotation import Annotation

        nobody = Annotation("unclear", reason="nobody was asked (--annotator none)", annotator="none")
        return (nobody,) * dictionary.crosscoder.n_latents, None
    specs = run.config.annotator if dictionary.sides == MAIN else run.config.annotator[:1]
    (first, asked), *others = [_annotations(run, spec, dictionary, progress) for spec in specs]
    named = [a for a in first if a.category != "unclear"]
    scores = [a.detection for a in named if a.detection is not None]
    summary = schema.Annotation(
        annotator=_shown_name(first),
        n_named=len(named),
        n_unclear=len(first) - len(named),
        n_clear=sum(a.is_clear for a in named) if first[0].annotator == "probe" else None,
        detection=float(np.mean([d.score for d in scores])) if scores else None,
        detection_chance=scores[0].chance if scores else None,
        agreement=_agreement(first, others[0][0], run.config.seed) if others else None,
        **asked,
    )
    return first, summary


def _annotations(
    run: Run, spec: str, dictionary: Dictionary, progress: Progress
) -> tuple[tuple[Annotation, ...], dict[str, Any]]:
    """One annotator's names, and what asking took."""
    from diffharness.latents.annotators.file import annotate_by_file
    from diffharness.latents.annotators.spec import parse_annotator
    from diffharness.latents.description import annotate

    parsed, n_latents = parse_annotator(spec), dictionary.crosscoder.n_latents
    if parsed.kind == "lm":
        return _ask_model(run, spec, dictionary, progress)
    if parsed.kind == "file" and dictionary.sides == MAIN:
        found = annotate_by_file(Path(parsed.argument), n_latents, taxonomy_of(run))
    else:
        found = annotate(dictionary.crosscoder, probes_of(run, dictionary.sides, progress), taxonomy_of(run))
    return found, {"n_asked": n_latents}


def _ask_model(
    run: Run, spec: str, dictionary: Dictionary, progress: Progress
) -> tuple[tuple[Annotation, ...], dict[str, Any]]:
    """Names by a language model: it is said what that will take before it is asked."""
    from diffharness.evaluation.generating import load_generator
    from diffharness.latents.annotation import Annotation
    from diffharness.latents.annotators.cache import AnswerCache
    from diffharness.latents.annotators.language_model import annotate_by_model, estimate

    assert dictionary.collected is not None
    taxonomy, chosen = taxonomy_of(run), list(dictionary.order)[: run.config.annotate]
    evidence = [latent_evidence(j, dictionary.collected, dictionary.shown) for j in chosen]
    generator = load_generator(spec, device=run.config.device)
    cache = AnswerCache.open(run.workspace.root / ANSWERS, generator.name, generator.spec)
    run.progress.say(estimate(evidence, taxonomy, cache, seed=run.config.seed).before)
    answers = annotate_by_model(evidence, taxonomy, generator, cache=cache, seed=run.config.seed, progress=progress)
    cost = answers.cost
    for sentence in (cost.after, *answers.notes):
        run.progress.say(sentence)
    left = Annotation(
        "unclear",
        reason=f"not among the {len(chosen)} latents that the annotator was asked about (--annotate)",
        annotator=f"lm: {generator.name}",
        is_judged=False,
    )
    found = [left] * dictionary.crosscoder.n_latents
    for j, annotation in zip(answers.indices, answers.annotations, strict=True):
        found[j] = annotation
    took = {
        "n_asked": len(chosen),
        "n_calls": cost.n_calls,
        "n_cached": cost.n_cached,
        "n_tokens": cost.n_prompt_tokens + cost.n_answer_tokens,
    }
    return tuple(found), took


N_SHOWN_TOP, N_CONTRASTS = 2, 3
"""Of the top examples and near misses, those that an annotator is shown; its name is tried on the others."""


def latent_evidence(latent: int, collected: CollectedExamples, shown: Shown) -> LatentEvidence:
    """What an annotator may know of a latent: some texts to name it by, others to try the name on."""
    from diffharness.latents.annotators.evidence import LatentEvidence, ShownText

    texts = {"top": [], "quantile": [], "near miss": []}
    for example in collected.of(latent):
        texts[example.kind].append((example, ShownText(*shown(example))))
    top = [text for _, text in texts["top"]]
    sample = sorted(texts["quantile"], key=lambda found: -found[0].peak)
    near = [text for _, text in texts["near miss"]]
    return LatentEvidence(
        index=latent,
        quantiles=(*top[:N_SHOWN_TOP], *(text for _, text in sample[::2])),
        contrasts=tuple(near[:N_CONTRASTS]),
        heldout_active=(*top[N_SHOWN_TOP:], *(text for _, text in sample[1::2])),
        heldout_silent=tuple(near[N_CONTRASTS:]),
    )


def _agreement(first: Sequence[Annotation], second: Sequence[Annotation], seed: int) -> schema.Agreement:
    """Of two annotators, over the latents that both judged."""
    from diffharness.report import schema
    from diffharness.statistics.agreement import agreement

    both = [(a, b) for a, b in zip(first, second, strict=True) if a.is_judged and b.is_judged]
    names = [[pair[i].category for pair in both] for i in (0, 1)]
    found = agreement(names[0], names[1], np.random.default_rng(seed)) if both else None
    reason = "both gave every latent the same name" if both else "no latent was judged by both"
    interval = None
    if found is not None and found.low is not None and found.high is not None:
        interval = schema.Interval(low=found.low, high=found.high, method="bootstrap over latents")
    return schema.Agreement(
        other=_shown_name(second),
        kappa=None if found is None else found.kappa,
        kappa_interval=interval,
        n=len(both),
        reason=None if found is not None and found.kappa is not None else reason,
    )


def _shown_name(annotations: Sequence[Annotation]) -> str:
    return annotations[0].annotator
