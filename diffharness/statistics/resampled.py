"""Gaps of scores that are functions of sums over documents, recomputed whole: BCa intervals and exchange tests.

Means, ratios, corpus metrics and averages of several tasks (strata) are one procedure. Legend: N documents, G units
(documents, or whole clusters of them), C sums, R resamples or exchanges, B units or blocks of them left out, S strata;
trailing axes are data sets of their own (simulations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from diffharness.statistics.bca import Bca, Width, skewness

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

N_RESAMPLES = 5000
"""Of a gap: an end of the interval then lies within 4 % of the standard error of where it would with any number."""
N_EXCHANGES = 9999
_CHUNK_CELLS = 4_000_000
"""Cells of a weights or exchanges matrix held at a time (32 MB)."""
_MOST_ROWS = 1000
"""Resamples or exchanges held at a time."""
_MOST_EXACT = 13
"""Units that differ up to which all 2^n exchanges are enumerated."""

Score: TypeAlias = 'Callable[[Float[np.ndarray, "R *K C"]], Float[np.ndarray, "R ..."]]'


class Resampled(Protocol):
    """Two models' scores on the same units."""

    @property
    def n_units(self) -> int:
        """Documents, or clusters of them."""
        ...

    @property
    def differs_G(self) -> Bool[np.ndarray, " G"]:
        """Units on which the two are not the same."""
        ...

    def gaps(self, weights_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, "R ..."]:
        """candidate − baseline, given how often each unit was drawn."""
        ...

    def exchanged(self, swap_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, "R ..."]:
        """The gap with the two sides exchanged on the units with 1."""
        ...

    def left_out(self) -> Float[np.ndarray, "B ..."]:
        """The gap without each unit in turn, or without each of fewer blocks of them."""
        ...


@dataclass(frozen=True)
class Sums:
    """Scores of which each unit has the sums that they are made of."""

    baseline_GC: Float[np.ndarray, "G *K C"]
    candidate_GC: Float[np.ndarray, "G *K C"]
    score: Score
    """From sums over units to a side's score, along the last axis."""

    @property
    def n_units(self) -> int:
        """Documents, or clusters of them."""
        return len(self.baseline_GC)

    @property
    def differs_G(self) -> Bool[np.ndarray, " G"]:
        """Units on which the two are not the same."""
        return (self.baseline_GC != self.candidate_GC).reshape(self.n_units, -1).any(axis=1)

    def gaps(self, weights_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, "R ..."]:
        """candidate − baseline, given how often each unit was drawn."""
        return self.score(_total(weights_RG, self.candidate_GC)) - self.score(_total(weights_RG, self.baseline_GC))

    def exchanged(self, swap_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, "R ..."]:
        """The gap with the two sides exchanged on the units with 1."""
        moved = _total(swap_RG, self.candidate_GC - self.baseline_GC)
        return self.score(self.candidate_GC.sum(0) - moved) - self.score(self.baseline_GC.sum(0) + moved)

    def left_out(self) -> Float[np.ndarray, "B ..."]:
        """The gap without each unit in turn."""
        without = [side.sum(0) - side for side in (self.candidate_GC, self.baseline_GC)]
        return self.score(without[0]) - self.score(without[1])


@dataclass(frozen=True)
class Recomputed:
    """Scores that only a function of the documents themselves can make; a jackknife leaves out blocks of units."""

    gap_of: Callable[[Sequence[tuple[int, bool]]], float]
    """The gap of documents, drawn as often as they are listed, each with whether its two sides are exchanged."""
    unit_N: Int[np.ndarray, " N"]
    """Each document's unit."""
    same_N: Bool[np.ndarray, " N"]
    """Documents on which the two are the same."""
    n_blocks: int = 100

    @property
    def n_units(self) -> int:
        """Documents, or clusters of them."""
        return int(self.unit_N.max()) + 1

    @property
    def differs_G(self) -> Bool[np.ndarray, " G"]:
        """Units on which the two are not the same."""
        return np.bincount(self.unit_N, weights=~self.same_N) > 0

    def gaps(self, weights_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, " R"]:
        """candidate − baseline, given how often each unit was drawn."""
        numbers = np.arange(len(self.unit_N))
        drawn = (np.repeat(numbers, weights_G[self.unit_N].astype(int)) for weights_G in weights_RG)
        return np.array([self.gap_of([(int(i), False) for i in chosen]) for chosen in drawn])

    def exchanged(self, swap_RG: Float[np.ndarray, "R G"]) -> Float[np.ndarray, " R"]:
        """The gap with the two sides exchanged on the units with 1."""
        return np.array([self.gap_of([(i, bool(swap_G[u])) for i, u in enumerate(self.unit_N)]) for swap_G in swap_RG])

    def left_out(self) -> Float[np.ndarray, " B"]:
        """The gap without each block of units: blocks keep the sums of squares and cubes that acceleration takes."""
        block_G = np.arange(self.n_units) * min(self.n_blocks, self.n_units) // self.n_units
        kept_BG = (block_G[None, :] != np.arange(int(block_G.max()) + 1)[:, None]).astype(np.float64)
        return self.gaps(kept_BG)


