"""The path integral: what the candidate writes differently at the layer, split over latents, bias and error.

Integrated gradients of m under the candidate's upper stack along the straight path from x^b to x^c, by
Gauss–Legendre quadrature (design, "The main idea"). With x^c − x^b = Σ_j f_j Δd_j + Δb + Δε and ḡ the mean gradient
on the path, latent j gets Σ_t f_tj ⟨ḡ_t, Δd_j⟩, bias ⟨ḡ_t, Δb⟩, error ⟨ḡ_t, Δε_t⟩. Nothing is a remainder: what the
quadrature misses of M_c(x^c) − M_c(x^b) is kept apart as the residual.

Legend: B rows, T positions, M models, D width, L latents, N coded tokens, G documents, R readings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.replay import coded_positions, pad
from diffharness.attribution.surrogates import Surrogate, scale_to_metric
from diffharness.crosscoder.model import Crosscoder

TOLERANCE = 0.003
"""Residual over max(|written| + |upper|, 0.01 unit) at which a document's quadrature is called complete."""
NODES = (8, 16, 32, 64)
"""Quadrature orders, tried until complete. Sums converge before parts do: at 4 nodes parts were still off by 2 %."""
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Span:
    """A sequence and the tokens scored in it (`start` is the first predictor position)."""

    ids: tuple[int, ...]
    start: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class DocumentForm:
    """A document as a function of activations: its readings, and how its score follows from them."""

    doc_id: int
    spans: tuple[Span, ...]
    surrogate: Surrogate


@dataclass(frozen=True)
class ModelPair:
    """Both models at one layer, and the crosscoder over them (sides: baseline, candidate)."""

    readers: tuple[LayerReader, LayerReader]
    uppers: tuple[UpperStack, UpperStack]
    crosscoder: Crosscoder


@dataclass(frozen=True)
class DocumentAccount:
    """One document's account, in units of m; `scale` turns it into the metric's unit."""

    doc_id: int
    m_baseline: float
    """M_b(x^b): the baseline as it is."""
    m_spliced: float
    """M_c(x^b): the candidate's upper stack on the baseline's state."""
    m_candidate: float
    """M_c(x^c): the candidate as it is."""
    written_L: np.ndarray
    """What each latent writes, float64."""
    bias: float
    error: float
    scale: float
    n_nodes: int

    @property
    def upper(self) -> float:
        """How differently the candidate reads the same state."""
        return self.m_spliced - self.m_baseline

    @property
    def written(self) -> float:
        """Sum over latents, bias and error."""
        return float(self.written_L.sum()) + self.bias + self.error

    @property
    def residual(self) -> float:
        """What the quadrature missed of the first bracket."""
        return (self.m_candidate - self.m_spliced) - self.written

    @property
    def incompleteness(self) -> float:
        """|residual| over max(|written| + |upper|, 0.01 unit), in the metric's unit."""
        size = abs(self.scale) * (abs(self.written) + abs(self.upper))
        return abs(self.scale * self.residual) / max(size, 0.01)


