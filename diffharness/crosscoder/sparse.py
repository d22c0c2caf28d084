"""Products with a sparse code: only the k latents of a token are touched, never tokens × latents.

`embedding_bag` is faster than a product in CSR form, and `sampled_addmm` than gathered rows, which it never makes.

Legend: N tokens, L latents, E active (token, latent) entries, X = models × width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class Entries:
    """Where a code is not zero: (token, latent) pairs, sorted by token, with the bounds of every token's entries."""

    token_E: Int[Tensor, " E"]
    latent_E: Int[Tensor, " E"]
    bounds: Int[Tensor, " N+1"]
    """Entries of token n are those from `bounds[n]` to `bounds[n + 1]`."""
    n_latents: int

    @classmethod
    def of(cls, token_E: Tensor, latent_E: Tensor, n_tokens: int, n_latents: int) -> Entries:
        """From pairs that are sorted by token."""
        return cls(token_E, latent_E, _bounds(token_E, n_tokens), n_latents)

    @property
    def n_tokens(self) -> int:
        """Number of tokens N."""
        return len(self.bounds) - 1

    def where(self, mask_E: Bool[Tensor, " E"]) -> Entries:
        """The chosen entries."""
        return Entries.of(self.token_E[mask_E], self.latent_E[mask_E], self.n_tokens, self.n_latents)


def products(a_NX: Float[Tensor, "N X"], b_LX: Float[Tensor, "L X"], entries: Entries) -> Float[Tensor, " E"]:
    """⟨a_n, b_l⟩ of every entry (n, l)."""
    zeros_E = a_NX.new_zeros(len(entries.token_E))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        pattern = torch.sparse_csr_tensor(
            entries.bounds, entries.latent_E, zeros_E, (entries.n_tokens, entries.n_latents), check_invariants=False
        )
        return torch.sparse.sampled_addmm(pattern, a_NX, b_LX.T, beta=0.0).values()


def decode(entries: Entries, f_E: Float[Tensor, " E"], d_LX: Float[Tensor, "L X"]) -> Float[Tensor, "N X"]:
    """Σ_l f_nl d_l for every token."""
    return embedding_bag(entries.latent_E, d_LX, entries.bounds[:-1], mode="sum", per_sample_weights=f_E)


@dataclass(frozen=True)
class ByLatent:
    """The same entries sorted by latent, for the gradients of weights."""

    order_E: Int[Tensor, " E"]
    token_E: Int[Tensor, " E"]
    bounds: Int[Tensor, " L+1"]

    @classmethod
    def of(cls, entries: Entries) -> ByLatent:
        """Sorted stably, so that sums over tokens have one order."""
        order_E = torch.argsort(entries.latent_E, stable=True)
        return cls(order_E, entries.token_E[order_E], _bounds(entries.latent_E[order_E], entries.n_latents))

    def sum_over_tokens(self, w_E: Float[Tensor, " E"], y_NX: Float[Tensor, "N X"]) -> Float[Tensor, "L X"]:
        """Σ_n w_nl y_n for every latent."""
        return embedding_bag(self.token_E, y_NX, self.bounds[:-1], mode="sum", per_sample_weights=w_E[self.order_E])


def _bounds(sorted_E: Tensor, n_rows: int) -> Tensor:
    """First entry of every row, and the number of entries at the end."""
    bounds = sorted_E.new_zeros(n_rows + 1)
    torch.cumsum(torch.bincount(sorted_E, minlength=n_rows), dim=0, out=bounds[1:])
    return bounds
