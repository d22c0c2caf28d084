"""How well the crosscoders of a report read their models."""

from __future__ import annotations

from diffharness.report.schema.base import Histogram, Interval, Model


class DecoderPair(Model):
    """Two models' decoders compared latent by latent, in the crosscoder's normalised space."""

    first: str
    second: str
    delta_norm: Histogram
    """Latents by Δnorm: at 0 only `first` has them, at 1 only `second`."""
    cosine: Histogram
    """Latents that fired, by the cosine between their two decoder vectors."""
    cosine_median: float | None


class SpliceLoss(Model):
    """One model's cross-entropy on held-out texts when its activations at the layer are replaced.

    In nats a prediction, over all predictions of a next token that the replacement can change. Replaced are all
    positions with a code.
    """

    n_texts: int
    n_tokens: int
    """Predictions."""
    ce: float
    """With the model's own activations."""
    ce_spliced: float
    """With their reconstruction."""
    ce_zeroed: float
    """With zeros."""
    ce_mean: float
    """With the mean activation."""
    delta_ce: float
    """`ce_spliced` − `ce`."""
    interval: Interval | None
    """Of `delta_ce`, over texts; `None` for a single text."""
    loss_recovered: float | None
    """(`ce_zeroed` − `ce_spliced`) / (`ce_zeroed` − `ce`); `None` where zeros do not raise the cross-entropy."""
    loss_recovered_mean: float | None
    """The same against the mean activation, which is stricter; `None` where that does not raise the cross-entropy."""


class Stability(Model):
    """Whether a training from another seed finds the same latents."""

    share: float
    """Of the living latents: those with a latent of the other training at a decoder cosine above `cosine`."""
    cosine: float
    cosine_median: float
    """Of each living latent's best cosine."""
    chance_share: float
    """`share`, as it is expected against random directions."""
    n_latents: int
    """Living latents."""
    seeds: tuple[int | None, ...]
    """Of the two trainings; `None` where it is not known."""


class CrosscoderQuality(Model):
    """How well one crosscoder reads its models, on tokens it was not trained on.

    A model is named by its side; where the crosscoder reads several layers, by `side@layer`.
    """

    name: str
    """For example `baseline–candidate`."""
    models: tuple[str, ...]
    """Its sides."""
    n_latents: int
    k: int | None
    """Wanted mean number of active latents a token; `None` where the crosscoder's file does not say it."""
    l0: float
    """Measured mean number of active latents a token by the inference rule."""
    sparsity: str | None = None
    """How it was trained to be sparse; `None` where that is not known."""
    activation: str | None = None
    """The rule by which its code is read."""
    threshold: float | None
    """What scaled activations have to exceed; `None` where the rule has none, or one a latent or model."""
    explained_variance: dict[str, float]
    """By model: 1 − Σ‖x − x̂‖² / Σ‖x − mean‖², a ratio of sums."""
    dead_share: float
    """Share of latents that never fired on the held-out tokens."""
    decoder_cosine_median: float | None
    """Median cosine between the first two models' decoder vectors of a latent."""
    delta_norm: Histogram
    """Of the first two models."""
    pairs: tuple[DecoderPair, ...] = ()
    """Every two models at one layer, the first two among them."""
    splice: dict[str, SpliceLoss] = {}
    """By model."""
    splice_reason: str | None = None
    """Why there is no splice, where there is none."""
    stability: Stability | None = None
    stability_reason: str | None = None
    """Why there is none."""
    stale: str | None = None
    """Why a loaded crosscoder must not be trusted on this run's activations; `None` where it may."""
    source: str = ""
    """Where a loaded crosscoder came from, and what was assumed in reading it; empty for one trained in the run."""
    n_train_tokens: int
    n_heldout_tokens: int
    """Tokens that the threshold was calibrated on."""
    n_measured_tokens: int | None = None
    """Held-out tokens that all this was measured on; `None` in reports that do not say it."""
    n_by_status: dict[str, int]
    """Number of latents by status (`LatentStatus`)."""
