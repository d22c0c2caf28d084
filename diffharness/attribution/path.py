"""The path integral: a document's gap split over what the candidate writes at the layer and how it reads it above.

With M_b and M_c a document's score under either model's layers above, and x^b and x^c the states at the layer,

    gap = M_c(x^c) − M_b(x^b) = [M_c(x^c) − M_c(x^b)] + [M_c(x^b) − M_b(x^b)]     candidate's stack first
                              = [M_b(x^c) − M_b(x^b)] + [M_c(x^c) − M_b(x^c)]     baseline's stack first
                                        written                  read and prior

*Written*: integrated gradients along the straight line from x^b to x^c; latent j gets Σ_t ⟨ḡ_t, f_tj (d_j^c − d_j^b)⟩,
bias ⟨ḡ, Δb⟩, error ⟨ḡ, Δε⟩ with the whole difference at positions without a code. *Read*: a line from the bias b^m to
x^m under both stacks, the two mean gradients subtracted; latent j gets Σ_t ⟨ḡ^c_t − ḡ^b_t, f_tj d_j^m⟩, the error ε^m
its own. *Prior*: what the stacks differ by at that line's start. Positions without a code (the first of a sequence,
skipped ids) keep the model's own state along it: no latent describes them, they are alike in all documents, and a line
from 0, where norm layers jump, would take more nodes. Nothing is a remainder: what the quadrature misses is kept
apart as the residual (design, "The main idea"; integrated gradients: Sundararajan et al. 2017).

Legend: B rows, T positions, D width, L latents, G documents, S = 2 stacks, X states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from diffharness.activations.capture import UpperStack
from diffharness.attribution.batches import BATCH_TOKENS, Batch, DocumentForm, batches
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import scale_to_metric

TOLERANCE = 0.01
"""Residual over max(|written| + |upper|, 0.01 unit) at which a document's quadrature is called complete."""
WRITTEN_NODES = (8, 16, 32, 64)
"""Quadrature orders, tried until complete. Sums converge before parts do, hence not fewer to begin with."""
READ_NODES = (48, 96, 192, 384)
"""The read line is long and passes states that no model visits."""
X_B, X_C, START_B, START_C, SECOND_B, SECOND_C = range(6)
"""States that both stacks read: each model's own; its bias alone; its own without its latents."""
ORDERS = ("candidate", "baseline")
"""Whose stack comes first: what is written is measured under it."""


@dataclass(frozen=True)
class Bracket:
    """One bracket of a document's gap under one order, split; in units of m."""

    latents: sparse.csr_array
    """(1, L), float64."""
    bias: float
    error: float
    residual: float
    """What the quadrature missed."""
    n_nodes: int

    @property
    def latents_sum(self) -> float:
        """What all latents together get."""
        return float(self.latents.sum())


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
        batch_tokens: padded tokens a batch; bounds the memory.
        written_nodes: quadrature orders, rising; a document is done again at the next while it is incomplete.
        read_nodes: the same for the read line.
        progress: called with (documents done, all documents).
    """
    accounts: dict[int, DocumentAccount] = {}
    for chosen in batches(documents, batch_tokens):
        found = account_of_batch(pair, [documents[i] for i in chosen], written_nodes, read_nodes)
        accounts.update(zip(chosen, found, strict=True))
        if progress is not None:
            progress(len(accounts), len(documents))
    return [accounts[i] for i in range(len(documents))]


def account_of_batch(
    pair: ModelPair,
    documents: Sequence[DocumentForm],
    written_nodes: Sequence[int] = WRITTEN_NODES,
    read_nodes: Sequence[int] = READ_NODES,
    watch: Watch | None = None,
) -> list[DocumentAccount]:
    """The accounts of documents that are read together.

    Args:
        pair: the models and their crosscoder.
        documents: what to account for.
        written_nodes: quadrature orders, rising.
        read_nodes: the same for the read line.
        watch: is given what each of the four brackets was made of.
    """
    batch = Batch(documents, pair.device)
    states = PairStates(pair, batch)
    x = [x_BTD.double() for x_BTD in states.x_BTD]
    decoded, starts = ([part(m) for m in (0, 1)] for part in (states.decoded, states.start))
    without_latents = [x[m] - decoded[m] for m in (0, 1)]
    ends = (*x, *starts, *without_latents)
    m_SXG = np.stack([[_score(batch, upper, state) for state in ends] for upper in pair.uppers])
    scale_G = np.array(
        [
            scale_to_metric(document.surrogate, float(m_SXG[0, X_B, g]), float(m_SXG[1, X_C, g]))
            for g, document in enumerate(documents)
        ]
    )
    tolerated_G = np.array(
        [
            TOLERANCE * min(_size(scale_G[g], m_XG[1, X_C] - m_XG[0, X_B], m_XG[1, s] - m_XG[0, s]) for s in (X_B, X_C))
            for g, m_XG in enumerate(np.moveaxis(m_SXG, 2, 0))
        ]
    )  # fmt: skip
    tolerated_G /= 2 * np.maximum(np.abs(scale_G), 1e-300)  # in units of m, for each of two brackets
    brackets = []
    delta_bias = states.bias(1) - states.bias(0)
    written = Split(states, lambda g: (-g, g), delta_bias, without_latents[1] - without_latents[0] - delta_bias)
    for stack in (1, 0):
        line = _Line(states, (x[0], x[1]), (pair.uppers[stack],))
        wanted_G = m_SXG[stack, X_C] - m_SXG[stack, X_B]
        brackets.append(line.brackets(written, wanted_G, tolerated_G, written_nodes, watch))
    upper_XG = m_SXG[1] - m_SXG[0]
    for m in (0, 1):
        read = Split(states, lambda g, m=m: (None, g) if m else (g, None), None, without_latents[m] - starts[m])
        line = _Line(states, (starts[m], x[m]), (pair.uppers[1], pair.uppers[0]))
        wanted_G = upper_XG[X_B + m] - upper_XG[START_B + m]
        brackets.append(line.brackets(read, wanted_G, tolerated_G, read_nodes, watch))
    return [
        DocumentAccount(
            doc_id=document.doc_id,
            m_SX=m_SXG[:, :, g],
            written=(brackets[0][g], brackets[1][g]),
            read=(brackets[2][g], brackets[3][g]),
            scale=float(scale_G[g]),
        )
        for g, document in enumerate(documents)
    ]


@torch.no_grad()
def _score(batch: Batch, upper: UpperStack, state_BTD: Tensor) -> np.ndarray:
    """m of every document (G) under one stack on one state."""
    return batch.path(upper.logits(batch.ids_BT, state_BTD, batch.places)).cpu().numpy()


@dataclass(frozen=True)
class Split:
    """How a mean gradient becomes the parts of a bracket."""

    states: PairStates
    decoders: Callable[[Tensor], tuple[Tensor | None, Tensor | None]]
    """What each model's decoders meet, from the gradient."""
    bias_BTD: Tensor | None
    error_BTD: Tensor

    def parts(self, gradient_BTD: Tensor) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
        """Latents (G, L), bias (G) and error (G)."""
        sums = self.states.by_document
        error_G = sums((gradient_BTD * self.error_BTD).sum(-1))
        bias_G = np.zeros_like(error_G) if self.bias_BTD is None else sums((gradient_BTD * self.bias_BTD).sum(-1))
        return self.states.latents_by_document(self.decoders(gradient_BTD)), bias_G, error_G

    def by_position(self, gradient_BTD: Tensor, group_L: Tensor, n_groups: int) -> Float[Tensor, "B T C"]:
        """The same at every position: the groups of latents, then bias and error; padding gets nothing."""
        groups_BTK = self.states.groups_by_position(self.decoders(gradient_BTD), group_L, n_groups)
        bias_BTD = torch.zeros_like(gradient_BTD) if self.bias_BTD is None else self.bias_BTD
        others = [(gradient_BTD * part_BTD).sum(-1, keepdim=True) for part_BTD in (bias_BTD, self.error_BTD)]
        read_BT = self.states.batch.read_BT.to(gradient_BTD.device)
        return torch.cat([groups_BTK, torch.cat(others, dim=-1) * read_BT[..., None]], dim=-1)


