"""Stage of the latents: scaled, identified, named, and looked at on the evaluation documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.errors import UsageError
from diffharness.stages.naming import Dictionary, is_named_by_model, latent_evidence, name_latents
from diffharness.stages.reading import MAIN, Progress, load_crosscoder, load_seeds, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from diffharness.activations.corpus import Text
    from diffharness.activations.head import Head
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.latents.codes import TextEncoder
    from diffharness.latents.description import ReadText
    from diffharness.latents.identification import LatentIdentity
    from diffharness.pipeline import Run

N_CARDS = 120
"""Latents with examples, neighbours and promoted tokens: those that differ most."""
LABELS = "labels.csv"
"""A table for a person to fill in, who then gives it as `--annotator file,RUN/labels.csv`; never written over."""
N_NEAR = 8
"""Near misses kept a latent; labels are tried on those that are not shown."""


def describe_latents(run: Run, sides: tuple[str, ...], folder: Path, progress: Progress) -> None:
    """Scale, identify and name every latent of a crosscoder, and leave what the report says of them.

    The main pair's latents get cards; of crosscoders with the ancestor, what the category shift counts is kept.
    """
    if sides == MAIN:
        _describe_main(run, folder, progress)
    else:
        _describe_with_ancestor(run, sides, folder, progress)


def _describe_main(run: Run, folder: Path, progress: Progress) -> None:
    from diffharness.assembly.latents import Cards, Shower, latent_rows, write_latents
    from diffharness.latents.annotators.file import write_template
    from diffharness.latents.codes import TextEncoder
    from diffharness.latents.description import read_documents
    from diffharness.latents.examples import ExampleCollector

    crosscoder, documents = load_crosscoder(run, MAIN), _documents(run)
    rng = np.random.default_rng(run.config.seed)
    encoder = TextEncoder(crosscoder)
    collector = ExampleCollector(crosscoder.n_latents, rng, n_near=N_NEAR)
    identity = _identify(run, crosscoder, [encoder], MAIN, collector, rng, progress)[0]
    activations, use = read_documents(
        encoder, _coded(run, documents.texts), documents.readings, len(documents.keys), collector, progress
    )
    shower = Shower(run.harvested.texts, documents.texts, run.session.model("baseline").hf_tokenizer, _skipped(run))
    collected, order = collector.finish(), differing(identity)
    names, summary = name_latents(run, Dictionary(crosscoder, MAIN, order, collected, shower.shown), progress)
    chosen = order[:N_CARDS]
    cards = Cards(
        chosen=chosen,
        examples={j: shower.card(collected.of(j)) for j in chosen},
        neighbours=_neighbours(crosscoder, chosen, identity),
        lens=_lens(run, crosscoder, chosen),
    )
    rows = latent_rows(
        identity,
        names,
        cards,
        density_by_task=activations.density_by_group([task for task, _ in documents.keys]),
        use=use,
        associations=_association(run, activations, documents.keys, rng),
        is_matched=_matched(run, MAIN, crosscoder, identity),
    )
    body = {
        "counts": identity.counts(),
        "annotation": None if summary is None else summary.model_dump(mode="json"),
        "changed": _changed(identity, use, names),
        "latents": [row.model_dump(mode="json") for row in rows],
    }
    write_json(folder / "latents.json", body)
    write_latents(rows, folder / "latents.parquet")
    if not (run.workspace.root / LABELS).exists():
        evidence = [latent_evidence(j, collected, shower.shown) for j in chosen]
        write_template(run.workspace.root / LABELS, evidence)  # no artifact: it is the reader's to change


def _describe_with_ancestor(run: Run, sides: tuple[str, ...], folder: Path, progress: Progress) -> None:
    """One crosscoder of the ancestor and one or both tuned models: specific latents and acquired mass of each."""
    from diffharness.assembly.latents import Shower
    from diffharness.latents.codes import TextEncoder
    from diffharness.latents.examples import ExampleCollector
    from diffharness.latents.shift import acquired_mass

    crosscoder, rng = load_crosscoder(run, sides), np.random.default_rng(run.config.seed)
    encoders = [TextEncoder(crosscoder, (0, place)) for place in range(1, len(sides))]
    collector = ExampleCollector(crosscoder.n_latents, rng, n_near=N_NEAR) if is_named_by_model(run) else None
    identities = _identify(run, crosscoder, encoders, sides, collector, rng, progress)
    shower = Shower(run.harvested.texts, (), run.session.model("baseline").hf_tokenizer, _skipped(run))
    dictionary = Dictionary(
        crosscoder, sides, differing(identities[-1]), None if collector is None else collector.finish(), shower.shown
    )
    names, _ = name_latents(run, dictionary, progress)
    matched_L = _matched(run, sides, crosscoder, identities[-1])
    tuned = {
        side: {
            "is_specific": (np.array(identity.status) == f"{side}-specific").tolist(),
            "acquired": acquired_mass(identity.scaling.presence_LM, tuned=1).tolist(),
            "counts": identity.counts(),
        }
        for side, identity in zip(sides[1:], identities, strict=True)
    }
    body = {
        "counts": _joint_counts(identities),
        "categories": [name.category for name in names],
        "is_matched": None if matched_L is None else matched_L.tolist(),
        "tuned": tuned,
    }
    write_json(folder / "latents.json", body)


def _joint_counts(identities: Sequence[LatentIdentity]) -> dict[str, int]:
    """Latents by status against the ancestor; of three models one that both tuned ones acquired is `other`."""
    if len(identities) == 1:
        return identities[0].counts()
    counts: dict[str, int] = {}
    for first, second in zip(identities[0].status, identities[1].status, strict=True):
        tuned = [status for status in (first, second) if status in ("baseline-specific", "candidate-specific")]
        joint = tuned[0] if len(tuned) == 1 else first if first == second else "other"
        counts[joint] = counts.get(joint, 0) + 1
    return counts


def _identify(
    run: Run,
    crosscoder: Crosscoder,
    encoders: Sequence[TextEncoder],
    sides: tuple[str, ...],
    collector: Any,
    rng: np.random.Generator,
    progress: Progress,
) -> list[LatentIdentity]:
    """One pass over the training texts."""
    from diffharness.latents.description import scale_texts
    from diffharness.latents.identification import IdentificationSettings, identify

    settings = IdentificationSettings(run.config.nu_reconstruction, run.config.nu_error)
    all_sums = scale_texts(encoders, run.harvested.rows(sides), _read_texts(run), collector, progress)
    return [identify(crosscoder, sums.finish(rng), settings) for sums in all_sums]


def _read_texts(run: Run) -> list[ReadText]:
    """What is known of the training texts, with the kind of every coded token."""
    from diffharness.activations.positions import template_segments, token_kinds
    from diffharness.activations.rows import coded_places
    from diffharness.latents.description import ReadText

    template = template_segments(run.session.model("baseline").hf_tokenizer)
    special, skipped = run.session.special_ids, _skipped(run)
    return [
        ReadText(text.source, token_kinds(text.ids, special, template)[coded_places(text.ids, skipped)])
        for text in run.harvested.texts
    ]


def _skipped(run: Run) -> frozenset[int]:
    return run.session.skipped_ids


@dataclass(frozen=True)
class _Documents:
    """The evaluation documents and the distinct sequences that they made either model read."""

    keys: list[tuple[str, int]]
    texts: list[Text]
    readings: list[Any]


def _documents(run: Run) -> _Documents:
    from diffharness.activations.corpus import Text
    from diffharness.latents.description import EvaluationText

    numbers: dict[tuple[str, int], int] = {}
    read: dict[tuple[int, ...], set[int]] = {}
    for side in MAIN:
        for reading in run.load_evaluation(run.shared(side)).ledger:
            if len(reading.ids) > 1:
                number = numbers.setdefault((reading.task, reading.doc_id), len(numbers))
                read.setdefault(reading.ids, set()).add(number)
    keys = list(numbers)
    readings = [EvaluationText(tuple(sorted(own)), ":".join(map(str, keys[min(own)]))) for own in read.values()]
    texts = [Text(ids, reading.source) for ids, reading in zip(read, readings, strict=True)]
    return _Documents(keys, texts, readings)


def _coded(run: Run, texts: Sequence[Text]) -> Iterator[tuple[int, Tensor]]:
    """Activations of the main pair on the coded positions of the evaluation's sequences."""
    import torch

    from diffharness.activations.rows import coded_places
    from diffharness.stages.replaying import RunTexts

    columns = [run.sides.index(side) for side in MAIN]
    for place, x in RunTexts(run)(texts):
        coded = torch.from_numpy(coded_places(texts[place].ids, _skipped(run)))
        yield place, x[run.session.layer][coded][:, columns].float()


