"""How well a crosscoder reads its models, on tokens that it was not trained on.

Legend: N tokens, M models (models × layers where several layers are read), D width, L latents; V is L, or M and L where
every model has a code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.crosscoder.batches import Activations
from diffharness.crosscoder.geometry import decoder_cosine, delta_norm
from diffharness.crosscoder.model import Crosscoder
from diffharness.crosscoder.normalisation import chunks, code_chunk_tokens
from diffharness.errors import RunError

DELTA_NORM_BINS = 20
COSINE_BINS = 40
STALE_EXPLAINED_VARIANCE = 0.6
"""Below this share of some model's variance a loaded crosscoder is *stale*: what it explains is not what is there."""
STALE_DROP = 0.1
"""So far below what its own `quality.json` states, it is *stale* too: it was made for other activations."""


@dataclass(frozen=True)
class DecoderPair:
    """The decoders of two models compared latent by latent, in the normalised space."""

    first: str
    second: str
    delta_norm_counts: tuple[int, ...]
    """Latents by Δnorm (0: only `first` has it, 1: only `second`), without those that have no decoder in either."""
    cosine_counts: tuple[int, ...]
    """Latents that fired, by the cosine of their two decoders; those without a decoder in one are not counted."""
    cosine_median: float | None
    """Over the same latents; none where there are none."""


@dataclass(frozen=True)
class QualityMeasures:
    """What `measure` found."""

    explained_variance: dict[str, float]
    """By model (`side@layer` where several layers are read): 1 − Σ‖x − x̂‖² / Σ‖x − mean‖², a ratio of sums over
    tokens, in raw units."""
    l0: float
    """Mean number of active latents a token by the inference rule; mean over models, where each has its own code."""
    dead_share: float
    """Share of latents that never fired, in any model's code."""
    pairs: tuple[DecoderPair, ...]
    """Every two models at the same layer, in the crosscoder's order; none with a single model."""
    delta_norm_edges: tuple[float, ...]
    cosine_edges: tuple[float, ...]
    threshold: float | None
    """What scaled activations have to exceed; none where the rule has no threshold, or one a latent or model."""
    n_tokens: int
    fired_L: Bool[Tensor, " L"] = field(repr=False, compare=False)
    """Which latents fired, on the CPU."""


@torch.no_grad()
def measure(crosscoder: Crosscoder, heldout_NMD: Activations) -> QualityMeasures:
    """Measure on raw held-out activations, in chunks that bound the memory, summing in float64.

    Models narrower than the widest are padded with zeros: the padding is reconstructed as zero and adds nothing. A
    `batch_topk` rule chooses within each chunk.

    Raises:
        RunError: no tokens, or a model's activations are constant on them or not finite.
    """
    if len(heldout_NMD) == 0:
        raise RunError("crosscoder quality needs held-out tokens, there are none; give a larger corpus")
    columns = crosscoder.config.columns
    error_M = torch.zeros(len(columns), dtype=torch.float64)
    square_M = torch.zeros_like(error_M)
    sum_MD = torch.zeros(crosscoder.mean_MD.shape, dtype=torch.float64)
    fired_L = torch.zeros(crosscoder.n_latents, dtype=torch.long)
    origin_MD = heldout_NMD[:1][0]  # any token: sums of squares around it do not cancel, and constants give 0
    for x_NMD in chunks(heldout_NMD, code_chunk_tokens(crosscoder.config)):
        f_NV = crosscoder.encode(x_NMD)
        fired_L += (f_NV != 0).flatten(0, -2).sum(dim=0).cpu()
        decoded_NMD = crosscoder.denormalize(crosscoder.decode_normalized(f_NV).double())
        x_NMD = x_NMD.to(decoded_NMD)
        error_M += (x_NMD - decoded_NMD).square().sum(dim=(0, 2)).cpu()
        x_NMD = x_NMD - origin_MD.to(x_NMD)
        square_M += x_NMD.square().sum(dim=(0, 2)).cpu()
        sum_MD += x_NMD.sum(dim=0).cpu()
    n_tokens = len(heldout_NMD)
    variance_M = square_M - sum_MD.square().sum(dim=1) / n_tokens
    for column, variance, error in zip(columns, variance_M.tolist(), error_M.tolist(), strict=True):
        if not (0 < variance < float("inf") and error < float("inf")):
            raise RunError(
                f"held-out activations of {column} have variance {variance:g} and error {error:g}; finite activations "
                "that vary are needed: give a larger corpus, check the model's dtype"
            )
    n_codes = n_tokens * (len(columns) if crosscoder.config.decoupled else 1)
    return QualityMeasures(
        explained_variance=dict(zip(columns, (1 - error_M / variance_M).tolist(), strict=True)),
        l0=int(fired_L.sum()) / n_codes,
        dead_share=float((fired_L == 0).double().mean()),
        pairs=decoder_pairs(crosscoder, fired_L > 0),
        delta_norm_edges=tuple((np.arange(DELTA_NORM_BINS + 1) / DELTA_NORM_BINS).tolist()),
        cosine_edges=tuple(_cosine_edges().tolist()),
        threshold=_threshold(crosscoder),
        n_tokens=n_tokens,
        fired_L=fired_L > 0,
    )


