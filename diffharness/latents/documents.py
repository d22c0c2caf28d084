"""What latents do on whole documents: activation mass and active tokens, summed over the texts that a document has.

Legend: B texts, D documents, L latents, P (text, latent) pairs, I (text, document) incidences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diffharness.latents.codes import Peaks, TextCodes


@dataclass(frozen=True, eq=False)
class DocumentActivations:
    """Sums over the coded tokens of every document; a text that several documents read counts in each."""

    mass_DL: sparse.csr_array
    """Sum of the activations, float64."""
    n_active_DL: sparse.csr_array
    """Tokens on which a latent fires, int64; the same places as `mass_DL`."""
    n_tokens_D: NDArray[np.int64]
    """Coded tokens; 0 for a document of which nothing was seen."""

    @property
    def mean_DL(self) -> sparse.csr_array:
        """Mean activation a coded token; nothing in a document without tokens."""
        n_entries_D = np.diff(self.mass_DL.indptr)
        mean_E = self.mass_DL.data / np.repeat(self.n_tokens_D, n_entries_D)
        return _like(self.mass_DL, mean_E)

    def density_by_group(self, groups: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """The share of a group's (task's) coded tokens on which each latent fires, (L,); NaN without tokens.

        Args:
            groups: of each document. Raises `ValueError` where their number is not that of the documents.
        """
        if len(groups) != len(self.n_tokens_D):
            raise ValueError(f"{len(groups)} groups for {len(self.n_tokens_D)} documents")
        names = list(dict.fromkeys(groups))
        places = {name: place for place, name in enumerate(names)}
        group_D = np.array([places[name] for name in groups], dtype=np.int64)
        member_TD = sparse.csr_array(
            (np.ones(len(group_D), dtype=np.int64), (group_D, np.arange(len(group_D)))),
            shape=(len(names), len(group_D)),
        )
        n_tokens_T1 = (member_TD @ self.n_tokens_D)[:, None]
        n_active_TL = sparse.csr_array(member_TD @ self.n_active_DL).toarray()
        density_TL = np.divide(n_active_TL, n_tokens_T1, out=np.full(n_active_TL.shape, np.nan), where=n_tokens_T1 > 0)
        return dict(zip(names, density_TL))


class DocumentSums:
    """Gathers what latents do on documents from a stream of texts; memory is that of the active pairs."""

    def __init__(self, n_latents: int) -> None:
        self.n_latents = n_latents
        self._whole = _Sums.nothing()
        self._pending: list[_Sums] = []
        self._n_pending = 0
        self._tokens: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def update(self, codes: TextCodes, documents: Sequence[Sequence[int]]) -> None:
        """Add texts.

        Args:
            codes: of B texts.
            documents: for each text, the numbers of the documents that read it, from 0; one that is named twice
                counts once.

        Raises:
            ValueError: not B lists, a negative number, or codes of another number of latents.
        """
        if len(documents) != len(codes.length_B):
            raise ValueError(f"{len(documents)} lists of documents for {len(codes.length_B)} texts")
        if codes.entries.n_latents != self.n_latents:
            raise ValueError(f"codes of {codes.entries.n_latents} latents added to sums of {self.n_latents}")
        pairs = [(text, document) for text, found in enumerate(documents) for document in sorted(set(found))]
        text_I, document_I = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        if (document_I < 0).any():
            raise ValueError(f"documents are numbered from 0, got {document_I.min()}")
        self._tokens.append((document_I, codes.length_B.numpy()[text_I]))
        if not len(codes.entries.token_E):
            return
        added = _of_incidences(codes.peaks, text_I, document_I, len(documents), self.n_latents)
        self._pending.append(added)
        self._n_pending += len(added.key_P)
        if self._n_pending > len(self._whole.key_P):
            self._merge()

    def finish(self, n_documents: int) -> DocumentActivations:
        """Sums of documents 0 to n_documents − 1. Raises `ValueError` where a larger number was seen."""
        self._merge()
        document_I = np.concatenate([np.empty(0, np.int64), *(document for document, _ in self._tokens)])
        length_I = np.concatenate([np.empty(0, np.int64), *(length for _, length in self._tokens)])
        if document_I.max(initial=-1) >= n_documents:
            raise ValueError(f"document {document_I.max()} of {n_documents} was seen")
        n_tokens_D = np.bincount(document_I, length_I, minlength=n_documents).astype(np.int64)
        document_P, latent_P = np.divmod(self._whole.key_P, self.n_latents)
        bounds = np.searchsorted(document_P, np.arange(n_documents + 1))
        shape = (n_documents, self.n_latents)
        mass_DL = sparse.csr_array((self._whole.mass_P, latent_P, bounds), shape=shape)
        return DocumentActivations(mass_DL, _like(mass_DL, self._whole.n_active_P), n_tokens_D)

    def _merge(self) -> None:
        """Add what is pending to the whole; done whenever it has doubled, so that the work is n log n."""
        parts = [self._whole, *self._pending]
        self._whole = _Sums.of(*(np.concatenate(column) for column in zip(*(p.columns() for p in parts))))
        self._pending, self._n_pending = [], 0


@dataclass(frozen=True, eq=False)
class _Sums:
    """By (document, latent) pair, sorted by the key document · L + latent."""

    key_P: NDArray[np.int64]
    mass_P: NDArray[np.float64]
    n_active_P: NDArray[np.int64]

    @classmethod
    def nothing(cls) -> _Sums:
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))

    @classmethod
    def of(cls, key_P: NDArray[np.int64], mass_P: NDArray[np.float64], n_active_P: NDArray[np.int64]) -> _Sums:
        """From pairs in any order that may repeat."""
        if not len(key_P):
            return cls.nothing()
        order_P = np.argsort(key_P, kind="stable")
        key_P = key_P[order_P]
        first = np.flatnonzero(np.diff(key_P, prepend=-1))
        return cls(key_P[first], np.add.reduceat(mass_P[order_P], first), np.add.reduceat(n_active_P[order_P], first))

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        return self.key_P, self.mass_P, self.n_active_P


def _of_incidences(
    peaks: Peaks, text_I: NDArray[np.int64], document_I: NDArray[np.int64], n_texts: int, n_latents: int
) -> _Sums:
    """The pairs of every text, once for each of its documents."""
    start_B = np.searchsorted(peaks.text_P.numpy(), np.arange(n_texts + 1))
    size_I = np.diff(start_B)[text_I]
    skipped_I = start_B[text_I] - (np.cumsum(size_I) - size_I)
    pair_P = np.arange(size_I.sum()) + np.repeat(skipped_I, size_I)
    key_P = np.repeat(document_I, size_I) * n_latents + peaks.latent_P.numpy()[pair_P]
    return _Sums.of(key_P, peaks.mass_P.numpy()[pair_P], peaks.n_active_P.numpy()[pair_P])


def _like(places_DL: sparse.csr_array, value_E: NDArray) -> sparse.csr_array:
    """Other values at the same places; the places are shared, not copied."""
    return sparse.csr_array((value_E, places_DL.indices, places_DL.indptr), shape=places_DL.shape)