class _Batch:
    """Documents laid out as rows: every distinct sequence of a document is one row."""

    def __init__(self, documents: Sequence[DocumentForm], device: torch.device) -> None:
        self.documents = documents
        sequences: list[tuple[int, ...]] = []
        self.document_of_row: list[int] = []
        flat: list[tuple[int, int, int, int]] = []
        self.reading_ranges: list[tuple[int, int]] = []
        n_readings = 0
        for g, document in enumerate(documents):
            row_of: dict[tuple[int, ...], int] = {}
            first = n_readings
            for span in document.spans:
                if span.ids not in row_of:
                    row_of[span.ids] = len(sequences)
                    sequences.append(span.ids)
                    self.document_of_row.append(g)
                row = row_of[span.ids]
                flat.extend((row, span.start + i, token, n_readings) for i, token in enumerate(span.targets))
                n_readings += 1
            self.reading_ranges.append((first, n_readings))
        self.n_readings = n_readings
        self.lengths = [len(s) for s in sequences]
        self.ids_BT = pad(sequences, device)
        rows, positions, tokens, readings = (torch.tensor(c, device=device) for c in zip(*flat, strict=True))
        self.rows, self.positions, self.tokens, self.readings = rows, positions, tokens, readings

    def token_log_p(self, logits_BTV: Tensor) -> Tensor:
        """Log-probability of every scored token."""
        log_p = torch.log_softmax(logits_BTV[self.rows, self.positions].float(), dim=-1)
        return log_p.gather(-1, self.tokens[:, None])[:, 0]

    def log_likelihoods(self, token_log_p: Tensor) -> Float[Tensor, " R"]:
        """Sum over each reading's tokens, in float64."""
        zeros = torch.zeros(self.n_readings, dtype=torch.float64, device=token_log_p.device)
        return zeros.index_add(0, self.readings, token_log_p.double())

    def path(self, log_likelihood_R: Tensor) -> Float[Tensor, " G"]:
        """m of every document."""
        return torch.stack(
            [
                document.surrogate.path(log_likelihood_R[a:b])
                for document, (a, b) in zip(self.documents, self.reading_ranges, strict=True)
            ]
        )


def account_for(
    pair: ModelPair,
    documents: Sequence[DocumentForm],
    *,
    batch_tokens: int = BATCH_TOKENS,
    nodes: Sequence[int] = NODES,
    progress: Callable[[int, int], None] | None = None,
) -> list[DocumentAccount]:
    """Each document's account, in the order given.

    Args:
        pair: the models and their crosscoder.
        documents: what to account for.
        batch_tokens: padded tokens a batch; bounds the memory.
        nodes: quadrature orders, rising; a document is done again at the next while it is incomplete.
        progress: called with (documents done, all documents).
    """
    accounts: dict[int, DocumentAccount] = {}
    pending = list(range(len(documents)))
    for n_nodes in nodes:
        for batch in _batches(documents, pending, batch_tokens):
            for i, account in zip(batch, _integrate(pair, [documents[i] for i in batch], n_nodes), strict=True):
                accounts[i] = account
            if progress is not None and n_nodes == nodes[0]:
                progress(len(accounts), len(documents))
        pending = [i for i in pending if accounts[i].incompleteness > TOLERANCE]
        if not pending:
            break
    return [accounts[i] for i in range(len(documents))]