@dataclass(frozen=True)
class Gap:
    """A gap with its interval and test; arrays have an entry a data set."""

    gap: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p_value: NDArray[np.float64]
    """Two-sided, of no difference."""
    is_bca: NDArray[np.bool_]
    """Whether BCa is defined; percentiles stand in where it is not."""
    standard_error: NDArray[np.float64]
    """The jackknife's, whole clusters left out."""
    freedom: NDArray[np.float64]
    """Degrees of freedom of `standard_error`: units − 1, Satterthwaite's over strata."""
    skewness: NDArray[np.float64]
    """Of what units add to the gap."""


def mean_of_sums(sums: Float[np.ndarray, "R *K 2"]) -> Float[np.ndarray, "R ..."]:
    """Σ value / Σ weight, where that is not 0."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def unit_codes(clusters: npt.ArrayLike | None, n: int) -> Int[np.ndarray, " N"]:
    """Each document's unit: itself, or its cluster. Raises `ValueError` unless there are n names."""
    if clusters is None:
        return np.arange(n)
    names_N = np.asarray(clusters)
    if names_N.shape != (n,):
        raise ValueError(f"{n} documents need {n} cluster names, got shape {names_N.shape}")
    return np.unique(names_N, return_inverse=True)[1]


def sums_by_unit(values_NC: Float[np.ndarray, "N C"], unit_N: Int[np.ndarray, " N"]) -> Float[np.ndarray, "G C"]:
    """Documents' values added up within units."""
    sums_GC = np.zeros((int(unit_N.max()) + 1, values_NC.shape[1]))
    np.add.at(sums_GC, unit_N, values_NC)
    return sums_GC


def resampled_gap(
    strata: Sequence[tuple[float, Resampled]],
    rng: np.random.Generator,
    level: float = 0.95,
    *,
    n_resamples: int = N_RESAMPLES,
    n_exchanges: int = N_EXCHANGES,
) -> Gap:
    """The gap Σ share · gap over strata, with a stratified BCa interval and exchange test.

    Each stratum's units are drawn, left out and exchanged by themselves. The test exchanges the two models' answers on
    random units (all patterns where few units differ; otherwise Phipson & Smyth 2010: (1 + hits) / (1 + exchanges)),
    for means the flipping of signs. Where it does not reject at 1 − `level`, the interval is widened to hold 0.

    Args:
        strata: of each, its share in the gap and its scores.
        rng: draws.
        level: of the interval.
        n_resamples: bootstrap draws.
        n_exchanges: random exchanges, where not all can be tried.
    """
    drawn = resample(strata, rng, n_resamples=n_resamples, n_exchanges=n_exchanges)
    found = drawn.bca.interval(level)
    open_ = drawn.p_value >= 1 - level
    return Gap(
        gap=drawn.gap,
        low=np.where(open_, np.minimum(found.low, 0.0), found.low),
        high=np.where(open_, np.maximum(found.high, 0.0), found.high),
        p_value=drawn.p_value,
        is_bca=found.defined,
        standard_error=drawn.standard_error,
        freedom=drawn.freedom,
        skewness=drawn.skewness,
    )


@dataclass(frozen=True)
class Draws:
    """All of a gap that is drawn once, whatever the level of its interval; arrays have an entry a data set."""

    gap: NDArray[np.float64]
    bca: Bca
    p_value: NDArray[np.float64]
    """Two-sided, of no difference."""
    standard_error: NDArray[np.float64]
    freedom: NDArray[np.float64]
    skewness: NDArray[np.float64]


