"""How well a crosscoder reads its models, on tokens that it was not trained on.

Legend: N tokens, M models, D width, L latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import chunks
from diffharness.errors import RunError

DELTA_NORM_BINS = 20


@dataclass(frozen=True)
class QualityMeasures:
    """What `measure` found."""

    explained_variance: dict[str, float]
    """By side: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖², a ratio of sums over tokens."""
    l0: float
    """Mean number of active latents a token, at the inference threshold."""
    dead_share: float
    """Share of latents that never fired."""
    decoder_cosine_median: float | None
    """Between the first two models' decoders, over latents that fired; none with a single model."""
    delta_norm_edges: tuple[float, ...]
    delta_norm_counts: tuple[int, ...]
    """Latents by Δnorm of the first two models; those without a decoder in either are not counted."""
    threshold: float
    n_tokens: int


@torch.no_grad()
def measure(crosscoder: Crosscoder, heldout_NMD: Activations) -> QualityMeasures:
    """Measure on raw held-out activations, chunk by chunk, summing in float64.

    Raises:
        RunError: no tokens, or a model's activations are constant on them.
    """
    if len(heldout_NMD) == 0:
        raise RunError("crosscoder quality needs held-out tokens, there are none; give a larger corpus")
    error_M = torch.zeros(len(crosscoder.sides), dtype=torch.float64)
    square_M = torch.zeros_like(error_M)
    sum_MD = torch.zeros(crosscoder.mean_MD.shape, dtype=torch.float64)
    fired_L = torch.zeros(crosscoder.n_latents, dtype=torch.long)
    for x_NMD in chunks(heldout_NMD):
        f_NL = crosscoder.encode(x_NMD)
        fired_L += (f_NL > 0).sum(dim=0).cpu()
        # Ratios are those of raw units: the two spaces differ by one scale a model.
        z_NMD = crosscoder.normalize(x_NMD).to(torch.float64)
        error_M += (z_NMD - crosscoder.decode_normalized(f_NL)).square().sum(dim=(0, 2)).cpu()
        square_M += z_NMD.square().sum(dim=(0, 2)).cpu()
        sum_MD += z_NMD.sum(dim=0).cpu()
    n_tokens = len(heldout_NMD)
    variance_M = square_M - sum_MD.square().sum(dim=1) / n_tokens
    for side, variance in zip(crosscoder.sides, variance_M.tolist()):
        if not variance > 0:
            raise RunError(f"held-out activations of {side} do not vary; give a larger corpus")
    explained_M = 1 - error_M / variance_M
    edges, counts, cosine = _decoders(crosscoder, fired_L > 0)
    return QualityMeasures(
        explained_variance=dict(zip(crosscoder.sides, explained_M.tolist())),
        l0=int(fired_L.sum()) / n_tokens,
        dead_share=float((fired_L == 0).double().mean()),
        decoder_cosine_median=cosine,
        delta_norm_edges=edges,
        delta_norm_counts=counts,
        threshold=float(crosscoder.threshold),
        n_tokens=n_tokens,
    )


def _decoders(crosscoder: Crosscoder, alive_L: Tensor) -> tuple[tuple[float, ...], tuple[int, ...], float | None]:
    """Histogram of Δnorm and median cosine of the first two models."""
    edges = np.arange(DELTA_NORM_BINS + 1) / DELTA_NORM_BINS
    if len(crosscoder.sides) < 2:
        return tuple(edges.tolist()), (0,) * DELTA_NORM_BINS, None
    delta_L = delta_norm(crosscoder).cpu().numpy()
    counts, _ = np.histogram(delta_L[np.isfinite(delta_L)], bins=edges)
    cosine_L = decoder_cosine(crosscoder)[alive_L.to(crosscoder.W_dec_LMD.device)]
    cosine_L = cosine_L[cosine_L.isfinite()]
    cosine = float(cosine_L.median()) if len(cosine_L) else None
    return tuple(edges.tolist()), tuple(counts.tolist()), cosine
