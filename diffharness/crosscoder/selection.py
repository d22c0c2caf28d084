"""Which entries a code keeps in training: the k·N largest of a batch, or the k largest of every token.

Candidates are looked for in low precision, chunk by chunk, so that tokens × latents values never exist at once; the
values that decide are computed in the weights' own precision for the candidates alone.

Legend: N tokens, L latents, C tokens of a chunk, E active entries, X = models × width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.crosscoder.sparse import Entries, products

GUESS_SHARE = 0.93
"""The search for a batch's largest values starts at this share of the last batch's smallest kept one; lower shares
give more candidates to compute, higher ones more searches that have to be done again."""
SAMPLE_SHARE = 0.8
"""And at this share of what a sample of the batch suggests, where there is no last batch, or it misled."""
SAMPLE_TOKENS = 128
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 512 << 20}
"""Size of the piece of tokens × latents that is looked at together; on a CPU it should stay in the cache."""
CHUNK_TOKENS = 256
"""But no fewer tokens than these: the whole encoder is read for every piece."""
LOW_PRECISION_MARGIN = 1.02
"""What the smallest kept value has to exceed the search's lower end by, so that rounding hides no candidate."""
SPARE = 8
"""Candidates a token beyond k, where every token keeps its own k and they are found in low precision."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of one step: pre-activations are z W_encᵀ + b, and are ranked by their product with the norm."""

    W_LX: Float[Tensor, "L X"]
    low_LX: Float[Tensor, "L X"]
    """The same in the precision that candidates are found in."""
    b_L: Float[Tensor, " L"]
    norm_L: Float[Tensor, " L"]

    @classmethod
    def of(cls, W_LX: Tensor, b_L: Tensor, norm_L: Tensor, dtype: torch.dtype) -> Encoder:
        """With its copy in low precision."""
        return cls(W_LX, W_LX.to(dtype), b_L, norm_L)

    def values(self, z_NX: Tensor, entries: Entries) -> tuple[Tensor, Tensor]:
        """Pre-activations of some entries and the values that they are ranked by, in full precision."""
        pre_E = products(z_NX, self.W_LX, entries) + self.b_L[entries.latent_E]
        return pre_E, pre_E * self.norm_L[entries.latent_E]

    def chunk_tokens(self, device: torch.device) -> int:
        """Tokens that are looked at together."""
        row_bytes = len(self.low_LX) * self.low_LX.element_size()
        return max(CHUNK_TOKENS, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // row_bytes)


@dataclass(frozen=True)
class Selection:
    """The kept entries, all positive."""

    entries: Entries
    f_E: Float[Tensor, " E"]
    smallest: float
    """The smallest kept value."""


def largest_of_batch(z_NX: Float[Tensor, "N X"], encoder: Encoder, n_kept: int, guess: float = 0.0) -> Selection:
    """The `n_kept` largest positive f_j · norm_j of a batch (all of them where fewer are positive).

    `guess` is where the search starts: a value that the smallest kept one probably exceeds, such as a share of the last
    batch's. One that is too high is noticed and lowered, so the result does not depend on it. BatchTopK of Bussmann et
    al. (2412.06410), ranked as in Minder et al. (2504.02922).
    """
    margin = 1.0 if encoder.low_LX.dtype == encoder.W_LX.dtype else LOW_PRECISION_MARGIN
    for above in _lower_ends(z_NX, encoder, n_kept, guess):
        entries = _above(z_NX, encoder, above)
        pre_E, scaled_E = encoder.values(z_NX, entries)
        n_positive = int((scaled_E > 0).sum())
        smallest, mask_E = _top(scaled_E, min(n_kept, n_positive))
        if above == 0 or (n_positive >= n_kept and smallest >= margin * above):
            return Selection(entries.where(mask_E), pre_E[mask_E], smallest)
    raise AssertionError("the last lower end is 0")


def largest_of_tokens(z_NX: Float[Tensor, "N X"], encoder: Encoder, k: int) -> Selection:
    """The k largest positive f_j · norm_j of every token (fewer where fewer are positive)."""
    n_latents = len(encoder.W_LX)
    exact = encoder.low_LX.dtype == encoder.W_LX.dtype
    n_found = min(k if exact else k + SPARE, n_latents)
    found = []
    for z_CX in z_NX.split(encoder.chunk_tokens(z_NX.device)):
        scaled_CL = torch.addmm(encoder.b_L.to(encoder.low_LX.dtype), z_CX.to(encoder.low_LX.dtype), encoder.low_LX.T)
        found.append(scaled_CL.mul_(encoder.norm_L).topk(n_found, dim=1, sorted=False).indices.sort(dim=1).values)
    latent_NF = torch.cat(found)
    token_E = torch.arange(len(z_NX), device=z_NX.device).repeat_interleave(n_found)
    entries = Entries.of(token_E, latent_NF.flatten(), len(z_NX), n_latents)
    pre_E, scaled_E = encoder.values(z_NX, entries)
    mask_E = scaled_E > 0
    if n_found > k:
        rank_NF = scaled_E.view(-1, n_found).topk(k, dim=1, sorted=False).indices
        mask_E &= torch.zeros_like(mask_E).view(-1, n_found).scatter_(1, rank_NF, True).flatten()
    return Selection(entries.where(mask_E), pre_E[mask_E], float(scaled_E[mask_E].min()) if mask_E.any() else 0.0)


def _above(z_NX: Tensor, encoder: Encoder, above: float) -> Entries:
    """The entries whose value, in low precision, is above a bound."""
    least_L = (above / encoder.norm_L - encoder.b_L).to(encoder.low_LX.dtype)
    tokens, latents, first = [], [], 0
    for z_CX in z_NX.split(encoder.chunk_tokens(z_NX.device)):
        token_E, latent_E = ((z_CX.to(encoder.low_LX.dtype) @ encoder.low_LX.T) > least_L).nonzero(as_tuple=True)
        tokens.append(token_E + first)
        latents.append(latent_E)
        first += len(z_CX)
    return Entries.of(torch.cat(tokens), torch.cat(latents), len(z_NX), len(encoder.W_LX))


def _top(values_E: Tensor, n_kept: int) -> tuple[float, Tensor]:
    """The smallest of the `n_kept` largest values, and the mask of these."""
    mask_E = torch.zeros_like(values_E, dtype=torch.bool)
    if n_kept == 0:
        return 0.0, mask_E
    top = values_E.topk(n_kept, sorted=False)
    mask_E[top.indices] = True
    return float(top.values.min()), mask_E


def _lower_ends(z_NX: Tensor, encoder: Encoder, n_kept: int, guess: float) -> Iterator[float]:
    """Where the search starts: at the guess, then lower and lower, at 0 in the end."""
    if guess > 0:
        yield guess
    sampled = SAMPLE_SHARE * _smallest_of_sample(z_NX, encoder, n_kept)
    yield from (sampled, sampled / 2, 0.0)


def _smallest_of_sample(z_NX: Tensor, encoder: Encoder, n_kept: int) -> float:
    """The smallest value that a sample of the batch's tokens would keep."""
    z_SX = z_NX[:: max(1, len(z_NX) // SAMPLE_TOKENS)]
    scaled_SL = torch.addmm(encoder.b_L, z_SX, encoder.W_LX.T).mul_(encoder.norm_L)
    n_sampled = min(scaled_SL.numel(), max(1, n_kept * len(z_SX) // len(z_NX)))
    return max(0.0, float(scaled_SL.flatten().topk(n_sampled, sorted=False).values.min()))
