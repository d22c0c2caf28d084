"""The stage of `--ablate`: the candidate without some categories, scored by lm-eval on all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness.errors import UsageError
from diffharness.stages.checking import CANDIDATE, ArmScorer
from diffharness.stages.reading import Progress, read_categories, write_json
from diffharness.stages.scoring import primary

if TYPE_CHECKING:
    from diffharness.config import RunConfig
    from diffharness.pipeline import Run


def check_ablate(config: RunConfig) -> None:
    """Find names of categories that a run can not come to know, before anything long.

    Raises:
        UsageError: naming the first, and those that there are.
    """
    from diffharness.latents.taxonomy import closest

    if not all(map(named, config.ablate)):
        raise UsageError("--ablate names no category; give one or several, joined by commas")
    known = _known(config) if config.ablate else ()
    for name in (name for model in config.ablate for name in named(model)):
        if name.isdecimal():
            if config.latents is not None and int(name) >= config.latents:
                raise UsageError(f"--ablate {name}: the latents are numbered 0 to {config.latents - 1}")
        elif name not in known:
            hint = closest(name, known, f"there are: {', '.join(known)}, and numbers of latents")
            raise UsageError(f"--ablate {name!r} is no category; {hint}")


def _known(config: RunConfig) -> tuple[str, ...]:
    """The categories that latents may be named by."""
    from diffharness.latents.annotators.file import annotate_by_file
    from diffharness.latents.annotators.spec import parse_annotator
    from diffharness.latents.probes import run_probes
    from diffharness.latents.taxonomy import UNCLEAR, load_taxonomy
    from diffharness.stages.naming import MOST_LATENTS

    taxonomy = load_taxonomy(config.taxonomy)
    names = [*taxonomy.names, UNCLEAR, *(probe.category for probe in run_probes(config.probes, config.taxonomy))]
    spec = config.annotator[0]
    if spec != "none" and parse_annotator(spec).kind == "file":
        labels = annotate_by_file(Path(parse_annotator(spec).argument), config.latents or MOST_LATENTS, taxonomy)
        names += {label.category for label in labels}
    return taxonomy.in_order(names)


def named(model: str) -> tuple[str, ...]:
    """The categories, or numbers of latents, of one `--ablate`."""
    return tuple(name.strip() for name in model.split(",") if name.strip())


def ablation(run: Run, folder: Path, progress: Progress) -> None:
    """Score the candidate with each set of categories put back to the baseline's version.

    Raises:
        UsageError: a latent that the crosscoder does not have.
        RunError: with nothing changed the candidate does not reproduce its scores.
    """
    from diffharness.assembly.ablations import ablated_model
    from diffharness.attribution.interventions import Arm
    from diffharness.evaluation import comparison
    from diffharness.latents.choosing import chosen_latents

    categories = read_categories(run)
    wanted = [named(model) for model in run.config.ablate]
    present = [[name for name in names if name in categories or name.isdecimal()] for names in wanted]
    chosen = [chosen_latents(names, categories, "--ablate") if names else () for names in present]
    scorer = ArmScorer(run, 1 + sum(map(bool, chosen)), progress)
    baseline, candidate = run.load_evaluation("baseline"), scorer.reproduced(CANDIDATE)
    models = []
    for names, latents in zip(wanted, chosen, strict=True):
        found, baselines = [], []
        if latents:
            ablated = scorer.score(CANDIDATE, Arm("put_back", latents))
            for info in candidate.tasks:
                metric = primary(run, info)
                aggregation = run.session.tasks.aggregation(info.name, metric.metric)
                rng = np.random.default_rng(run.config.seed)
                found.append(comparison.compare(info.name, metric, candidate, ablated, aggregation, rng))
                baselines.append(baseline.task(info.name).scores[str(metric)])
        models.append(ablated_model(names, len(latents), found, baselines).model_dump(mode="json"))
    write_json(folder / "ablations.json", models)
