"""A straight line between two states at the layer: what every part of a difference gets by the gradients along it.

Integrated gradients (Sundararajan et al. 2017) by Gauss–Legendre, in float64, with more nodes until what a line's parts
add up to is what its ends differ by.

Legend: B rows, T positions, D width, L latents, G documents, C columns.
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
from diffharness.attribution.batches import Batch
from diffharness.attribution.states import PairStates


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


def mean_bracket(lines: Sequence[Bracket]) -> Bracket:
    """What a few lines give in the mean."""
    n = len(lines)
    return Bracket(
        latents=sparse.csr_array(sum((b.latents for b in lines[1:]), lines[0].latents) / n),
        bias=sum(b.bias for b in lines) / n,
        error=sum(b.error for b in lines) / n,
        residual=sum(b.residual for b in lines) / n,
        n_nodes=max(b.n_nodes for b in lines),
    )


@dataclass(frozen=True)
class Split:
    """How a mean gradient becomes the parts of a bracket."""

    states: PairStates
    decoders: Callable[[Tensor], tuple[Tensor | None, Tensor | None]]
    """What each model's decoders meet, from the gradient."""
    bias_BTD: Tensor | None
    error_BTD: Tensor
    start: PairStates | None = None
    """Where the line starts at what other texts hold, these: their codes are taken off, where the document has one."""

    def parts(self, gradient_BTD: Tensor) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
        """Latents (G, L), bias (G) and error (G)."""
        sums = self.states.by_document
        error_G = sums((gradient_BTD * self.error_BTD).sum(-1))
        bias_G = np.zeros_like(error_G) if self.bias_BTD is None else sums((gradient_BTD * self.bias_BTD).sum(-1))
        latents_GL = self.states.latents_by_document(self.decoders(gradient_BTD))
        if self.start is not None:
            latents_GL = latents_GL - self.start.latents_by_document(self.decoders(self._coded(gradient_BTD)))
        return latents_GL, bias_G, error_G

    def _coded(self, gradient_BTD: Tensor) -> Tensor:
        return gradient_BTD * self.states.coded_BT[..., None]

    def by_position(self, gradient_BTD: Tensor, group_L: Tensor, n_groups: int) -> Float[Tensor, "B T C"]:
        """The same at every position: the groups of latents, then bias and error; padding gets nothing."""
        groups_BTK = self.states.groups_by_position(self.decoders(gradient_BTD), group_L, n_groups)
        if self.start is not None:
            met = self.decoders(self._coded(gradient_BTD))
            groups_BTK = groups_BTK - self.start.groups_by_position(met, group_L, n_groups)
        bias_BTD = torch.zeros_like(gradient_BTD) if self.bias_BTD is None else self.bias_BTD
        others = [(gradient_BTD * part_BTD).sum(-1, keepdim=True) for part_BTD in (bias_BTD, self.error_BTD)]
        read_BT = self.states.rows.read_BT.to(gradient_BTD.device)
        return torch.cat([groups_BTK, torch.cat(others, dim=-1) * read_BT[..., None]], dim=-1)


Watch = Callable[[Split, Tensor], None]
"""Called with how a bracket is split and its mean gradient (B, T, D)."""


@dataclass(frozen=True)
class Line:
    """A straight line between two states, under one stack or under the difference of two."""

    batch: Batch
    ends: tuple[Tensor, Tensor]
    uppers: tuple[UpperStack, ...]

    def brackets(
        self, split: Split, wanted_G: np.ndarray, tolerated_G: np.ndarray, nodes: Sequence[int], watch: Watch | None
    ) -> list[Bracket]:
        """Every document's bracket, with as many nodes as it takes to be complete."""
        batch = self.batch
        found: list[Bracket | None] = [None] * batch.n_documents
        pending = list(range(batch.n_documents))
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
