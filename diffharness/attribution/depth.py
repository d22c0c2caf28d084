"""How deep a gap arises: what of it the residual stream carries already after each layer.

At every layer ℓ the candidate's layers above it read the baseline's state:

    carried(ℓ) = M_c(x^c) − M_c(x^b_ℓ)        gap − carried(ℓ) = M_c(x^b_ℓ) − M_b(x^b), read above ℓ

which is the account's *written* bracket with the candidate's stack first, had the account been made at ℓ (design, "The
main idea"). It is measured in m and scaled to the metric's unit a document, as the account is. No crosscoder is needed.

Legend: G documents, L layers, C columns, R resamples, S strata.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import input_device
from diffharness.attribution.batches import BATCH_TOKENS, Batch, DocumentForm, batches
from diffharness.attribution.surrogates import scale_to_metric
from diffharness.errors import UsageError
from diffharness.statistics.bootstrap import N_RESAMPLES, percentile_interval

_STATE_CELLS = 1 << 28
"""Numbers in the states of all layers on a batch; bounds the memory."""


@dataclass(frozen=True)
class DocumentDepth:
    """One document read at all layers, in units of m; `scale` turns it into the metric's unit."""

    doc_id: int
    m_baseline: float
    """M_b(x^b): the baseline as it is."""
    m_candidate: float
    """M_c(x^c): the candidate as it is."""
    m_above_L: Float[np.ndarray, " L"]
    """M_c(x^b_ℓ) by layer; NaN where the layers above need more than the residual stream."""
    scale: float

    @property
    def carried_raw_L(self) -> Float[np.ndarray, " L"]:
        """What each layer carries, in units of m."""
        return self.m_candidate - self.m_above_L


@dataclass(frozen=True)
class TaskDepth:
    """What every layer carries of a task's gap: estimates for all its documents, with 95 % intervals."""

    n_documents: int
    """Documents that were read."""
    n_task: int
    """Documents of the task, those of constant score included."""
    gap: float
    gap_low: float
    gap_high: float
    carried_L: Float[np.ndarray, " L"]
    carried_raw_L: Float[np.ndarray, " L"]
    low_L: Float[np.ndarray, " L"]
    high_L: Float[np.ndarray, " L"]
    share_low_L: Float[np.ndarray, " L"] | None
    """Interval of carried / gap; none where the gap's own interval holds 0."""
    share_high_L: Float[np.ndarray, " L"] | None


def refused_layers(models: Sequence[nn.Module], n_layers: int) -> dict[int, str]:
    """Layers above which one of the models reads more than the residual stream, each with the reason."""
    refused: dict[int, str] = {}
    for model in models:
        ids_BT = torch.arange(3, device=input_device(model))[None]
        for layer, state_BTD in LayerReader(model, range(n_layers)).read_layers(ids_BT).items():
            try:
                with torch.no_grad():
                    UpperStack(model, layer).logits(ids_BT, state_BTD)
            except UsageError as error:
                refused.setdefault(layer, str(error))
    return refused


