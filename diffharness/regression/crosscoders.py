"""Whether a run's categories are those of the blessed run, and which categories there are."""

from __future__ import annotations

from pathlib import Path

from diffharness.errors import UsageError
from diffharness.latents.taxonomy import UNCLEAR, load_taxonomy
from diffharness.regression.baseline import Baseline
from diffharness.regression.blessing import label_hash
from diffharness.regression.scores import FinishedRun, crosscoder_fingerprint


def known_categories(run: FinishedRun, baseline: Baseline | None) -> set[str]:
    """Names that a latent of the run can have: of its report, its taxonomy, and the blessed run."""
    report = run.report
    found = {UNCLEAR, *(c.name for c in report.categories), *(latent.category for latent in report.latents)}
    found |= {part.category for task in report.tasks for part in task.components if part.category is not None}
    if baseline is not None:
        found |= {part.category for task in baseline.tasks for part in task.contributions}
        found |= set(baseline.crosscoder.n_specific) if baseline.crosscoder is not None else set()
    own = report.provenance.config.get("taxonomy")
    try:
        found |= set(load_taxonomy(Path(str(own)) if own is not None else None).names)
    except UsageError:  # the run's own file is elsewhere; its report names what it found
        return found
    return found


def crosscoder_notes(run: FinishedRun, baseline: Baseline | None) -> tuple[str, ...]:
    """Whether the two runs' contributions are of the same latents, and whether these are stale."""
    notes = []
    quality = run.report.quality[0] if run.report.quality else None
    if quality is not None and quality.stale is not None:
        notes.append(
            f"the crosscoder is stale: {quality.stale}; train one on this pair (leave --crosscoder out); its "
            "categories are of other latents than the blessed run's"
        )
    blessed = baseline.crosscoder if baseline is not None else None
    here = crosscoder_fingerprint(run.folder)
    if blessed is None or here is None:
        return tuple(notes)
    if here != blessed.fingerprint:
        notes.append(
            f"the run's crosscoder ({here}) is not the blessed run's ({blessed.fingerprint}), so contributions of "
            f"categories are of other latents; for the same ones run with --crosscoder {blessed.location}"
        )
    elif label_hash(run) != blessed.names:
        notes.append(
            "the run has the blessed run's crosscoder, but other names of its latents, so categories are not quite the "
            f"same; for the same names run with --annotator file,{Path(blessed.location).parent / 'latents.parquet'}"
        )
    else:
        notes.append("the run has the blessed run's crosscoder and its names: contributions are comparable")
    return tuple(notes)
