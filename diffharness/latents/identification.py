"""What each latent is: specific to a side, shared, other or dead, with the evidence.

Legend: L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffharness import defaults
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.latents.scaling import LatentScaling


@dataclass(frozen=True)
class IdentificationSettings:
    """Where the lines are drawn (Minder et al. 2504.02922)."""

    nu_reconstruction: float = defaults.NU_RECONSTRUCTION
    """A specific latent has ν^r below this."""
    nu_error: float = defaults.NU_ERROR
    """And ν^ε below this."""
    lowest_nu: float = -np.inf
    """And both at least this; the lineage's causal tests drop ratios below −0.1."""
    minimum_active: int = 20
    """And fires on at least so many tokens, for ratios of few tokens are noise."""
    shared_delta_norm: tuple[float, float] = (0.4, 0.6)
    """A shared latent has Δnorm within these."""
    specific_delta_norm: tuple[float, float] = (0.1, 0.9)
    """By norms alone, a latent is specific to the first side below, to the second above."""


@dataclass(frozen=True)
class LatentIdentity:
    """One row a latent; all arrays in the order of the crosscoder's latents."""

    status: tuple[str, ...]
    """`dead`, `<side>-specific`, `shared` or `other`; specific by ν."""
    status_by_norm: tuple[str, ...]
    """The same by Δnorm alone."""
    reason: tuple[str, ...]
    """Why it has its status, in words."""
    side: tuple[str, ...]
    """The side that the latent leans to: with the larger decoder, whose decoder was the probe."""
    delta_norm: NDArray[np.float64]
    """0: the first side only; ½: alike; 1: the second side only. NaN without a decoder."""
    cosine: NDArray[np.float64]
    """Between the two decoder vectors; NaN where either is zero."""
    scaling: LatentScaling

    @property
    def pair(self) -> tuple[str, str]:
        """The sides compared: (baseline, candidate), or an ancestor and a model tuned from it."""
        return self.scaling.pair

    def specific_to(self, side: str) -> NDArray[np.int64]:
        """Indices of the latents specific to a side."""
        return np.flatnonzero(np.array(self.status) == f"{side}-specific")

    def counts(self) -> dict[str, int]:
        """Number of latents by status, every status named."""
        names = [*(f"{side}-specific" for side in self.pair), "shared", "other", "dead"]
        return {name: self.status.count(name) for name in names}


def identify(
    crosscoder: Crosscoder, scaling: LatentScaling, settings: IdentificationSettings | None = None
) -> LatentIdentity:
    """Say what each latent is, for the pair of sides that was scaled.

    Specific is decided by latent scaling alone: norms of narrow fine-tunes hardly differ, and norms that
    differ may be artefacts. What norms alone would say stands beside it.
    """
    settings = settings or IdentificationSettings()
    first, second = (crosscoder.sides.index(side) for side in scaling.pair)
    delta_L = delta_norm(crosscoder, (first, second)).cpu().numpy()
    nu_reconstruction_L, nu_error_L = scaling.nu_reconstruction.value_L, scaling.nu_error.value_L
    below_L = (nu_reconstruction_L < settings.nu_reconstruction) & (nu_error_L < settings.nu_error)
    specific_L = (
        below_L
        & (np.minimum(nu_reconstruction_L, nu_error_L) >= settings.lowest_nu)
        & (scaling.n_active_L >= settings.minimum_active)
    )
    dead_L = scaling.n_active_L == 0
    low, high = settings.shared_delta_norm
    shared_L = (delta_L >= low) & (delta_L <= high)
    side_L = np.array(scaling.pair)[scaling.leans_L]
    own_L = np.char.add(side_L, "-specific")
    lowest, highest = settings.specific_delta_norm
    by_norm_L = (delta_L < lowest) | (delta_L > highest)
    status_L = np.select([dead_L, specific_L, shared_L], ["dead", own_L, "shared"], default="other")
    return LatentIdentity(
        status=tuple(status_L.tolist()),
        status_by_norm=tuple(np.select([dead_L, by_norm_L, shared_L], ["dead", own_L, "shared"], "other").tolist()),
        reason=tuple(_reason(scaling, settings, delta_L, j) for j in range(len(delta_L))),
        side=tuple(side_L.tolist()),
        delta_norm=delta_L,
        cosine=decoder_cosine(crosscoder, (first, second)).cpu().numpy(),
        scaling=scaling,
    )


def _reason(scaling: LatentScaling, settings: IdentificationSettings, delta_L: NDArray[np.float64], j: int) -> str:
    """What decided about latent j."""
    n_active = int(scaling.n_active_L[j])
    if n_active == 0:
        return "it never fired"
    if np.isnan(delta_L[j]):
        return "it has no decoder"
    nu_reconstruction, nu_error = scaling.nu_reconstruction.value_L[j], scaling.nu_error.value_L[j]
    ratios = f"ν^r = {nu_reconstruction:.2f} and ν^ε = {nu_error:.2f}"
    limits = f"{settings.nu_reconstruction:g} and {settings.nu_error:g}"
    low, high = settings.shared_delta_norm
    norm = f"Δnorm = {delta_L[j]:.2f} is {'within' if low <= delta_L[j] <= high else 'outside'} {low:g} to {high:g}"
    if np.isnan(nu_reconstruction) or np.isnan(nu_error):
        side = scaling.pair[scaling.leans_L[j]]
        return f"it does not explain the {side}, to which it leans, so ν says nothing; {norm}"
    if not (nu_reconstruction < settings.nu_reconstruction and nu_error < settings.nu_error):
        return f"{ratios} are not both below {limits}; {norm}"
    if min(nu_reconstruction, nu_error) < settings.lowest_nu:
        return f"{ratios}: one is below {settings.lowest_nu:g}; {norm}"
    if n_active < settings.minimum_active:
        return f"{ratios} are below {limits}, but it fired on {n_active} of at least {settings.minimum_active} tokens"
    highs = (scaling.nu_reconstruction.high_L[j], scaling.nu_error.high_L[j])
    if np.isnan(highs).any():
        doubt = "too few documents have it for an interval"
    elif highs[0] < settings.nu_reconstruction and highs[1] < settings.nu_error:
        doubt = "so are the upper ends of both intervals"
    else:
        doubt = "but not the upper ends of both intervals"
    return f"{ratios} are below {limits}, {doubt}"