def differing(identity: LatentIdentity) -> list[int]:
    """Latents in the order of how differently the two models hold them: specific ones first, dead ones last."""
    presence_LM = identity.scaling.presence_LM
    total_M = np.maximum(presence_LM.sum(axis=0), 1e-30)
    change_L = np.abs(np.diff(presence_LM / total_M, axis=1)[:, 0])
    is_specific = np.char.endswith(np.array(identity.status), "-specific")
    return np.lexsort((-change_L, ~is_specific)).tolist()


def _neighbours(
    crosscoder: Crosscoder, chosen: Sequence[int], identity: LatentIdentity
) -> list[list[tuple[int, float]]]:
    from diffharness.latents.neighbours import nearest

    index_Cn, cosine_Cn = nearest(crosscoder, chosen, alive_L=identity.scaling.n_active_L > 0)
    return [
        [(int(j), float(cosine)) for j, cosine in zip(near, cosines, strict=True) if j >= 0]
        for near, cosines in zip(index_Cn, cosine_Cn, strict=True)
    ]


def _lens(run: Run, crosscoder: Crosscoder, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Tokens that decoders promote, by each model's own head; none of a model whose head can not be read alone."""
    from diffharness.activations.head import head
    from diffharness.latents.lens import latent_lens

    heads: dict[str, Head] = {}
    for side in MAIN:
        try:
            heads[side] = head(run.session.model(side).hf_model)
        except UsageError as reason:
            run.progress.say(f"no promoted tokens for the {side}: {reason}")
    d_LMD = crosscoder.raw_decoder().detach()[list(chosen)]
    decoders = {side: d_LMD[:, place] for place, side in enumerate(MAIN)}
    return latent_lens(heads, decoders, run.session.model("baseline").hf_tokenizer)


def _matched(run: Run, sides: tuple[str, ...], crosscoder: Crosscoder, identity: LatentIdentity) -> np.ndarray | None:
    """Which latents the trainings with other seeds have too; none with a single seed."""
    from diffharness.latents.neighbours import found_again

    others = load_seeds(run, sides)
    return found_again(crosscoder, others, alive_L=identity.scaling.n_active_L > 0) if others else None


def _association(run: Run, activations: Any, keys: Sequence[tuple[str, int]], rng: np.random.Generator) -> Any:
    from diffharness.latents.association import associate
    from diffharness.stages.scoring import outcomes

    outcome_D = outcomes(run, keys)
    known = np.flatnonzero(np.isfinite(outcome_D) & (activations.n_tokens_D > 0))
    tasks = np.array([task for task, _ in keys])
    return associate(activations.mean_DL[known], outcome_D[known], rng, strata_D=tasks[known])


def _changed(identity: LatentIdentity, use: Any, names: Sequence[Any]) -> dict[str, Any]:
    """The finding on latents that both models have: which are used differently."""
    from diffharness.latents.use import changed_sentence, most_changed

    shared_L = np.array(identity.status) == "shared"
    chosen = most_changed(use, shared_L)
    n_baseline, n_candidate = (len(identity.specific_to(side)) for side in MAIN)
    return {
        "n_specific_baseline": n_baseline,
        "n_specific_candidate": n_candidate,
        "sentence": changed_sentence(n_baseline, n_candidate, use, chosen, [name.category for name in names]),
        "latents": chosen,
    }
