"""Each model's own use of every latent, and what to say where nothing, or little, is specific to a model.

A crosscoder's joint code can not tell the models apart where both have a latent. So texts are encoded twice, with
one model's activations in both places, (x^b, x^b) and (x^c, x^c): each code is what that model alone makes fire.

Legend: U units (texts or documents), L latents, M = 2 models (baseline, candidate), E stored (unit, latent) entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import sparse

from diffharness.latents.codes import TextCodes
from diffharness.latents.documents import DocumentActivations
from diffharness.statistics.multiple import benjamini_hochberg
from diffharness.statistics.ratios import RatioSums

LEVEL = 0.05
N_CHOSEN = 12
N_IN_WORDS = 3
"""Latents told of in a sentence."""
FEW = 10
"""Specific latents on both sides together, up to which they are called few."""


@dataclass(frozen=True, eq=False)
class UseChange:
    """Candidate − baseline of a rate or a mean, by latent."""

    difference_L: NDArray[np.float64]
    low_L: NDArray[np.float64]
    high_L: NDArray[np.float64]
    """95 % interval; NaN where the models differ on a single unit only, which shows nothing of how units vary."""
    p_L: NDArray[np.float64]
    """Two-sided, that the difference is 0. NaN as above, and for a latent that fires in neither model."""
    q_L: NDArray[np.float64]
    """Benjamini–Hochberg over the latents that have a p-value."""


@dataclass(frozen=True, eq=False)
class LatentUse:
    """How much either model alone makes each latent fire."""

    rate_LM: NDArray[np.float64]
    """Share of coded tokens on which it fires by the code of one model alone; NaN without tokens."""
    mean_LM: NDArray[np.float64]
    """Mean activation a coded token."""
    rate_change: UseChange
    mean_change: UseChange
    n_fired_L: NDArray[np.int64]
    """Units on which it fires in either model."""
    n_units: int
    n_tokens: int
    unit: str
    """What was taken to vary: `text` or `document`."""


class UseSums:
    """Gathers both models' own use of the latents: a few numbers a latent, whatever the number of texts."""

    def __init__(self, n_latents: int, unit: Literal["text", "document"] = "text") -> None:
        self.n_latents = n_latents
        self.unit = unit
        self._active, self._mass = RatioSums(n_latents), RatioSums(n_latents)
        self._total_LM = {kind: np.zeros((n_latents, 2)) for kind in ("active", "mass")}
        self._n_fired_L = np.zeros(n_latents, dtype=np.int64)
        self._n_units = self._n_tokens = 0

    def update(self, own: tuple[TextCodes, TextCodes]) -> None:
        """Add texts, each a unit: the codes of the baseline alone and of the candidate alone, over the same texts.

        Texts that share most of their tokens, as the choices of a document do, do not vary independently: gather
        them by document (`DocumentSums`) and use `update_documents`.

        Raises `ValueError` where the texts' lengths differ, or for codes of another number of latents.
        """
        length_B = own[0].length_B.numpy()
        if not np.array_equal(length_B, own[1].length_B.numpy()):
            raise ValueError("the codes of the two models alone are not of the same texts: lengths differ")
        (active_b, mass_b), (active_c, mass_c) = (_by_text(codes) for codes in own)
        self._add((active_b, active_c), (mass_b, mass_c), length_B)

    def update_documents(self, own: tuple[DocumentActivations, DocumentActivations]) -> None:
        """Add documents, each a unit: sums of the codes of the baseline alone and of the candidate alone.

        Raises `ValueError` where the documents' tokens differ, or for sums of another number of latents.
        """
        baseline, candidate = own
        if not np.array_equal(baseline.n_tokens_D, candidate.n_tokens_D):
            raise ValueError("the sums of the two models alone are not of the same documents: tokens differ")
        active = (baseline.n_active_DL, candidate.n_active_DL)
        self._add(active, (baseline.mass_DL, candidate.mass_DL), baseline.n_tokens_D)

    def finish(self) -> LatentUse:
        """Rates and means over all coded tokens, and what the variation over units says of their differences.

        A difference is a ratio of sums, Σ_u (candidate − baseline in unit u) / Σ_u (tokens of u): long texts weigh by
        their tokens, and texts in which a latent is silent count too. Intervals: `RatioSums.finish`.
        """
        fires_L = self._n_fired_L > 0
        with np.errstate(invalid="ignore"):
            rate_LM, mean_LM = (np.divide(self._total_LM[kind], self._n_tokens) for kind in ("active", "mass"))
        return LatentUse(
            rate_LM=rate_LM,
            mean_LM=mean_LM,
            rate_change=_change(self._active, fires_L),
            mean_change=_change(self._mass, fires_L),
            n_fired_L=self._n_fired_L.copy(),
            n_units=self._n_units,
            n_tokens=self._n_tokens,
            unit=self.unit,
        )

    def _add(
        self,
        active: tuple[sparse.csr_array, sparse.csr_array],
        mass: tuple[sparse.csr_array, sparse.csr_array],
        length_U: NDArray[np.int64],
    ) -> None:
        for found_UL in (*active, *mass):
            if found_UL.shape != (len(length_U), self.n_latents):
                raise ValueError(f"codes {found_UL.shape} added to the use of {self.n_latents} latents")
        n_U = length_U.astype(np.float64)
        self._active.add(sparse.csr_array(active[1] - active[0]), n_U)
        self._mass.add(sparse.csr_array(mass[1] - mass[0]), n_U)
        for kind, own in (("active", active), ("mass", mass)):
            for model, sums_UL in enumerate(own):
                self._total_LM[kind][:, model] += np.bincount(sums_UL.indices, sums_UL.data, minlength=self.n_latents)
        self._n_fired_L += np.bincount(sparse.csr_array(active[0] + active[1]).indices, minlength=self.n_latents)
        self._n_units += int((length_U > 0).sum())
        self._n_tokens += int(length_U.sum())