Watch = Callable[[Split, Tensor], None]
"""Called with how a bracket is split and its mean gradient (B, T, D): written in both orders, then read."""


@dataclass(frozen=True)
class _Line:
    """A straight line between two states, under one stack or under the difference of two."""

    states: PairStates
    ends: tuple[Tensor, Tensor]
    uppers: tuple[UpperStack, ...]

    def brackets(
        self, split: Split, wanted_G: np.ndarray, tolerated_G: np.ndarray, nodes: Sequence[int], watch: Watch | None
    ) -> list[Bracket]:
        """Every document's bracket, with as many nodes as it takes to be complete."""
        batch = self.states.batch
        n_documents = len(batch.documents)
        found: list[Bracket | None] = [None] * n_documents
        pending = list(range(n_documents))
        total = torch.zeros_like(self.ends[0])
        for n_nodes in nodes:
            part, rows = batch.select(pending)
            total[rows] = self._mean_gradient(part, rows, n_nodes)
            latents_GL, bias_G, error_G = split.parts(total)
            sum_G = latents_GL.sum(axis=1) + bias_G + error_G
            residual_G = wanted_G - sum_G
            for g in pending:
                found[g] = Bracket(latents_GL[[g]], float(bias_G[g]), float(error_G[g]), float(residual_G[g]), n_nodes)
            pending = [g for g in pending if abs(residual_G[g]) > tolerated_G[g]]
            if not pending:
                break
        if watch is not None:
            watch(split, total)
        return [bracket for bracket in found if bracket is not None]

    def _mean_gradient(self, batch: Batch, rows: Tensor, n_nodes: int) -> Float[Tensor, "b T D"]:
        """ḡ: the mean of ∂m/∂x over the line, by Gauss–Legendre, in float64.

        Under two stacks: the first's minus the second's.
        """
        start_BTD, end_BTD = (state_BTD[rows] for state_BTD in self.ends)
        points, weights = np.polynomial.legendre.leggauss(n_nodes)
        total = torch.zeros_like(start_BTD)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            x_BTD = start_BTD + float(point) * (end_BTD - start_BTD)
            for sign, upper in zip((1, -1), self.uppers, strict=False):
                total += sign * float(weight) * _gradient(batch, upper, x_BTD)
        return total


def _gradient(batch: Batch, upper: UpperStack, state_BTD: Tensor) -> Float[Tensor, "b T D"]:
    """∂m/∂x of every document at one state, in float64."""
    x = state_BTD.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(batch.path(upper.logits(batch.ids_BT, x, batch.places)).sum(), x)
    return gradient
