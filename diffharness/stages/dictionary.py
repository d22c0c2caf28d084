"""Stages of the crosscoder: trained, or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffharness.stages.reading import MAIN, Progress, write_json

if TYPE_CHECKING:
    from diffharness.activations.splicing import SpliceLoss
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.pipeline import Run
    from diffharness.progress import Report


def train(run: Run, sides: tuple[str, ...], folder: Path, progress: Report) -> None:
    """Train crosscoders over two or three sides, one a seed, and measure the first on held-out texts."""
    from diffharness.stages.quality import measured
    from diffharness.stages.training import train_seeds, training_settings

    x_NMD, heldout_NMD = run.harvested.training(sides)
    session = run.session
    trained = train_seeds(
        x_NMD,
        heldout_NMD,
        training_settings(run.config, x_NMD.shape[2], len(sides), seed=run.config.seed),
        folder,
        progress,
        n_seeds=run.config.seeds,
        sides=sides,
        layers=(session.layer,),
        models=tuple(session.names[side] for side in sides),
        skipped_ids=session.skipped_ids,
        device=session.device,
    )
    row = measured(trained, heldout_NMD, splice=_splice(run, trained[0], sides))
    write_json(folder / "quality.json", row.model_dump(mode="json"))


def load(run: Run, folder: Path, progress: Progress) -> None:
    """Take a crosscoder that was trained before, under the run's names, and measure it on the run's texts."""
    from diffharness.crosscoder import checkpoint
    from diffharness.crosscoder.loading import complete
    from diffharness.stages.quality import measured

    session, loaded = run.session, run.session.loaded
    assert loaded is not None
    x_NMD, heldout_NMD = run.harvested.training(MAIN)
    crosscoder = loaded.open(device=session.device)
    changes = {"sides": MAIN, "layers": (session.layer,), "skipped_ids": tuple(sorted(session.skipped_ids))}
    crosscoder.config = crosscoder.config.model_copy(update=changes)
    crosscoder = complete(crosscoder, x_NMD)
    progress(1, 2)
    checkpoint.save(crosscoder, folder)
    row = measured(
        [crosscoder],
        heldout_NMD,
        splice=_splice(run, crosscoder, MAIN),
        loaded_from=loaded.origin([session.names[side] for side in MAIN]),
        stated=loaded.stated_quality,
    )
    write_json(folder / "quality.json", row.model_dump(mode="json"))


def _splice(run: Run, crosscoder: Crosscoder, sides: tuple[str, ...]) -> dict[str, SpliceLoss]:
    """What reconstructions cost the models on some held-out texts."""
    from diffharness.activations.splicing import SPLICE_TEXTS
    from diffharness.stages.quality import spliced

    return spliced(run.session, crosscoder, sides, run.harvested.heldout_ids(SPLICE_TEXTS))