def read_depth(
    baseline: nn.Module,
    candidate: nn.Module,
    documents: Sequence[DocumentForm],
    layers: Sequence[int],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[DocumentDepth]:
    """Every document with the baseline's state swapped in at every layer, in the order given.

    One pass of the baseline gives its states of all layers; a layer then costs the candidate's layers above it.

    Args:
        baseline: a causal language model of transformers.
        candidate: another, of the same width.
        documents: what is read.
        layers: where states are swapped, 0-based and ascending; elsewhere `m_above_L` would need a whole state.
        batch_tokens: padded tokens a batch at most; fewer where models are deep and wide.
        progress: called with (documents done, all documents).
    """
    reader = LayerReader(baseline, layers)
    uppers = [UpperStack(candidate, layer) for layer in layers]
    width = baseline.get_input_embeddings().embedding_dim  # pyright: ignore[reportCallIssue]
    budget = max(1, min(batch_tokens, _STATE_CELLS // (max(1, len(layers)) * width)))
    found: dict[int, DocumentDepth] = {}
    for chosen in batches(documents, budget):
        own = [documents[i] for i in chosen]
        found.update(zip(chosen, _read(reader, candidate, uppers, own), strict=True))
        if progress is not None:
            progress(len(found), len(documents))
    return [found[i] for i in range(len(documents))]


@torch.no_grad()
def _read(
    reader: LayerReader, candidate: nn.Module, uppers: Sequence[UpperStack], documents: Sequence[DocumentForm]
) -> list[DocumentDepth]:
    batch = Batch(documents, reader.device)
    m_baseline_G, m_candidate_G = (_m(batch, _logits(m, batch.ids_BT)) for m in (reader.model, candidate))
    states = reader.read_layers(batch.ids_BT)
    m_above_LG = np.stack([_m(batch, upper.logits(batch.ids_BT, states.pop(upper.layer))) for upper in uppers])
    return [
        DocumentDepth(
            document.doc_id,
            float(m_baseline_G[g]),
            float(m_candidate_G[g]),
            m_above_LG[:, g],
            scale_to_metric(document.surrogate, float(m_baseline_G[g]), float(m_candidate_G[g])),
        )
        for g, document in enumerate(documents)
    ]


def _logits(model: nn.Module, ids_BT: Tensor) -> Float[Tensor, "B T V"]:
    return model(ids_BT.to(input_device(model)), use_cache=False).logits


def _m(batch: Batch, logits_BTV: Float[Tensor, "B T V"]) -> Float[np.ndarray, " G"]:
    return batch.path(logits_BTV.to(batch.device)).cpu().numpy()


def task_depth(
    documents: Sequence[DocumentDepth],
    *,
    strata: Mapping[int, Hashable],
    stands_for: Mapping[int, float],
    n_constant: int,
    weights: Mapping[int, float],
    rng: np.random.Generator,
) -> TaskDepth:
    """A task's profile from the documents that were read of it.

    Args:
        documents: those read, at least one.
        strata: by document, what it was drawn among.
        stands_for: by document, how many of its stratum it stands for.
        n_constant: documents whose score can not differ; they carry nothing, at any layer.
        weights: by document, what it weighs in the task's score.
        rng: draws documents anew for the intervals.
    """
    scale_G = np.array([d.scale for d in documents])
    raw_GL = np.stack([d.carried_raw_L for d in documents])
    gap_G = scale_G * [d.m_candidate - d.m_baseline for d in documents]
    weight_G = np.array([weights[d.doc_id] for d in documents])
    n_task = round(sum(stands_for[d.doc_id] for d in documents)) + n_constant
    share_G = np.array([stands_for[d.doc_id] for d in documents]) / n_task
    values_GC = np.hstack([gap_G[:, None], scale_G[:, None] * raw_GL])
    mean_C = share_G @ values_GC
    draws_RC = _draws([strata[d.doc_id] for d in documents], share_G, values_GC, weight_G, n_task, rng)
    interval = percentile_interval(draws_RC, n=len(documents))
    shares = None
    if interval.low[0] > 0 or interval.high[0] < 0:
        kept_RC = draws_RC[draws_RC[:, 0] != 0]  # a draw of documents that all score alike has no shares
        shares = percentile_interval(kept_RC[:, 1:] / kept_RC[:, :1], n=len(documents))
    return TaskDepth(
        n_documents=len(documents),
        n_task=n_task,
        gap=float(mean_C[0]),
        gap_low=float(interval.low[0]),
        gap_high=float(interval.high[0]),
        carried_L=mean_C[1:],
        carried_raw_L=share_G @ raw_GL,
        low_L=interval.low[1:],
        high_L=interval.high[1:],
        share_low_L=None if shares is None else shares.low,
        share_high_L=None if shares is None else shares.high,
    )


def _draws(
    strata_G: Sequence[Hashable],
    share_G: Float[np.ndarray, " G"],
    values_GC: Float[np.ndarray, "G C"],
    weight_G: Float[np.ndarray, " G"],
    n_task: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "R C"]:
    """Means over the task's documents, drawn anew: how many there are of each stratum, and which of it were read.

    Where documents weigh differently (bytes), a draw is divided by its share of the weight, as the task's score is a
    ratio of sums.
    """
    columns_GC = np.hstack([values_GC, weight_G[:, None]])
    members: dict[Hashable, list[int]] = {}
    for g, stratum in enumerate(strata_G):
        members.setdefault(stratum, []).append(g)
    share_S = np.array([share_G[own].sum() for own in members.values()])
    share_S /= max(1.0, share_S.sum())  # sums of shares may end a rounding above 1
    constant = max(0.0, 1 - share_S.sum())  # documents that can not differ
    drawn_RS = rng.multinomial(n_task, [*share_S, constant], size=N_RESAMPLES)[:, :-1] / n_task
    sums_RC = np.zeros((N_RESAMPLES, columns_GC.shape[1]))
    for s, own in enumerate(members.values()):
        times_RG = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=N_RESAMPLES)
        sums_RC += drawn_RS[:, s, None] * (times_RG @ columns_GC[own]) / len(own)
    if np.all(weight_G == weight_G[0]):
        return sums_RC[:, :-1]
    return sums_RC[:, :-1] / (sums_RC[:, -1:] / (share_G @ weight_G))