def resample(
    strata: Sequence[tuple[float, Resampled]],
    rng: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
    n_exchanges: int = N_EXCHANGES,
) -> Draws:
    """The draws of `resampled_gap`, for intervals at several levels."""
    ones = [part.gaps(np.ones((1, part.n_units)))[0] for _, part in strata]
    gap = np.asarray(sum(share * one for (share, _), one in zip(strata, ones, strict=True)), dtype=np.float64)
    draws_R = sum(share * _draws(part, rng, n_resamples) for share, part in strata)
    influence_U, variance, freedom, bootstrapped = _jackknife(strata)
    ratio = np.divide(variance, bootstrapped, out=np.ones_like(variance), where=bootstrapped > 0)
    bca = Bca.of(gap, np.asarray(draws_R), influence_U, Width(np.sqrt(ratio), freedom))
    p_value = _exchange_p([(share, part) for share, part in strata], gap, rng, n_exchanges)
    return Draws(gap, bca, p_value, np.sqrt(variance), freedom, skewness(influence_U))


def _jackknife(strata: Sequence[tuple[float, Resampled]]) -> tuple[NDArray[np.float64], ...]:
    """Influences of all units, the gap's variance, its degrees of freedom, and the variance that a bootstrap shows."""
    influences, variances, freedoms, bootstrapped = [], [], [], []
    for share, part in strata:
        if part.n_units < 2:  # one unit shows nothing of how it varies
            continue
        out_B = part.left_out()
        n = len(out_B)
        influence_B = share * (n - 1) / n * (out_B.mean(axis=0) - out_B)
        influences.append(influence_B)
        variances.append((influence_B**2).sum(axis=0) * n / (n - 1))
        bootstrapped.append(variances[-1] * (part.n_units - 1) / part.n_units)
        freedoms.append(part.n_units - 1)
    if not influences:
        nothing = np.zeros_like(strata[0][1].gaps(np.ones((1, strata[0][1].n_units))))
        return nothing, nothing[0], np.ones_like(nothing[0]), nothing[0]
    variance = np.asarray(sum(variances))
    lost = np.asarray(sum(v**2 / f for v, f in zip(variances, freedoms, strict=True)))
    freedom = np.divide(variance**2, lost, out=np.full_like(variance, float(sum(freedoms))), where=lost > 0)
    return np.concatenate(influences), variance, freedom, np.asarray(sum(bootstrapped))


def _draws(part: Resampled, rng: np.random.Generator, n_resamples: int) -> Float[np.ndarray, "R ..."]:
    n, draws = part.n_units, []
    for rows in _chunks(n_resamples, n):
        drawn = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        draws.append(part.gaps(counts.astype(np.float64)))
    return np.concatenate(draws)


def _exchange_p(
    strata: Sequence[tuple[float, Resampled]], gap: NDArray[np.float64], rng: np.random.Generator, n_exchanges: int
) -> NDArray[np.float64]:
    differing = [np.flatnonzero(part.differs_G) for _, part in strata]
    n = sum(map(len, differing))
    hits, n_patterns, exact = np.zeros(gap.shape, dtype=np.int64), 0, n <= _MOST_EXACT
    patterns = _all(n) if exact else _random(n, n_exchanges, max(p.n_units for _, p in strata), rng)
    for swap_RD in patterns:
        null_R, start = np.zeros((len(swap_RD), *gap.shape)), 0
        for (share, part), units in zip(strata, differing, strict=True):
            swap_RG = np.zeros((len(swap_RD), part.n_units))
            swap_RG[:, units] = swap_RD[:, start : start + len(units)]
            null_R += share * part.exchanged(swap_RG)
            start += len(units)
        room = 1e-9 * np.maximum(np.abs(null_R).max(axis=0), np.abs(gap))
        hits += (np.abs(null_R) >= np.abs(gap) - room).sum(axis=0)
        n_patterns += len(swap_RD)
    return hits / n_patterns if exact else (hits + 1) / (n_patterns + 1)


def _all(n: int) -> Iterator[Float[np.ndarray, "R D"]]:
    yield ((np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1).astype(np.float64)


def _random(n: int, n_exchanges: int, n_units: int, rng: np.random.Generator) -> Iterator[Float[np.ndarray, "R D"]]:
    for rows in _chunks(n_exchanges, n_units):
        yield rng.integers(0, 2, size=(rows, n), dtype=np.int8).astype(np.float64)


def _chunks(n_rows: int, n_columns: int) -> Iterator[int]:
    chunk = max(1, min(_MOST_ROWS, _CHUNK_CELLS // max(n_columns, 1)))
    for start in range(0, n_rows, chunk):
        yield min(chunk, n_rows - start)


def _total(weights_RG: Float[np.ndarray, "R G"], values_GC: Float[np.ndarray, "G *K C"]) -> Float[np.ndarray, "R *K C"]:
    return (weights_RG @ values_GC.reshape(len(values_GC), -1)).reshape(len(weights_RG), *values_GC.shape[1:])
