"""Stages of a matrix: one crosscoder over a baseline and all candidates, cut down to every pair, and its names.

`joint` is the run over all models, whose folder holds what the pairs share; a pair's run takes texts, activations,
crosscoder and names from it.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness.stages.reading import MAIN, Progress

if TYPE_CHECKING:
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.latents.description import ReadText
    from diffharness.pipeline import Run
    from diffharness.stages.naming import Dictionary
    from diffharness.stages.replaying import Harvested

NAMES = "names.csv"
"""The shared latents' names, in the form that `--annotator file,NAMES` reads."""


def restrict_joint(joint: Run, side: str, folder: Path) -> None:
    """Cut the joint crosscoder down to the baseline and one candidate, as a crosscoder that a run loads."""
    from diffharness.crosscoder import checkpoint
    from diffharness.crosscoder.restriction import restrict

    crosscoder = checkpoint.load(joint.crosscoder(joint.sides).folder).requires_grad_(False)
    train_NMD, heldout_NMD = joint.harvested.training(joint.sides)
    checkpoint.save(restrict(crosscoder, ("baseline", side), train_NMD, heldout_NMD), folder)


def name_joint(joint: Run, folder: Path, progress: Progress) -> None:
    """Name the joint crosscoder's latents once, on what all models read."""
    from diffharness.assembly.latents import Shower
    from diffharness.stages.naming import Dictionary, is_named_by_model, name_latents
    from diffharness.stages.reading import load_crosscoder

    crosscoder = load_crosscoder(joint, joint.sides)
    shower = Shower((), (), joint.session.model("baseline").hf_tokenizer, joint.session.skipped_ids)
    dictionary = (
        _with_examples(joint, crosscoder, progress)
        if is_named_by_model(joint)
        else Dictionary(crosscoder, joint.sides, (), None, shower.shown)
    )
    names, _ = name_latents(joint, dictionary, progress)
    with (folder / NAMES).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["latent", "category", "note"])
        for j, name in enumerate(names):
            if name.is_judged:
                writer.writerow([j, name.category, f"{name.annotator}, over all models: {name.reason}"])


def _with_examples(joint: Run, crosscoder: Crosscoder, progress: Progress) -> Dictionary:
    """What an annotating model is shown: first the latents that some candidate holds otherwise than the baseline."""
    from diffharness.assembly.latents import Shower
    from diffharness.latents.codes import TextEncoder
    from diffharness.latents.description import scale_texts
    from diffharness.latents.examples import ExampleCollector
    from diffharness.latents.identification import IdentificationSettings, identify
    from diffharness.stages.latents import N_NEAR, differing
    from diffharness.stages.naming import Dictionary

    rng, config = np.random.default_rng(joint.config.seed), joint.config
    encoders = [TextEncoder(crosscoder, (0, place)) for place in range(1, len(joint.sides))]
    collector = ExampleCollector(crosscoder.n_latents, rng, n_near=N_NEAR)
    x_NMD = joint.harvested.rows(joint.sides)
    all_sums = scale_texts(encoders, x_NMD, _read_texts(joint), collector, progress)
    settings = IdentificationSettings(config.nu_reconstruction, config.nu_error)
    orders = [differing(identify(crosscoder, sums.finish(rng), settings)) for sums in all_sums]
    in_turn = dict.fromkeys(j for places in zip(*orders, strict=True) for j in places)
    shower = Shower(joint.harvested.texts, (), joint.session.model("baseline").hf_tokenizer, joint.session.skipped_ids)
    return Dictionary(crosscoder, joint.sides, list(in_turn), collector.finish(), shower.shown)


def _read_texts(joint: Run) -> list[ReadText]:
    """What is known of the texts, with the kind of every coded token."""
    from diffharness.activations.positions import template_segments, token_kinds
    from diffharness.activations.rows import coded_places
    from diffharness.latents.description import ReadText

    session = joint.session
    template = template_segments(session.model("baseline").hf_tokenizer)
    return [
        ReadText(
            text.source,
            token_kinds(text.ids, session.special_ids, template)[coded_places(text.ids, session.skipped_ids)],
        )
        for text in joint.harvested.texts
    ]


def take_texts(joint: Run, folder: Path) -> None:
    """Note in a pair's folder which texts it shares with the others; the activations stay where they are."""
    shutil.copyfile(joint.harvest().folder / "corpus.json", folder / "corpus.json")


def pair_harvested(run: Run, joint: Run, side: str) -> Harvested:
    """The shared activations as a pair's run reads them: of the baseline, and of one candidate under that name."""
    from diffharness.stages.replaying import Harvested

    shared = joint.harvested
    called = {"baseline": MAIN[0], side: MAIN[1]}
    spec = replace(shared.store.spec, sides=tuple(called.get(name, name) for name in shared.store.spec.sides))
    return Harvested(run, replace(shared.store, spec=spec), shared.heldout)
