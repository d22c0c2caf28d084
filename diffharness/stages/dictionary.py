"""Stages of the crosscoder: dictionary trained, latents described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.stages.reading import MAIN, Progress, load_crosscoder, write_json

if TYPE_CHECKING:
    from diffharness.activations.splicing import SpliceLoss
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.pipeline import Run
    from diffharness.progress import Report


def train(run: Run, sides: tuple[str, str], folder: Path, progress: Report) -> None:
    """Train crosscoders over two sides, one a seed, and measure the first on held-out texts."""
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
        n_seeds=run.config.seeds if sides == MAIN else 1,
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


def probes_of(run: Run, sides: tuple[str, str], progress: Progress) -> Any:
    """The probes as two sides read them, or none."""
    from diffharness.activations.rows import coded_places
    from diffharness.latents.description import probe_activations
    from diffharness.latents.probes import load_probes

    if run.config.probes is None:
        return None
    probes = load_probes(run.config.probes)
    model = run.session.model("baseline")
    ids = [model.tokenize(p.text) for p in probes]
    run.session.check_tokens({i for text in ids for i in text}, f"--probes {run.config.probes}")
    skipped = run.session.skipped_ids
    kept = [i for i, text in enumerate(ids) if len(coded_places(text, skipped))]
    readers = [run.session.reader(s) for s in sides]
    x_NMD, lengths = probe_activations(readers, [ids[i] for i in kept], skipped, progress)
    return x_NMD, lengths, [probes[i].category for i in kept]


def describe_latents(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Scale, identify and name every latent of a crosscoder."""
    from diffharness.activations.rows import coded_places
    from diffharness.assembly.latents import latent_rows, write_latents
    from diffharness.latents.description import describe

    texts, skipped = run.harvested.texts, run.session.skipped_ids
    table = describe(
        load_crosscoder(run, sides),
        run.harvested.rows(sides),
        [(text.source, len(coded_places(text.ids, skipped))) for text in texts],
        probes=probes_of(run, sides, progress),
        progress=progress,
    )
    rows = latent_rows(table, texts, run.session.model("baseline").hf_tokenizer, skipped)
    body = {
        "counts": table.identity.counts(),
        "mass": [float(m) for m in table.identity.mass],
        "latents": [row.model_dump(mode="json") for row in rows],
    }
    write_json(folder / "latents.json", body)
    write_latents(rows, folder / "latents.parquet")