@torch.no_grad()
def reconstruct(crosscoder: Crosscoder, x_NMD: Float[Tensor, "N M D"]) -> Float[Tensor, "N M D"]:
    """Raw reconstructions of raw activations, in chunks that bound the memory whatever the number of latents."""
    pieces = x_NMD.split(code_chunk_tokens(crosscoder.config))
    return torch.cat([crosscoder(piece_NMD) for piece_NMD in pieces])


@torch.no_grad()
def decoder_pairs(crosscoder: Crosscoder, alive_L: Bool[Tensor, " L"]) -> tuple[DecoderPair, ...]:
    """Δnorm and cosines of every two models at the same layer, in float64."""
    columns, n_layers = crosscoder.config.columns, max(1, len(crosscoder.config.layers))
    places = range(len(columns))
    pairs = [(a, b) for a in places for b in places if a < b and a % n_layers == b % n_layers]
    return tuple(_pair(crosscoder, alive_L, a, b) for a, b in pairs)


def _pair(crosscoder: Crosscoder, alive_L: Tensor, a: int, b: int) -> DecoderPair:
    delta_L = delta_norm(crosscoder, (a, b)).cpu()
    cosine_L = decoder_cosine(crosscoder, (a, b)).cpu()[alive_L.cpu()]
    delta_L, cosine_L = delta_L[delta_L.isfinite()], cosine_L[cosine_L.isfinite()]
    delta_counts, _ = np.histogram(delta_L.numpy(), bins=np.arange(DELTA_NORM_BINS + 1) / DELTA_NORM_BINS)
    cosine_counts, _ = np.histogram(cosine_L.numpy(), bins=_cosine_edges())
    columns = crosscoder.config.columns
    return DecoderPair(
        first=columns[a],
        second=columns[b],
        delta_norm_counts=tuple(delta_counts.tolist()),
        cosine_counts=tuple(cosine_counts.tolist()),
        cosine_median=float(cosine_L.median()) if len(cosine_L) else None,
    )


def _cosine_edges() -> np.ndarray:
    return np.arange(COSINE_BINS + 1) / (COSINE_BINS / 2) - 1


def _threshold(crosscoder: Crosscoder) -> float | None:
    if crosscoder.config.activation != "threshold" or crosscoder.threshold.numel() != 1:
        return None
    return float(crosscoder.threshold)


def staleness(measures: QualityMeasures, stated: Mapping[str, float] | None = None) -> str | None:
    """Why a loaded crosscoder must be called *stale* on the run's activations, in words; none where it need not.

    Args:
        measures: of the loaded crosscoder, on held-out activations of the run.
        stated: explained variance by model that its own `quality.json` states; models under other names are not
            compared, and none where there is no such file.
    """
    reasons = []
    for name, value in measures.explained_variance.items():
        told = None if stated is None else stated.get(name)
        if not value >= STALE_EXPLAINED_VARIANCE:
            reasons.append(
                f"it explains {_percent(value)} of the variance of the {name}'s activations, "
                f"less than {_percent(STALE_EXPLAINED_VARIANCE, 0)}"
            )
        elif told is not None and not value >= told - STALE_DROP:
            reasons.append(
                f"it explains {_percent(value)} of the variance of the {name}'s activations, more than "
                f"{100 * STALE_DROP:.0f} points below the {_percent(told)} that its own quality.json states"
            )
    return "; ".join(reasons) or None


def _percent(share: float, digits: int = 1) -> str:
    """As the report writes it: a true minus, and a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%".replace("-", "−")
