"""What is known of a crosscoder's latents: one pass over the training texts, one over the evaluation documents.

Legend: N tokens, M models, D width, L latents, P probe texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.activations.replay import replay
from diffharness.activations.rows import coded_places
from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents.annotation import Annotation, annotate_by_probes, mark_clear
from diffharness.latents.codes import TextEncoder
from diffharness.latents.documents import DocumentActivations, DocumentSums
from diffharness.latents.examples import ExampleCollector
from diffharness.latents.scaling import ScalingSums
from diffharness.latents.taxonomy import Taxonomy
from diffharness.latents.use import LatentUse, UseSums

CHUNK_TOKENS = 8192
"""Tokens whose codes are in memory together, as entries."""
NEAR_EVERY = 4
"""Near misses are looked for in the first of so many chunks: that reads every pre-activation once more."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReadText:
    """What is known of a text that a store holds activations of."""

    source: str
    """The document that it is of."""
    kinds: NDArray[np.uint8]
    """Kind of each coded token (`activations.positions`)."""


def scale_texts(
    encoders: Sequence[TextEncoder],
    x_NMD: Activations,
    texts: Sequence[ReadText],
    collector: ExampleCollector | None = None,
    progress: Progress | None = None,
) -> list[ScalingSums]:
    """Sums for latent scaling of every encoder's pair, and examples by the first encoder, in one pass.

    Args:
        encoders: one a pair of models, over the same crosscoder.
        x_NMD: raw activations of the texts' coded positions, text after text.
        texts: what is known of them.
        collector: gets the texts' places in `texts` as their numbers.
        progress: called with (tokens done, all tokens).
    """
    all_sums = [ScalingSums(encoder) for encoder in encoders]
    _, document_of_text = np.unique([text.source for text in texts], return_inverse=True)
    start = 0
    for number, chunk in enumerate(_chunks([len(text.kinds) for text in texts])):
        lengths = [len(texts[i].kinds) for i in chunk]
        x_CMD = x_NMD[start : start + sum(lengths)]
        kind_C = np.concatenate([texts[i].kinds for i in chunk])
        for place, (encoder, sums) in enumerate(zip(encoders, all_sums, strict=True)):
            collects = collector is not None and place == 0
            codes = encoder(x_CMD, lengths, near=collects and number % NEAR_EVERY == 0)
            sums.update(codes, document_of_text[chunk].tolist(), kind_C)
            if collector is not None and collects:
                sources = [texts[i].source for i in chunk]
                collector.update(codes, chunk, sources, groups=sources)
        start += len(x_CMD)
        if progress is not None:
            progress(start, len(x_NMD))
    return all_sums


@dataclass(frozen=True)
class EvaluationText:
    """A sequence that tasks made the models read."""

    documents: tuple[int, ...]
    """Numbers of the documents that it belongs to."""
    source: str
    """The first of them, as `task:doc_id`."""


def read_documents(
    encoder: TextEncoder,
    activations: Iterable[tuple[int, Float[Tensor, "N M D"]]],
    texts: Sequence[EvaluationText],
    n_documents: int,
    collector: ExampleCollector | None = None,
    progress: Progress | None = None,
) -> tuple[DocumentActivations, LatentUse]:
    """What the latents do on the evaluation documents, and how either model alone uses them there.

    Args:
        encoder: over the models of the activations.
        activations: each sequence's place in `texts` and its raw activations on coded positions, in any order.
        texts: the distinct sequences.
        n_documents: their documents' number.
        collector: gets the places in `texts`, counted on from −1 downwards, as the texts' numbers.
        progress: called with (sequences done, all sequences).
    """
    n_latents, done = encoder.crosscoder.n_latents, 0
    joint, *own = (DocumentSums(n_latents) for _ in range(3))
    for number, chunk in enumerate(_gathered(activations)):
        places = [place for place, _ in chunk]
        lengths = [len(x_CMD) for _, x_CMD in chunk]
        x_NMD = torch.cat([x_CMD for _, x_CMD in chunk])
        codes = encoder(x_NMD, lengths, near=collector is not None and number % NEAR_EVERY == 0)
        documents = [texts[place].documents for place in places]
        joint.update(codes, documents)
        for sums, model in zip(own, encoder.pair, strict=True):
            sums.update(encoder(x_NMD, lengths, only=model), documents)
        if collector is not None:
            sources = [texts[place].source for place in places]
            collector.update(codes, [-1 - place for place in places], sources, groups=sources)
        done += len(chunk)
        if progress is not None:
            progress(done, len(texts))
    use = UseSums(n_latents, "document")
    use.update_documents((own[0].finish(n_documents), own[1].finish(n_documents)))
    return joint.finish(n_documents), use.finish()


