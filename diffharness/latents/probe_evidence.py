"""What probes say about latents, in numbers: ranks by category, wins over matched texts, names tried on held-out texts.

Legend: P probe texts and contrasts, L latents, K categories, Q pairs of a text and its contrast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from diffharness.latents.taxonomy import Taxonomy, in_order
from diffharness.statistics.sparse_ranks import mann_whitney_sparse

Maxima = Float[np.ndarray, "P L"] | sparse.sparray | sparse.spmatrix
"""Maximum activation of each latent over a text's coded positions, dense or sparse."""

CHANCE = 0.5
"""AUROC of a name drawn by lot."""

_BLOCK_CELLS = 4_000_000
"""Texts × latents looked at a time."""


@dataclass(frozen=True)
class Columns:
    """The maxima as columns of latents, of which a block is looked at a time, as its entries that are not 0."""

    values_PL: np.ndarray | sparse.csc_array
    n_rows: int
    n_latents: int

    @staticmethod
    def of(maxima_PL: Maxima) -> Columns:
        """Wrap dense or sparse maxima."""
        values_PL = sparse.csc_array(maxima_PL) if sparse.issparse(maxima_PL) else np.asarray(maxima_PL)
        n_rows, n_latents = values_PL.shape or (0, 0)
        return Columns(values_PL, int(n_rows), int(n_latents))

    def take(self, latents: Int[np.ndarray, " l"]) -> Columns:
        """Some of the latents."""
        return Columns.of(self.values_PL[:, latents])

    def blocks(self) -> Iterator[tuple[slice, sparse.csc_array]]:
        """All latents, in blocks of (P, l)."""
        size = max(1, _BLOCK_CELLS // max(self.n_rows, 1))
        for start in range(0, self.n_latents, size):
            block = slice(start, min(start + size, self.n_latents))
            yield block, sparse.csc_array(self.values_PL[:, block])


@dataclass(frozen=True)
class Design:
    """Which rows are texts of which category, and which contrast belongs to which text."""

    names: tuple[str, ...]
    member_PK: Bool[np.ndarray, "P K"]
    text_Q: Int[np.ndarray, " Q"]
    contrast_Q: Int[np.ndarray, " Q"]

    @staticmethod
    def of(
        n_rows: int, categories: Sequence[str | None], pairs: Sequence[int | None] | None, taxonomy: Taxonomy | None
    ) -> Design:
        """Check that tags and pairs fit the rows; raises `ValueError` where not, or with one category only."""
        if len(categories) != n_rows:
            raise ValueError(f"{n_rows} probe texts with {len(categories)} categories")
        if pairs is not None and len(pairs) != n_rows:
            raise ValueError(f"{n_rows} probe texts with {len(pairs)} pairs")
        names = in_order({tag for tag in categories if tag is not None}, taxonomy)
        if len(names) < 2:
            raise ValueError(f"probes of one category can not be compared: {', '.join(names) or 'none'}")
        paired = [(text, row) for row, text in enumerate(pairs or ()) if text is not None]
        for text, row in paired:
            if categories[row] is not None or not 0 <= text < n_rows or categories[text] is None:
                raise ValueError(f"row {row} is no contrast of row {text}: a contrast has no category, its text has")
        pairs_Q2 = np.array(paired, dtype=np.int64).reshape(-1, 2)
        member_PK = np.array([[tag == name for name in names] for tag in categories], dtype=bool)
        return Design(names, member_PK, text_Q=pairs_Q2[:, 0], contrast_Q=pairs_Q2[:, 1])

    @property
    def pair_QK(self) -> Bool[np.ndarray, "Q K"]:
        """The category of each pair's text."""
        return self.member_PK[self.text_Q]

    def halves(self, rng: np.random.Generator | None) -> Bool[np.ndarray, " P"]:
        """The rows of the first half: every other text of each category, and each contrast with its text."""
        half_P = np.zeros(len(self.member_PK), dtype=bool)
        unpaired_P = np.logical_not(self.member_PK.any(axis=1))
        unpaired_P[self.contrast_Q] = False
        for place, group_P in enumerate((*self.member_PK.T, unpaired_P)):
            rows = np.flatnonzero(group_P)
            if rng is not None:
                rows = rng.permutation(rows)
            half_P[rows[place % 2 :: 2]] = True
        half_P[self.contrast_Q] = half_P[self.text_Q]
        return half_P


@dataclass(frozen=True)
class Evidence:
    """What the probes say about every latent and category."""

    auroc_LK: Float[np.ndarray, "L K"]
    p_LK: Float[np.ndarray, "L K"]
    """One-sided; NaN for a silent latent, which can not be tested."""
    wins_LK: Int[np.ndarray, "L K"]
    """Pairs in which the text excites the latent more than its contrast."""
    losses_LK: Int[np.ndarray, "L K"]
    silent_L: Bool[np.ndarray, " L"]
    """One and the same value on every row."""


def gather(columns: Columns, design: Design) -> Evidence:
    """Compare each category's texts with all other rows, and with their own contrasts, for every latent."""
    shape = columns.n_latents, len(design.names)
    auroc_LK, p_LK = np.empty(shape), np.empty(shape)
    wins_LK, losses_LK = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    silent_L = np.zeros(columns.n_latents, dtype=bool)
    pair_QK = design.pair_QK.astype(np.float64)
    for block, part_PL in columns.blocks():
        silent_L[block] = _is_constant(part_PL)
        auroc_LK[block], p_LK[block] = mann_whitney_sparse(part_PL, design.member_PK)
        lead_LQ = (part_PL[design.text_Q] - part_PL[design.contrast_Q]).T
        wins_LK[block] = (lead_LQ > 0) @ pair_QK
        losses_LK[block] = (lead_LQ < 0) @ pair_QK
    p_LK[silent_L] = np.nan
    return Evidence(auroc_LK, p_LK, wins_LK, losses_LK, silent_L)


def held_out_auroc(columns: Columns, design: Design, rng: np.random.Generator | None) -> Float[np.ndarray, " L"]:
    """How well the category that one half of the probes gives a latent is told by the other half; chance is ½.

    The texts of each category are dealt in turn onto two halves (shuffled before where `rng` is given), a contrast
    going with its text. On each half the category with the highest AUROC is chosen and its AUROC on the other half
    taken; the score is the mean over both directions. Where the halves agree this is the AUROC of the latent's
    name; where they do not, each is held to the name that it would have given. A half that is silent chooses nothing
    and scores ½. Nothing of the half that is scored goes into the choice, so that over latents which nothing has
    selected the mean is ½ where tags mean nothing. NaN where fewer than two categories have texts in both halves.
    """
    half_P = design.halves(rng)
    usable_K = design.member_PK[half_P].any(axis=0) & design.member_PK[~half_P].any(axis=0)
    score_L = np.full(columns.n_latents, np.nan)
    if usable_K.sum() < 2:
        return score_L
    sides = np.flatnonzero(half_P), np.flatnonzero(~half_P)
    members = [design.member_PK[rows][:, usable_K] for rows in sides]
    for block, part_PL in columns.blocks():
        halves = [part_PL[rows] for rows in sides]
        aurocs = [mann_whitney_sparse(half, member)[0] for half, member in zip(halves, members)]
        directions = []
        for chosen_on, tried_on in ((0, 1), (1, 0)):
            best_L1 = np.argmax(aurocs[chosen_on], axis=1)[:, None]
            tried_L = np.take_along_axis(aurocs[tried_on], best_L1, axis=1)[:, 0]
            directions.append(np.where(_is_constant(halves[chosen_on]), CHANCE, tried_L))
        score_L[block] = np.mean(directions, axis=0)
    return score_L


def _is_constant(part_PL: sparse.csc_array) -> Bool[np.ndarray, " l"]:
    return part_PL.max(axis=0).toarray().ravel() == part_PL.min(axis=0).toarray().ravel()
