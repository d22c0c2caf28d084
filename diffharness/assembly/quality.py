"""A crosscoder's quality as a row of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffharness.report import schema

if TYPE_CHECKING:
    from diffharness.activations.splicing import SpliceLoss
    from diffharness.crosscoder.model import Crosscoder
    from diffharness.crosscoder.quality import DecoderPair, QualityMeasures
    from diffharness.crosscoder.stability import Stability


def quality(
    crosscoder: Crosscoder,
    measures: QualityMeasures,
    *,
    splice: Mapping[str, SpliceLoss] | None = None,
    stability: Stability | None = None,
    stale: str | None = None,
    source: str = "",
) -> schema.CrosscoderQuality:
    """The crosscoder's row in "can it be trusted"; statuses are counted later.

    Args:
        crosscoder: what was measured.
        measures: on held-out activations of the run.
        splice: what its reconstructions cost the models, by model; left out where it was not measured.
        stability: against a training from another seed, where there is one.
        stale: why it must not be trusted on these activations (`crosscoder.quality.staleness`).
        source: where it was loaded from.
    """
    config = crosscoder.config
    pairs = tuple(_pair(pair, measures) for pair in measures.pairs)
    nothing = schema.Histogram(edges=measures.delta_norm_edges, counts=(0,) * (len(measures.delta_norm_edges) - 1))
    said = (source, config.source if config.source not in source else "")
    return schema.CrosscoderQuality(
        name="–".join(config.sides),
        models=config.sides,
        n_latents=config.n_latents,
        k=config.k,
        l0=measures.l0,
        sparsity=None if config.training is None else config.training.sparsity,
        activation=config.activation,
        threshold=measures.threshold,
        explained_variance=measures.explained_variance,
        dead_share=measures.dead_share,
        decoder_cosine_median=pairs[0].cosine_median if pairs else None,
        delta_norm=pairs[0].delta_norm if pairs else nothing,
        pairs=pairs,
        splice={} if splice is None else {name: _splice(loss) for name, loss in splice.items()},
        splice_reason=None if splice else "it was not measured",
        stability=None if stability is None else _stability(stability),
        stability_reason=None if stability else "there is no second training to compare with (--seeds 2)",
        stale=stale,
        source="; ".join(part for part in said if part),
        n_train_tokens=config.n_train_tokens,
        n_heldout_tokens=config.n_heldout_tokens,
        n_measured_tokens=measures.n_tokens,
        n_by_status={},
    )


def _pair(pair: DecoderPair, measures: QualityMeasures) -> schema.DecoderPair:
    return schema.DecoderPair(
        first=pair.first,
        second=pair.second,
        delta_norm=schema.Histogram(edges=measures.delta_norm_edges, counts=pair.delta_norm_counts),
        cosine=schema.Histogram(edges=measures.cosine_edges, counts=pair.cosine_counts),
        cosine_median=pair.cosine_median,
    )


def _splice(loss: SpliceLoss) -> schema.SpliceLoss:
    interval = None
    if loss.delta_low is not None and loss.delta_high is not None:
        interval = schema.Interval(low=loss.delta_low, high=loss.delta_high, method="Student's t over texts")
    return schema.SpliceLoss(
        n_texts=loss.n_texts,
        n_tokens=loss.n_tokens,
        ce=loss.clean,
        ce_spliced=loss.spliced,
        ce_zeroed=loss.zeroed,
        ce_mean=loss.mean,
        delta_ce=loss.delta,
        interval=interval,
        loss_recovered=loss.loss_recovered,
        loss_recovered_mean=loss.loss_recovered_mean,
    )


def _stability(found: Stability) -> schema.Stability:
    return schema.Stability(
        share=found.share,
        cosine=found.cosine,
        cosine_median=found.cosine_median,
        chance_share=found.chance_share,
        n_latents=found.n_alive,
        seeds=found.seeds,
    )
