"""What each latent is: specific to a side, shared, other or dead, with the evidence.

Legend: L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError
from diffharness.latents.scaling import LatentScaling


@dataclass(frozen=True)
class IdentificationSettings:
    """Where the lines are drawn (Minder et al. 2504.02922)."""

    nu_reconstruction: float = 0.5
    """A specific latent has ν^r below this."""
    nu_error: float = 0.2
    """And ν^ε below this."""
    lowest_nu: float = -np.inf
    """And both at least this; the lineage's causal tests drop ratios below −0.1."""
    minimum_active: int = 20
    """And fires on at least so many tokens, for ratios of few tokens are noise."""
    shared_delta_norm: tuple[float, float] = (0.4, 0.6)
    """A shared latent has Δnorm within these."""


@dataclass(frozen=True)
class LatentIdentity:
    """One row a latent; all arrays in the order of the crosscoder's latents."""

    pair: tuple[str, str]
    """The sides compared: (baseline, candidate), or an ancestor and a model tuned from it."""
    status: tuple[str, ...]
    """`dead`, `<side>-specific`, `shared` or `other`."""
    side: tuple[str, ...]
    """The side that the latent leans to: with the larger decoder, whose decoder was the probe."""
    delta_norm: NDArray[np.float64]
    """0: the first side only; ½: alike; 1: the second side only. NaN without a decoder."""
    nu_reconstruction: NDArray[np.float64]
    nu_error: NDArray[np.float64]
    """Other side over the side leant to; NaN where it can not be told."""
    cosine: NDArray[np.float64]
    """Between the two decoder vectors; NaN where either is zero."""
    density: NDArray[np.float64]
    """Share of tokens on which the latent fires."""
    n_active: NDArray[np.int64]
    mean_activation: NDArray[np.float64]
    """Of f Σ‖d‖ over the tokens on which it fires; NaN where it never does."""
    mass: NDArray[np.float64]
    """Sum of f Σ‖d‖ over tokens."""

    def specific_to(self, side: str) -> NDArray[np.int64]:
        """Indices of the latents specific to a side."""
        return np.flatnonzero(np.array(self.status) == f"{side}-specific")

    def counts(self) -> dict[str, int]:
        """Number of latents by status, every status named."""
        names = [*(f"{side}-specific" for side in self.pair), "shared", "other", "dead"]
        return {name: self.status.count(name) for name in names}


def identify(
    crosscoder: Crosscoder,
    scaling: LatentScaling,
    settings: IdentificationSettings | None = None,
    *,
    pair: tuple[str, str] | None = None,
) -> LatentIdentity:
    """Say what each latent is, for two of the crosscoder's sides (left out: its first two).

    Specific is decided by latent scaling alone: norms of narrow fine-tunes hardly differ, and norms that
    differ may be artefacts. `scaling` has to be probed from that pair (`scaling.leaning`).

    Raises:
        UsageError: a side of `pair` is not one of the crosscoder's.
    """
    settings = settings or IdentificationSettings()
    sides = crosscoder.sides
    names = pair or (sides[0], sides[1])
    unknown = [side for side in names if side not in sides]
    if unknown:
        raise UsageError(f"the crosscoder has no side {unknown[0]!r}; it has {', '.join(sides)}")
    indices = (sides.index(names[0]), sides.index(names[1]))
    delta_L = delta_norm(crosscoder, indices).cpu().numpy()
    nu_reconstruction_L, nu_error_L = scaling.nu_reconstruction(indices), scaling.nu_error(indices)
    specific_L = (
        (nu_reconstruction_L < settings.nu_reconstruction)
        & (nu_error_L < settings.nu_error)
        & (np.minimum(nu_reconstruction_L, nu_error_L) >= settings.lowest_nu)
        & (scaling.n_active_L >= settings.minimum_active)
    )
    low, high = settings.shared_delta_norm
    side_L = np.array(sides)[scaling.probe_L]
    status_L = np.select(
        [scaling.n_active_L == 0, specific_L, (delta_L >= low) & (delta_L <= high)],
        ["dead", np.char.add(side_L, "-specific"), "shared"],
        default="other",
    )
    return LatentIdentity(
        pair=names,
        status=tuple(status_L.tolist()),
        side=tuple(side_L.tolist()),
        delta_norm=delta_L,
        nu_reconstruction=nu_reconstruction_L,
        nu_error=nu_error_L,
        cosine=decoder_cosine(crosscoder, indices).cpu().numpy(),
        density=scaling.density_L,
        n_active=scaling.n_active_L,
        mean_activation=scaling.mean_activation_L,
        mass=scaling.mass_L,
    )
