"""Stages of the crosscoder: activations harvested, dictionary trained, latents described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.errors import RunError
from diffharness.stages.reading import MAIN, Progress, load_crosscoder, write_json

if TYPE_CHECKING:
    from diffharness.activations.store import ActivationStore
    from diffharness.pipeline import Run

HELDOUT_SHARE = 0.1


def harvest(run: Run, folder: Path, progress: Progress) -> None:
    """Let all models read the training texts, or take over what was recorded; leave the activations side by side."""
    import torch

    from diffharness.activations.corpus import Text, sample_texts
    from diffharness.activations.replay import replay
    from diffharness.activations.store import StoreWriter

    rng = np.random.default_rng(run.config.seed)
    stores = _recorded_activations(run)
    if run.config.corpus:
        tokenize = run.session.model("baseline").tokenize
        texts = sample_texts(run.config.corpus, tokenize, n_tokens=run.config.train_tokens, rng=rng)
    else:
        read = {
            r.ids: f"{r.task}:{r.doc_id}" for side in MAIN for r in run.load_evaluation(side).ledger if len(r.ids) > 1
        }
        texts = [Text(ids, source) for ids, source in read.items() if all(ids in places for _, places in stores)]
        texts = [texts[i] for i in rng.permutation(len(texts))]
        reach = np.searchsorted(np.cumsum([len(t.ids) - 1 for t in texts]), run.config.train_tokens) + 1
        texts = texts[:reach]
    run.session.check_tokens({i for text in texts for i in text.ids}, "the corpus")
    if len(texts) < 2:
        raise RunError("there are fewer than two texts to train the crosscoder on; give a larger --corpus")
    writer = StoreWriter(folder, sides=run.sides, layer=run.session.layer, texts=texts)
    if stores:
        for i, text in enumerate(texts):
            writer.add_text(i, torch.cat([store.rows_of(places[text.ids]) for store, places in stores], dim=1))
        writer.finish()
        return
    for batch in replay([run.session.reader(s) for s in run.sides], [t.ids for t in texts], progress=progress):
        writer.add(batch)
    writer.finish()


def _recorded_activations(run: Run) -> list[tuple[ActivationStore, dict[tuple[int, ...], int]]]:
    """What `diffharness lm-eval` left of every side at the run's layer, with each sequence's place in it.

    Empty where a corpus is to be read instead, or where a side has none at that layer.
    """
    from diffharness.activations.store import ActivationStore

    folders = [run.recorded[side] / "activations" for side in run.sides if side in run.recorded]
    if run.config.corpus or len(folders) < len(run.sides) or not all((f / "index.parquet").is_file() for f in folders):
        return []
    stores = [ActivationStore.open(folder) for folder in folders]
    if any(store.layer != run.session.layer for store in stores):
        return []
    return [(store, {text.ids: i for i, text in enumerate(store.texts)}) for store in stores]


def activations(run: Run, sides: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """The store's activations of some sides, the mask of held-out rows, and the texts."""
    import torch

    from diffharness.activations.store import ActivationStore

    store = ActivationStore.open(run.harvest().folder)
    heldout_N = store.heldout(HELDOUT_SHARE, np.random.default_rng(run.config.seed))
    return store.of(sides), torch.from_numpy(heldout_N), store.texts


def train(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Train a crosscoder over two sides and measure it on held-out texts."""
    from diffharness.assembly.latents import quality
    from diffharness.crosscoder import checkpoint
    from diffharness.crosscoder.config import TrainingSettings
    from diffharness.crosscoder.quality import measure
    from diffharness.crosscoder.training import train as train_crosscoder
    from diffharness.defaults import crosscoder_size

    x_NMD, heldout_N, _ = activations(run, sides)
    n_latents, k = crosscoder_size(x_NMD.shape[2], run.config.latents, run.config.k)
    settings = TrainingSettings(n_latents=n_latents, k=k, seed=run.config.seed)
    crosscoder = train_crosscoder(
        x_NMD[~heldout_N],
        settings,
        sides=sides,
        heldout_NMD=x_NMD[heldout_N],
        layer=run.session.layer,
        progress=progress,
    )
    checkpoint.save(crosscoder, folder)
    row = quality(crosscoder, measure(crosscoder, x_NMD[heldout_N]))
    write_json(folder / "quality.json", row.model_dump(mode="json"))


def probes_of(run: Run, sides: tuple[str, str], progress: Progress) -> Any:
    """The probes as two sides read them, or none."""
    from diffharness.latents.description import probe_activations
    from diffharness.latents.probes import load_probes

    if run.config.probes is None:
        return None
    probes = load_probes(run.config.probes)
    model = run.session.model("baseline")
    ids = [model.tokenize(p.text) for p in probes]
    run.session.check_tokens({i for text in ids for i in text}, f"--probes {run.config.probes}")
    kept = [i for i, text in enumerate(ids) if len(text) > 1]
    x_NMD, lengths = probe_activations([run.session.reader(s) for s in sides], [ids[i] for i in kept], progress)
    return x_NMD, lengths, [probes[i].category for i in kept]


def describe_latents(run: Run, sides: tuple[str, str], folder: Path, progress: Progress) -> None:
    """Scale, identify and name every latent of a crosscoder."""
    from diffharness.assembly.latents import latent_rows, write_latents
    from diffharness.latents.description import describe

    x_NMD, _, texts = activations(run, sides)
    table = describe(
        load_crosscoder(run, sides), x_NMD, texts, probes=probes_of(run, sides, progress), progress=progress
    )
    rows = latent_rows(table, texts, run.session.model("baseline").hf_tokenizer)
    body = {
        "counts": table.identity.counts(),
        "mass": [float(m) for m in table.identity.mass],
        "latents": [row.model_dump(mode="json") for row in rows],
    }
    write_json(folder / "latents.json", body)
    write_latents(rows, folder / "latents.parquet")
