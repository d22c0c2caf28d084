"""The path integral: a document's gap split over what the candidate writes at the layer and how it reads it above.

With M_b and M_c a document's score under either model's layers above, and x^b and x^c the states at the layer,

    gap = M_c(x^c) − M_b(x^b) = [M_c(x^c) − M_c(x^b)] + [M_c(x^b) − M_b(x^b)]     candidate's stack first
                              = [M_b(x^c) − M_b(x^b)] + [M_c(x^c) − M_b(x^c)]     baseline's stack first
                                        written                  read and prior

*Written*: integrated gradients along the straight line from x^b to x^c; latent j gets Σ_t ⟨ḡ_t, f_tj (d_j^c − d_j^b)⟩,
bias ⟨ḡ, Δb⟩, error ⟨ḡ, Δε⟩ with the whole difference at positions without a code. *Read*: lines from what the same
model makes of a few other texts, r^m (`references`), to x^m under both stacks, the two mean gradients subtracted;
latent j gets Σ_t ⟨ḡ^c_t − ḡ^b_t, (f_tj(x) − f_tj(r)) d_j^m⟩, the error likewise. *Prior*: what the stacks differ by at
the lines' starts. Without other texts the line starts at the bias b^m. Positions without a code (the first of a
sequence, skipped ids) keep the model's own state along it: no latent describes them, they are alike in all documents,
and a line from 0, where norm layers jump, would take more nodes. Nothing is a remainder: what the quadrature misses is
kept apart as the residual (design, "The main idea").

Legend: B rows, T positions, D width, L latents, G documents, S = 2 stacks, X states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import UpperStack
from diffharness.attribution.batches import BATCH_TOKENS, Batch, DocumentForm, Rows, batches
from diffharness.attribution.line import Bracket, Line, Split, Watch, mean_bracket
from diffharness.attribution.references import References
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import scale_to_metric

TOLERANCE = 0.01
"""Residual over max(|written| + |upper|, 0.01 unit) at which a document's quadrature is called complete."""
WRITTEN_NODES = (8, 16, 32, 64)
"""Quadrature orders, tried until complete. Sums converge before parts do, hence not fewer to begin with."""
READ_NODES = (48, 96, 192, 384)
"""The same for each read line, which is long: from one text's states to another's."""
X_B, X_C, START_B, START_C, SECOND_B, SECOND_C = range(6)
"""States that both stacks read: each model's own; the read line's starts (their mean); its own without its latents."""
ORDERS = ("candidate", "baseline")
"""Whose stack comes first: what is written is measured under it."""


@dataclass(frozen=True)
class DocumentAccount:
    """One document's account under both orders, in units of m; `scale` turns it into the metric's unit."""

    doc_id: int
    m_SX: Float[np.ndarray, "S X"]
    """m under the baseline's and the candidate's stack (rows), of the states X_B … SECOND_C (columns)."""
    written: tuple[Bracket, Bracket]
    """By order."""
    read: tuple[Bracket, Bracket]
    """By order; without a bias."""
    scale: float

    @property
    def m_baseline(self) -> float:
        """M_b(x^b): the baseline as it is."""
        return float(self.m_SX[0, X_B])

    @property
    def m_candidate(self) -> float:
        """M_c(x^c): the candidate as it is."""
        return float(self.m_SX[1, X_C])

    @property
    def prior(self) -> tuple[float, float]:
        """By order: the stacks' difference at the start of the read line."""
        return self._difference(START_B), self._difference(START_C)

    @property
    def second_prior(self) -> tuple[float, float]:
        """By order: the stacks' difference at the second start, the state without its latents."""
        return self._difference(SECOND_B), self._difference(SECOND_C)

    @property
    def upper(self) -> tuple[float, float]:
        """By order: how differently the two stacks read one state (read and prior together)."""
        return self._difference(X_B), self._difference(X_C)

    @property
    def incompleteness(self) -> float:
        """|residual| over max(|written| + |upper|, 0.01 unit), of the worse order."""
        gap = self.m_candidate - self.m_baseline
        return max(
            abs(self.scale) * (abs(written.residual) + abs(read.residual)) / _size(self.scale, gap, upper)
            for written, read, upper in zip(self.written, self.read, self.upper, strict=True)
        )

    def _difference(self, state: int) -> float:
        return float(self.m_SX[1, state] - self.m_SX[0, state])


def _size(scale: float, gap: float, upper: float) -> float:
    """max(|written| + |upper|, 0.01 unit), in the metric's unit."""
    return max(abs(scale) * (abs(gap - upper) + abs(upper)), 0.01)


def account_for(
    pair: ModelPair,
    documents: Sequence[DocumentForm],
    references: References | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
    written_nodes: Sequence[int] = WRITTEN_NODES,
    read_nodes: Sequence[int] = READ_NODES,
    progress: Callable[[int, int], None] | None = None,
) -> list[DocumentAccount]:
    """Each document's account, in the order given.

    Args:
        pair: the models and their crosscoder.
        documents: what to account for.
        references: the texts that read lines start at; at the bias without.
        batch_tokens: padded tokens a batch; bounds the memory.
        written_nodes: quadrature orders, rising; a document is done again at the next while it is incomplete.
        read_nodes: the same for the read line.
        progress: called with (documents done, all documents).
    """
    accounts: dict[int, DocumentAccount] = {}
    for chosen in batches(documents, batch_tokens):
        found = account_of_batch(pair, [documents[i] for i in chosen], references, written_nodes, read_nodes)
        accounts.update(zip(chosen, found, strict=True))
        if progress is not None:
            progress(len(accounts), len(documents))
    return [accounts[i] for i in range(len(documents))]


