"""Where in a document its account comes from: the same integrals, kept by position and category.

A document's account sums gradient × part over positions; here the sums are left out. What all positions of all
sequences get adds up to what the account says: latents by category, bias and error. The prior has no position.

Legend: B rows, T positions, C columns (categories, then bias, then error), L latents, G documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.attribution.batches import BATCH_TOKENS, DocumentForm, batches
from diffharness.attribution.line import Split
from diffharness.attribution.path import READ_NODES, WRITTEN_NODES, DocumentAccount, account_of_batch
from diffharness.attribution.references import References
from diffharness.attribution.states import ModelPair

BIAS, ERROR = -2, -1
"""Columns behind those of the categories."""


@dataclass(frozen=True)
class TokenAccount:
    """One document's account by position; both orders' mean, written and read together, in the surrogate's unit."""

    account: DocumentAccount
    sequences: tuple[tuple[int, ...], ...]
    """Its distinct sequences, in the order of its readings."""
    values: tuple[Float[np.ndarray, "T C"], ...]
    """Of every sequence."""

    @property
    def sums(self) -> Float[np.ndarray, " C"]:
        """Of all positions: what the document's account has of each column."""
        return np.sum([value_TC.sum(axis=0) for value_TC in self.values], axis=0)

    @property
    def prior(self) -> float:
        """What has no position."""
        return self.account.scale * float(np.mean(self.account.prior))

    @property
    def residual(self) -> float:
        """What the quadrature missed: with it, columns and prior add up to the document's gap."""
        missed = [w.residual + r.residual for w, r in zip(self.account.written, self.account.read, strict=True)]
        return self.account.scale * float(np.mean(missed))


def token_accounts(
    pair: ModelPair,
    documents: Sequence[DocumentForm],
    categories: Sequence[str],
    names: Sequence[str],
    references: References | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
    written_nodes: Sequence[int] = WRITTEN_NODES,
    read_nodes: Sequence[int] = READ_NODES,
    progress: Callable[[int, int], None] | None = None,
) -> list[TokenAccount]:
    """Each document's account by position, in the order given.

    Args:
        pair: the models and their crosscoder.
        documents: what to account for.
        categories: of every latent.
        names: the categories that there are: the first columns, in this order.
        references: as in `path.account_for`.
        batch_tokens: padded tokens a batch; bounds the memory.
        written_nodes: quadrature orders, as in `path.account_for`.
        read_nodes: the same for the read line.
        progress: called with (documents done, all documents).
    """
    place = {name: k for k, name in enumerate(names)}
    group_L = torch.tensor([place[category] for category in categories], device=pair.device)
    found: dict[int, TokenAccount] = {}
    for chosen in batches(documents, batch_tokens):
        mean = _MeanByPosition(group_L, len(names))
        own = [documents[i] for i in chosen]
        accounts = account_of_batch(pair, own, references, written_nodes, read_nodes, mean.add)
        found.update(zip(chosen, mean.of_documents(own, accounts), strict=True))
        if progress is not None:
            progress(len(found), len(documents))
    return [found[i] for i in range(len(documents))]


class _MeanByPosition:
    """Sums the brackets of a batch as they are done; two orders of what is written, two of what is read.

    What other texts hold at a position, off which a read line starts, is taken off at that position.
    """

    def __init__(self, group_L: Tensor, n_groups: int) -> None:
        self._group_L, self._n_groups = group_L, n_groups
        self._total_BTC: Tensor | None = None

    def add(self, split: Split, gradient_BTD: Tensor) -> None:
        """Take one bracket in."""
        part_BTC = split.by_position(gradient_BTD, self._group_L, self._n_groups) / 2
        self._total_BTC = part_BTC if self._total_BTC is None else self._total_BTC + part_BTC

    def of_documents(
        self, documents: Sequence[DocumentForm], accounts: Sequence[DocumentAccount]
    ) -> list[TokenAccount]:
        """The rows dealt out to their documents, padding cut off."""
        assert self._total_BTC is not None
        total_BTC, row, found = self._total_BTC.cpu().numpy(), 0, []
        for document, account in zip(documents, accounts, strict=True):
            sequences = tuple(dict.fromkeys(span.ids for span in document.spans))
            rows_BTC = total_BTC[row : row + len(sequences)]
            values = tuple(account.scale * own_TC[: len(s)] for own_TC, s in zip(rows_BTC, sequences, strict=True))
            found.append(TokenAccount(account, sequences, values))
            row += len(sequences)
        return found
