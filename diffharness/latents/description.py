"""Everything that is known of a crosscoder's latents, from one pass over the store and one over the probes.

Legend: N tokens, M models, D width, L latents, P probe texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import LayerReader
from diffharness.activations.replay import replay
from diffharness.activations.rows import coded_places
from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents.annotation import Annotation, annotate_by_probes
from diffharness.latents.examples import CollectedExamples, ExampleCollector, text_maxima
from diffharness.latents.identification import LatentIdentity, identify
from diffharness.latents.scaling import ScalingSums, leaning
from diffharness.latents.taxonomy import UNCLEAR

CHUNK_TOKENS = 8192
N_EXAMPLES = 5


@dataclass(frozen=True)
class LatentTable:
    """One row a latent."""

    identity: LatentIdentity
    annotations: tuple[Annotation, ...]
    examples: CollectedExamples

    @property
    def categories(self) -> tuple[str, ...]:
        """The latents' names."""
        return tuple(a.category for a in self.annotations)


def probe_activations(
    readers: Sequence[LayerReader],
    probes: Sequence[Sequence[int]],
    skipped_ids: frozenset[int] = frozenset(),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[Tensor, "N M D"], tuple[int, ...]]:
    """All models' activations on the coded positions of the probe texts, and each text's number of them.

    Args:
        readers: one a model.
        probes: the texts' token ids.
        skipped_ids: ids whose positions are left out.
        progress: called with (texts done, all texts).
    """
    found: dict[int, Tensor] = {}
    for batch in replay(readers, probes, progress=progress):
        for row, text in enumerate(batch.rows):
            places = torch.from_numpy(coded_places(probes[text], skipped_ids))
            found[text] = batch.x_BTMD[row].cpu()[places].float()
    in_order = [found[i] for i in range(len(probes))]
    return torch.cat(in_order), tuple(len(x) for x in in_order)


def describe(
    crosscoder: Crosscoder,
    x_NMD: Activations,
    texts: Sequence[tuple[str, int]],
    *,
    probes: tuple[Float[Tensor, "N M D"], tuple[int, ...], Sequence[str]] | None,
    n_examples: int = N_EXAMPLES,
    progress: Callable[[int, int], None] | None = None,
) -> LatentTable:
    """Scale, identify and name every latent, and keep the texts on which it fires most.

    Args:
        crosscoder: over the models of `x_NMD`, in that order.
        x_NMD: raw activations (N, M, D) of the texts' coded positions, text after text.
        texts: source and number of coded positions of each.
        probes: activations and lengths from `probe_activations`, and the texts' categories; without them
            every latent stays `unclear`.
        n_examples: texts kept a latent.
        progress: called with (tokens done, all tokens).
    """
    sums = ScalingSums.zeros(crosscoder)
    collector = ExampleCollector(crosscoder.n_latents, n_examples)
    start = 0
    for chunk in _text_chunks(texts):
        lengths = [texts[i][1] for i in chunk]
        x = x_NMD[start : start + sum(lengths)]
        f = crosscoder.encode(x)
        sums.update(crosscoder, x, f)
        collector.update(f, lengths, [str(i) for i in chunk], [texts[i][0] for i in chunk])
        start += len(x)
        if progress is not None:
            progress(start, len(x_NMD))
    identity = identify(crosscoder, sums.finish(crosscoder, leaning(crosscoder)))
    return LatentTable(identity, annotate(crosscoder, probes), collector.finish())


def annotate(
    crosscoder: Crosscoder, probes: tuple[Float[Tensor, "N M D"], tuple[int, ...], Sequence[str]] | None
) -> tuple[Annotation, ...]:
    """Name the latents by the probes, or call all of them unclear where there are none."""
    if probes is None:
        nothing = Annotation(UNCLEAR, None, None, None, None, None, "no probes were given to name it by")
        return (nothing,) * crosscoder.n_latents
    x_NMD, lengths, categories = probes
    maxima_PL = text_maxima(crosscoder.encode(x_NMD), lengths)
    return annotate_by_probes(maxima_PL.cpu().numpy(), categories)


def _text_chunks(texts: Sequence[tuple[str, int]]) -> list[list[int]]:
    chunks: list[list[int]] = [[]]
    n_tokens = 0
    for i, (_, length) in enumerate(texts):
        if n_tokens + length > CHUNK_TOKENS and chunks[-1]:
            chunks.append([])
            n_tokens = 0
        chunks[-1].append(i)
        n_tokens += length
    return chunks