def _batches(documents: Sequence[DocumentForm], wanted: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Documents grouped by longest sequence so that rows × longest stays within the budget."""
    longest = {i: max(len(s.ids) for s in documents[i].spans) for i in wanted}
    n_rows = {i: len({s.ids for s in documents[i].spans}) for i in wanted}
    batches: list[list[int]] = []
    rows = width = 0
    for i in sorted(wanted, key=lambda i: -longest[i]):
        if batches and (rows + n_rows[i]) * width <= batch_tokens:
            batches[-1].append(i)
            rows += n_rows[i]
        else:
            batches.append([i])
            rows, width = n_rows[i], longest[i]
    return batches


def _integrate(pair: ModelPair, documents: Sequence[DocumentForm], n_nodes: int) -> list[DocumentAccount]:
    device = next(pair.readers[0].model.parameters()).device
    batch = _Batch(documents, device)
    x_b, x_c = (reader.read(batch.ids_BT) for reader in pair.readers)
    ends = [
        _end(batch, pair.uppers[0], x_b),
        _end(batch, pair.uppers[1], x_b),
        _end(batch, pair.uppers[1], x_c),
    ]
    gradient_BTD = _mean_gradient(batch, pair.uppers[1], x_b, x_c, n_nodes)
    written_GL, bias_G, error_G = _project(pair.crosscoder, batch, x_b, x_c, gradient_BTD)
    accounts = []
    for g, document in enumerate(documents):
        m_b, m_s, m_c = (float(m_G[g]) for m_G in ends)
        accounts.append(
            DocumentAccount(
                doc_id=document.doc_id,
                m_baseline=m_b,
                m_spliced=m_s,
                m_candidate=m_c,
                written_L=written_GL[g],
                bias=float(bias_G[g]),
                error=float(error_G[g]),
                scale=scale_to_metric(document.surrogate, m_b, m_c),
                n_nodes=n_nodes,
            )
        )
    return accounts


def _end(batch: _Batch, upper: UpperStack, x_BTD: Tensor) -> np.ndarray:
    """m of every document (G) under one upper stack on one state, no gradient."""
    with torch.no_grad():
        scored = batch.token_log_p(upper.logits(batch.ids_BT, x_BTD))
        return batch.path(batch.log_likelihoods(scored)).cpu().numpy()


def _mean_gradient(batch: _Batch, upper: UpperStack, x_b: Tensor, x_c: Tensor, n_nodes: int) -> Float[Tensor, "B T D"]:
    """ḡ: the mean of ∂m/∂x over the path from x_b to x_c, by Gauss–Legendre on [0, 1], in float64."""
    points, weights = np.polynomial.legendre.leggauss(n_nodes)
    total = torch.zeros(x_b.shape, dtype=torch.float64, device=x_b.device)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        x = (x_b + float(point) * (x_c - x_b)).detach().requires_grad_(True)
        with torch.enable_grad():
            scored = batch.token_log_p(upper.logits(batch.ids_BT, x))
            m = batch.path(batch.log_likelihoods(scored)).sum()
            (gradient,) = torch.autograd.grad(m, x)
        total += float(weight) * gradient.double()
    return total


def _project(
    crosscoder: Crosscoder, batch: _Batch, x_b: Tensor, x_c: Tensor, gradient_BTD: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split ⟨ḡ, x^c − x^b⟩ of each document over latents (G, L), bias (G) and error (G), in float64.

    Positions without a code (the first of a sequence, those of skipped ids) go to the error whole.
    """
    n_documents = len(batch.documents)
    lengths = torch.tensor(batch.lengths, device=x_b.device)
    read_BT = torch.arange(batch.ids_BT.shape[1], device=x_b.device) < lengths[:, None]
    coded_BT = coded_positions(batch.ids_BT, batch.lengths, crosscoder.config.skipped_ids)
    documents_B = torch.tensor(batch.document_of_row, device=x_b.device)
    delta_BTD = (x_c - x_b).double()

    first = (gradient_BTD * delta_BTD).sum(-1) * (read_BT & ~coded_BT)
    error_G = torch.zeros(n_documents, dtype=torch.float64, device=x_b.device)
    error_G.index_add_(0, documents_B, first.sum(1))
    bias_G = torch.zeros_like(error_G)
    written_GL = torch.zeros(n_documents, crosscoder.n_latents, dtype=torch.float64, device=x_b.device)

    with torch.no_grad():
        decoder_LMD, bias_MD = crosscoder.raw_decoder().double(), crosscoder.raw_bias().double()
        delta_d_LD, delta_b_D = decoder_LMD[:, 1] - decoder_LMD[:, 0], bias_MD[1] - bias_MD[0]
        rows, places = coded_BT.nonzero(as_tuple=True)
        x_NMD = torch.stack([x_b[rows, places], x_c[rows, places]], dim=1)
        f_NL = crosscoder.encode(x_NMD.float()).double()
        gradient_ND, delta_ND = gradient_BTD[rows, places], delta_BTD[rows, places]
        documents_N = documents_B[rows]
        written_GL.index_add_(0, documents_N, f_NL * (gradient_ND @ delta_d_LD.T))
        bias_G.index_add_(0, documents_N, gradient_ND @ delta_b_D)
        delta_error_ND = delta_ND - f_NL @ delta_d_LD - delta_b_D
        error_G.index_add_(0, documents_N, (gradient_ND * delta_error_ND).sum(-1))
    return written_GL.cpu().numpy(), bias_G.cpu().numpy(), error_G.cpu().numpy()
