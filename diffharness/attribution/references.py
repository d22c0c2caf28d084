"""Unrelated texts that a document is read against: where the read line starts.

A start has to be a state that models do visit: at one that they do not (a bias alone, a mean) two stacks can differ by
more than the gap, and what the latents are given then cancels that. So the line starts at what the same models make of
other texts at the same positions, a few texts a document, and the account is the mean over them (expected gradients:
Erion et al. 2021). What the stacks differ by there is the prior: a difference that is there whatever is read.

Legend: B rows, T positions.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from diffharness.attribution.batches import Batch, DocumentForm, Rows
from diffharness.errors import RunError


class References:
    """Draws texts for documents; the same for a document in whatever batch it is.

    Args:
        texts: token ids of each; a document's own sequences are never drawn for it.
        skipped_ids: ids without a code, left out of the texts but for their first token: where a document has a code,
            so has what it is read against.
        n: texts a document. Documents are many, and each draws its own; more make a single one's account steadier.

    Raises:
        RunError: no text has a second token, or a document has none but its own.
    """

    def __init__(self, texts: Sequence[tuple[int, ...]], skipped_ids: Collection[int] = (), n: int = 1):
        self.n = n
        kept = [(ids, (ids[0], *(i for i in ids[1:] if i not in skipped_ids))) for ids in texts if ids]
        self._texts = [(whole, ids) for whole, ids in kept if len(ids) > 1]
        if not self._texts:
            raise RunError("there is no text of two tokens or more to read documents against; give a --corpus")

    def rows(self, batch: Batch) -> Iterator[Rows]:
        """`n` times the batch with other texts in place of its sequences: each row as long as the batch's.

        All sequences of a document get the beginning of one text, which goes on with further ones where it is short.
        """
        longest = np.zeros(batch.n_documents, dtype=int)
        np.maximum.at(longest, batch.document_B.cpu().numpy(), batch.lengths)
        drawn = [self._drawn(document, int(n)) for document, n in zip(batch.documents, longest, strict=True)]
        for k in range(self.n):
            ids_BT = torch.zeros_like(batch.ids_BT)
            for row, (g, length) in enumerate(zip(batch.document_B.tolist(), batch.lengths, strict=True)):
                ids_BT[row, :length] = torch.tensor(drawn[g][k][:length], device=ids_BT.device)
            yield Rows(ids_BT, batch.lengths, batch.document_B, batch.n_documents)

    def _drawn(self, document: DocumentForm, length: int) -> list[list[int]]:
        """`n` sequences of a length, from texts in an order that the document's own tokens seed."""
        own = {span.ids for span in document.spans}
        seed = zlib.crc32(np.array([i for ids in sorted(own) for i in ids], dtype="<i8").tobytes())
        order = np.random.default_rng(seed).permutation(len(self._texts)).tolist()
        others = [self._texts[i][1] for i in order if self._texts[i][0] not in own]
        if not others:
            raise RunError("a task's only document can not be read against other texts; give a --corpus")
        turns = (others[k % len(others) :] + others[: k % len(others)] for k in range(self.n))
        return [_joined(texts, length) for texts in turns]


def _joined(texts: Sequence[tuple[int, ...]], length: int) -> list[int]:
    """One text after the other, each further one without its first token; from the front again where all are short."""
    further = itertools.chain.from_iterable(ids[1:] for ids in itertools.cycle(texts))
    return [texts[0][0], *itertools.islice(further, length - 1)]
