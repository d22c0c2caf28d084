"""What every view says of the crosscoders: rows of the quality tables, and sentences."""

from __future__ import annotations

from dataclasses import dataclass

from diffharness.report.numbers import count, percent, plain, signed
from diffharness.report.schema import CrosscoderQuality, DecoderPair, Histogram, Report, SpliceLoss


@dataclass(frozen=True)
class ModelRow:
    """How well one crosscoder reads one of its models."""

    crosscoder: str
    model: str
    explained_variance: float
    splice: SpliceLoss | None


def model_rows(qualities: tuple[CrosscoderQuality, ...]) -> tuple[ModelRow, ...]:
    """A row a crosscoder and model."""
    return tuple(
        ModelRow(quality.name, model, variance, quality.splice.get(model))
        for quality in qualities
        for model, variance in quality.explained_variance.items()
    )


def decoder_pairs(quality: CrosscoderQuality) -> tuple[DecoderPair, ...]:
    """The pairs of models; of reports before 1.2 the first pair, whose cosines have no histogram."""
    if quality.pairs or len(quality.models) < 2:
        return quality.pairs
    return (
        DecoderPair(
            first=quality.models[0],
            second=quality.models[1],
            delta_norm=quality.delta_norm,
            cosine=Histogram(edges=(), counts=()),
            cosine_median=quality.decoder_cosine_median,
        ),
    )


def rule_words(quality: CrosscoderQuality) -> str:
    """What kept the code sparse in training, and by which rule it is read."""
    return " → ".join(word for word in (quality.sparsity, quality.activation) if word) or "–"


def stale_sentences(report: Report) -> tuple[str, ...]:
    """A warning for every crosscoder that must not be trusted on this run's activations."""
    return tuple(
        f"The crosscoder {quality.name} is stale: {quality.stale}. What the report says about latents rests on it and "
        "may not hold"
        for quality in report.quality
        if quality.stale is not None
    )


def splice_sentence(quality: CrosscoderQuality) -> str | None:
    """What reconstructions cost the models, in the order of `explained_variance`; none where it was not measured."""
    losses = [loss for model in quality.explained_variance if (loss := quality.splice.get(model)) is not None]
    if not losses:
        return None
    deltas = ", ".join(signed(loss.delta_ce) for loss in losses)
    recovered = ", ".join(percent(loss.loss_recovered, 1) for loss in losses)
    return f"spliced: ΔCE {deltas} nats a token; loss recovered {recovered}"


def stability_sentence(quality: CrosscoderQuality) -> str | None:
    """How many latents another seed finds again; none where one seed was trained."""
    found = quality.stability
    if found is None:
        return None
    return (
        f"stable across seeds: {percent(found.share)} of {count(found.n_latents)} latents are found again "
        f"(decoder cosine above {plain(found.cosine, 1)})"
    )