def _change(sums: RatioSums, fires_L: NDArray[np.bool_]) -> UseChange:
    found = sums.finish()
    p_L = np.where(fires_L, found.p_L, np.nan)
    return UseChange(found.ratio_L, found.low_L, found.high_L, p_L, benjamini_hochberg(p_L))


def _by_text(codes: TextCodes) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Active tokens and activation mass by text and latent."""
    shape = (len(codes.length_B), codes.entries.n_latents)
    if not len(codes.entries.token_E):
        return sparse.csr_array(shape, dtype=np.int64), sparse.csr_array(shape, dtype=np.float64)
    bounds = np.searchsorted(codes.peaks.text_P.numpy(), np.arange(shape[0] + 1))
    latent_P = codes.peaks.latent_P.numpy()
    n_active_UL, mass_UL = (
        sparse.csr_array((value_P.numpy(), latent_P, bounds), shape=shape)
        for value_P in (codes.peaks.n_active_P, codes.peaks.mass_P)
    )
    return n_active_UL, mass_UL


def most_changed(
    use: LatentUse,
    shared_L: Bool[np.ndarray, " L"],
    *,
    written_L: Float[np.ndarray, " L"] | None = None,
    n: int = N_CHOSEN,
    level: float = LEVEL,
) -> list[int]:
    """The shared latents whose use changed most, at most n of them.

    By use: those whose mean activation a token differs (q < level), the largest difference first. The mean counts
    both how often a latent fires and how strongly, in units that compare between latents; a standardised difference
    would put the most regular latents first, not those that changed most. Where written contributions are given
    the two orders alternate, starting with use, each latent once: a latent may carry much of the gap because the
    models write it differently, though both make it fire alike. A contribution of 0, or none (NaN), is never chosen.
    """
    size_L = np.abs(use.mean_change.difference_L)
    by_use = _largest(size_L, shared_L & (use.mean_change.q_L < level))
    if written_L is None:
        return by_use[:n]
    by_written = _largest(np.abs(written_L), shared_L & np.isfinite(written_L) & (written_L != 0))
    in_turn = [latents[place] for place in range(n) for latents in (by_use, by_written) if place < len(latents)]
    return list(dict.fromkeys(in_turn))[:n]


def _largest(size_L: NDArray[np.float64], chosen_L: NDArray[np.bool_]) -> list[int]:
    chosen = np.flatnonzero(chosen_L)
    return chosen[np.argsort(-size_L[chosen], kind="stable")].tolist()


def changed_sentence(
    n_specific_baseline: int,
    n_specific_candidate: int,
    use: LatentUse,
    chosen: Sequence[int],
    categories: Sequence[str],
    *,
    level: float = LEVEL,
) -> str:
    """What a report says where no latent, or few, are specific: that, and how the use of shared ones changed.

    Args:
        n_specific_baseline: latents specific to the baseline.
        n_specific_candidate: to the candidate.
        use: of all latents.
        chosen: shared latents, from `most_changed`.
        categories: of all latents.
        level: of q, as in `most_changed`.
    """
    specific = _specific_words(n_specific_baseline, n_specific_candidate)
    q_L = use.mean_change.q_L
    if not np.isfinite(q_L).any():
        return f"{specific}; the use of shared latents could not be compared: too few {use.unit}s were seen."
    changed = [latent for latent in chosen if q_L[latent] < level]
    beyond = f"by more than {use.unit}s vary (q < {level:g})"
    if not changed:
        alone = f"{specific}, and the mean activation of no shared latent differs {beyond}."
        written = [_named(latent, categories) for latent in chosen[:N_IN_WORDS]]
        return f"{alone} What shared latents write differs most for {_listed(written)}." if written else alone
    opening = f"{specific}: what changed {'besides ' if n_specific_baseline + n_specific_candidate else ''}is how much"
    told = " ".join(_use_words(latent, use, categories) for latent in changed[:N_IN_WORDS])
    n_more = len(changed) - N_IN_WORDS
    more = f" The same is shown of {n_more} more." if n_more > 0 else ""
    return f"{opening} shared latents are used, {beyond}. {told}{more}"


def _specific_words(n_baseline: int, n_candidate: int) -> str:
    total = n_baseline + n_candidate
    if not total:
        return "No latent is specific to either model"
    counts = [(n_baseline, "baseline"), (n_candidate, "candidate")]
    (n, side), (n_other, other) = counts if n_baseline else counts[::-1]
    of_other = f"{n_other:,}" if n_other else "none"
    verb = "latent is" if n == 1 else "latents are"
    return f"{'Only ' if total <= FEW else ''}{n:,} {verb} specific to the {side} and {of_other} to the {other}"


def _use_words(latent: int, use: LatentUse, categories: Sequence[str]) -> str:
    rates, means = _pair(100 * use.rate_LM[latent], "\u00a0% of tokens"), _pair(use.mean_LM[latent])
    told = f"{_named(latent, categories)} fires on {rates}, with a mean activation a token of {means}."
    return told[0].upper() + told[1:]


def _pair(baseline_candidate: NDArray[np.float64], unit: str = "") -> str:
    """`3.1 % of tokens in the candidate and 1.2 % in the baseline`, with the digits that show the difference."""
    difference = float(baseline_candidate[1] - baseline_candidate[0])
    digits = 1 if difference == 0 else int(np.clip(1 - np.floor(np.log10(abs(difference))), 0, 5))
    baseline, candidate = (f"{value:.{digits}f}" for value in baseline_candidate)
    if baseline == candidate:
        return f"{candidate}{unit} in both"
    return f"{candidate}{unit} in the candidate and {baseline}{unit.split(' ')[0]} in the baseline"


def _named(latent: int, categories: Sequence[str]) -> str:
    return f"latent {latent} ({categories[latent]})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