def _chunks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Neighbouring texts of at most `CHUNK_TOKENS` tokens together; a longer text is a chunk of its own."""
    chunk: list[int] = []
    n_tokens = 0
    for place, length in enumerate(lengths):
        if chunk and n_tokens + length > CHUNK_TOKENS:
            yield chunk
            chunk, n_tokens = [], 0
        chunk.append(place)
        n_tokens += length
    if chunk:
        yield chunk


def _gathered(activations: Iterable[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
    """The same in chunks."""
    chunk: list[tuple[int, Tensor]] = []
    n_tokens = 0
    for place, x_CMD in activations:
        chunk.append((place, x_CMD))
        n_tokens += len(x_CMD)
        if n_tokens >= CHUNK_TOKENS:
            yield chunk
            chunk, n_tokens = [], 0
    if chunk:
        yield chunk


@dataclass(frozen=True)
class ProbeReadings:
    """The probes as the models read them: texts and contrasts, those without a coded position left out."""

    x_NMD: Float[Tensor, "N M D"]
    lengths: tuple[int, ...]
    categories: tuple[str | None, ...]
    """Of a text; none of a contrast."""
    pairs: tuple[int | None, ...]
    """Place of a contrast's text."""


def read_probes(
    readers: Sequence[LayerReader],
    probes: Sequence[tuple[Sequence[int], str | None, int | None]],
    skipped_ids: frozenset[int] = frozenset(),
    progress: Progress | None = None,
) -> ProbeReadings:
    """All models' activations on the coded positions of the probes.

    Args:
        readers: one a model.
        probes: token ids, category (none of a contrast) and place of the text that a contrast is to.
        skipped_ids: ids whose positions are left out.
        progress: called with (texts done, all texts).
    """
    kept = [i for i, (ids, _, _) in enumerate(probes) if len(coded_places(ids, skipped_ids))]
    new_place = {old: new for new, old in enumerate(kept)}
    kept = [i for i in kept if probes[i][2] is None or probes[i][2] in new_place]
    new_place = {old: new for new, old in enumerate(kept)}
    found: dict[int, Tensor] = {}
    for batch in replay(readers, [probes[i][0] for i in kept], progress=progress):
        for row, place in enumerate(batch.rows):
            coded = torch.from_numpy(coded_places(probes[kept[place]][0], skipped_ids))
            found[place] = batch.x_BTMD[row].cpu()[coded].float()
    in_order = [found[place] for place in range(len(kept))]
    pairs = [probes[i][2] for i in kept]
    return ProbeReadings(
        x_NMD=torch.cat(in_order),
        lengths=tuple(map(len, in_order)),
        categories=tuple(probes[i][1] for i in kept),
        pairs=tuple(None if pair is None else new_place[pair] for pair in pairs),
    )


def annotate(crosscoder: Crosscoder, probes: ProbeReadings, taxonomy: Taxonomy | None = None) -> tuple[Annotation, ...]:
    """Name the latents by the probes."""
    encoder = TextEncoder(crosscoder)
    peak_blocks, mass_blocks, start = [], [], 0
    for chunk in _chunks(probes.lengths):
        lengths = [probes.lengths[i] for i in chunk]
        peaks = encoder(probes.x_NMD[start : start + sum(lengths)], lengths).peaks
        places = (peaks.text_P.numpy(), peaks.latent_P.numpy())
        shape = (len(chunk), crosscoder.n_latents)
        peak_blocks.append(scipy.sparse.csr_array((peaks.peak_P.numpy(), places), shape))
        mass_blocks.append(scipy.sparse.csr_array((peaks.mass_P.numpy(), places), shape))
        start += sum(lengths)
    maxima_PL, mass_PL = (scipy.sparse.csr_array(scipy.sparse.vstack(blocks)) for blocks in (peak_blocks, mass_blocks))
    found = annotate_by_probes(maxima_PL, probes.categories, pairs=probes.pairs, taxonomy=taxonomy)
    return mark_clear(found, mass_PL, probes.lengths, probes.categories)