def account_of_batch(
    pair: ModelPair,
    documents: Sequence[DocumentForm],
    references: References | None = None,
    written_nodes: Sequence[int] = WRITTEN_NODES,
    read_nodes: Sequence[int] = READ_NODES,
    watch: Watch | None = None,
) -> list[DocumentAccount]:
    """The accounts of documents that are read together.

    Args:
        pair: the models and their crosscoder.
        documents: what to account for.
        references: the texts that read lines start at; at the bias without.
        written_nodes: quadrature orders, rising.
        read_nodes: the same for each read line.
        watch: is given what each of the four brackets was made of: written in both orders, then read, whose mean
            gradient is given in parts that add up to it, one a line.
    """
    batch = Batch(documents, pair.device)
    states = PairStates(pair, batch)
    x = [x_BTD.double() for x_BTD in states.x_BTD]
    decoded = [states.decoded(m) for m in (0, 1)]
    without_latents = [x[m] - decoded[m] for m in (0, 1)]
    m_SXG = np.zeros((2, 6, len(documents)))
    m_SXG[:, [X_B, X_C, SECOND_B, SECOND_C]] = _scores(pair, batch, (*x, *without_latents))
    scale_G = np.array(
        [
            scale_to_metric(document.surrogate, float(m_SXG[0, X_B, g]), float(m_SXG[1, X_C, g]))
            for g, document in enumerate(documents)
        ]
    )
    tolerated_G = _tolerated(m_SXG, scale_G)
    delta_bias = states.bias(1) - states.bias(0)
    split = Split(states, lambda g: (-g, g), delta_bias, without_latents[1] - without_latents[0] - delta_bias)
    written = []
    for stack in (1, 0):
        line = Line(batch, (x[0], x[1]), (pair.uppers[stack],))
        wanted_G = m_SXG[stack, X_C] - m_SXG[stack, X_B]
        written.append(line.brackets(split, wanted_G, tolerated_G, written_nodes, watch))
    read: tuple[list[list[Bracket]], list[list[Bracket]]] = ([], [])
    n = 1 if references is None else references.n
    part = None if watch is None else lambda split, gradient_BTD: watch(split, gradient_BTD / n)
    for start in _starts(pair, states, None if references is None else references.rows(batch)):
        m_SMG = _scores(pair, batch, start.x_BTD)
        m_SXG[:, [START_B, START_C]] += m_SMG / n
        for m in (0, 1):
            line = Line(batch, (start.x_BTD[m], x[m]), (pair.uppers[1], pair.uppers[0]))
            wanted_G = (m_SXG[1] - m_SXG[0])[X_B + m] - (m_SMG[1] - m_SMG[0])[m]
            split = start.split(states, decoded[m], m)
            read[m].append(line.brackets(split, wanted_G, tolerated_G, read_nodes, part))
    return [
        DocumentAccount(
            doc_id=document.doc_id,
            m_SX=m_SXG[:, :, g],
            written=(written[0][g], written[1][g]),
            read=(mean_bracket([line[g] for line in read[0]]), mean_bracket([line[g] for line in read[1]])),
            scale=float(scale_G[g]),
        )
        for g, document in enumerate(documents)
    ]


def _tolerated(m_SXG: np.ndarray, scale_G: np.ndarray) -> np.ndarray:
    """Which residual each bracket of a document may have, in units of m."""
    gap_G, upper_MG = m_SXG[1, X_C] - m_SXG[0, X_B], (m_SXG[1] - m_SXG[0])[[X_B, X_C]]
    each = zip(scale_G, gap_G, upper_MG.T, strict=True)
    size_G = np.array([min(_size(scale, gap, upper) for upper in uppers) for scale, gap, uppers in each])
    return TOLERANCE * size_G / (2 * np.maximum(np.abs(scale_G), 1e-300))


@dataclass(frozen=True)
class _Start:
    """Where read lines start, in either model, and which texts' states these are; without: the biases."""

    x_BTD: tuple[Tensor, Tensor]
    states: PairStates | None = None

    def split(self, states: PairStates, decoded_BTD: Tensor, m: int) -> Split:
        """How the line from here to a model's own states is split; `decoded_BTD` is what its latents write."""
        error_BTD = states.x_BTD[m].double() - self.x_BTD[m] - decoded_BTD
        if self.states is not None:
            error_BTD = error_BTD + self.states.decoded(m) * states.coded_BT[..., None]
        return Split(states, lambda g: (None, g) if m else (g, None), None, error_BTD, self.states)


def _starts(pair: ModelPair, states: PairStates, texts: Iterator[Rows] | None) -> Iterator[_Start]:
    """The starts of the read lines; where a document has no code its own state stays."""
    if texts is None:
        yield _Start((states.start(0), states.start(1)))
        return
    coded_BT1 = states.coded_BT[..., None]
    for rows in texts:
        other = PairStates(pair, rows)
        both = [torch.where(coded_BT1, r.double(), x.double()) for r, x in zip(other.x_BTD, states.x_BTD, strict=True)]
        yield _Start((both[0], both[1]), other)


def _scores(pair: ModelPair, batch: Batch, states: Sequence[Tensor]) -> Float[np.ndarray, "S X G"]:
    """m of every document under both stacks on some states."""
    return np.stack([[_score(batch, upper, state) for state in states] for upper in pair.uppers])


@torch.no_grad()
def _score(batch: Batch, upper: UpperStack, state_BTD: Tensor) -> np.ndarray:
    """m of every document (G) under one stack on one state."""
    return batch.path(upper.logits(batch.ids_BT, state_BTD, batch.places)).cpu().numpy()
