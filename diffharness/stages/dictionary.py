"""Stages of the crosscoder: dictionary trained, latents described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.stages.reading import Progress, load_crosscoder, write_json

if TYPE_CHECKING:
    from diffharness.pipeline import Run


def train(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Train a crosscoder over two sides and measure it on held-out texts."""
    from diffharness.assembly.latents import quality
    from diffharness.crosscoder import checkpoint
    from diffharness.crosscoder.config import TrainingSettings
    from diffharness.crosscoder.quality import measure
    from diffharness.crosscoder.training import train as train_crosscoder
    from diffharness.defaults import crosscoder_size

    x_NMD, heldout_NMD = run.harvested.training(sides)
    n_latents, k = crosscoder_size(x_NMD.shape[2], run.config.latents, run.config.k)
    settings = TrainingSettings(n_latents=n_latents, k=k, seed=run.config.seed)
    crosscoder = train_crosscoder(
        x_NMD,
        settings,
        sides=sides,
        heldout_NMD=heldout_NMD,
        layer=run.session.layer,
        skipped_ids=run.session.skipped_ids,
        device=run.session.device,
        progress=progress,
    )
    checkpoint.save(crosscoder, folder)
    row = quality(crosscoder, measure(crosscoder, heldout_NMD))
    write_json(folder / "quality.json", row.model_dump(mode="json"))


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
