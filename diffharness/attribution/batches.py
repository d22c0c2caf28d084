"""Documents as rows of a batch: which tokens a model reads for them, and how their scores follow from its logits.

Legend: B rows, T positions, V vocabulary, G documents, R readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffharness.activations.replay import pad
from diffharness.attribution.surrogates import Surrogate, paths

BATCH_TOKENS = 4096
"""Padded tokens a batch; bounds the memory."""


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


class Rows:
    """Sequences as rows, padded behind, and which document each is of.

    Args:
        ids_BT: what is read.
        lengths: of every row, padding left out.
        document_B: the document of every row, from 0.
        n_documents: G.
    """

    def __init__(
        self, ids_BT: Int[Tensor, "B T"], lengths: Sequence[int], document_B: Int[Tensor, " B"], n_documents: int
    ) -> None:
        self.ids_BT = ids_BT
        self.lengths = list(lengths)
        self.document_B = document_B
        self.n_documents = n_documents

    @property
    def read_BT(self) -> Bool[Tensor, "B T"]:
        """Positions that are no padding."""
        lengths_B = torch.tensor(self.lengths, device=self.ids_BT.device)
        return torch.arange(self.ids_BT.shape[1], device=self.ids_BT.device) < lengths_B[:, None]


class Batch(Rows):
    """Documents laid out as rows: every distinct sequence of a document is one row, a document's rows are neighbours.

    Args:
        documents: what is read.
        device: where the ids go.
        width: positions of a row; by default as many as the longest sequence has.
    """

    def __init__(self, documents: Sequence[DocumentForm], device: torch.device, width: int | None = None) -> None:
        self.documents = tuple(documents)
        self.device = device
        sequences: list[tuple[int, ...]] = []
        document_of_row: list[int] = []
        flat: list[tuple[int, int, int, int]] = []
        readings: list[slice] = []
        n_readings = 0
        for g, document in enumerate(documents):
            row_of: dict[tuple[int, ...], int] = {}
            first = n_readings
            for span in document.spans:
                if span.ids not in row_of:
                    row_of[span.ids] = len(sequences)
                    sequences.append(span.ids)
                    document_of_row.append(g)
                row = row_of[span.ids]
                flat.extend((row, span.start + i, token, n_readings) for i, token in enumerate(span.targets))
                n_readings += 1
            readings.append(slice(first, n_readings))
        self.n_readings = n_readings
        ids_BT = pad(sequences, device)
        ids_BT = torch.nn.functional.pad(ids_BT, (0, max(0, (width or 0) - ids_BT.shape[1])))
        document_B = torch.tensor(document_of_row, device=device)
        super().__init__(ids_BT, [len(s) for s in sequences], document_B, len(documents))
        columns = (torch.tensor(c, device=device) for c in zip(*flat, strict=True))
        row, position, self._token, self._reading = columns
        self.places: Int[Tensor, " S"] = row * self.ids_BT.shape[1] + position
        self._paths = paths([d.surrogate for d in documents], readings, device)

    def select(self, documents: Sequence[int]) -> tuple[Batch, Int[Tensor, " b"]]:
        """Some of the documents as a batch of the same width, and which rows of this one those are."""
        chosen = torch.tensor(list(documents), device=self.device)
        rows = torch.isin(self.document_B, chosen).nonzero()[:, 0]
        ordered = sorted(documents)
        return Batch([self.documents[g] for g in ordered], self.device, self.ids_BT.shape[1]), rows

    def log_likelihoods(self, logits: Float[Tensor, "B T V"] | Float[Tensor, "S V"]) -> Float[Tensor, " R"]:
        """Of every reading's scored tokens, summed in float64; nats. Of all logits, or those at `places`."""
        scored_SV = logits if logits.ndim == 2 else logits.flatten(0, 1).index_select(0, self.places)
        log_p = torch.log_softmax(scored_SV.double(), dim=-1)
        token_log_p = log_p.gather(-1, self._token[:, None])[:, 0]
        zeros = torch.zeros(self.n_readings, dtype=torch.float64, device=token_log_p.device)
        return zeros.index_add(0, self._reading, token_log_p)

    def path(self, logits: Float[Tensor, "B T V"] | Float[Tensor, "S V"]) -> Float[Tensor, " G"]:
        """m of every document, differentiable in the logits: all, or those at `places`."""
        return self._paths(self.log_likelihoods(logits))


def batches(documents: Sequence[DocumentForm], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Which documents go together: by longest sequence, so that rows × longest stays within the budget."""
    longest = [max(len(s.ids) for s in d.spans) for d in documents]
    n_rows = [len({s.ids for s in d.spans}) for d in documents]
    found: list[list[int]] = []
    rows = width = 0
    for i in sorted(range(len(documents)), key=lambda i: -longest[i]):
        if found and (rows + n_rows[i]) * width <= batch_tokens:
            found[-1].append(i)
            rows += n_rows[i]
        else:
            found.append([i])
            rows, width = n_rows[i], longest[i]
    return found
