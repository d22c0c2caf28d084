"""The models and crosscoders of the example report, and how well replay reads them."""

from __future__ import annotations

from diffharness.report.schema import (
    CrosscoderQuality,
    DecoderPair,
    Histogram,
    Interval,
    ModelInfo,
    ReplayCheck,
    Side,
    SpliceLoss,
    Stability,
)

PAIRS: tuple[tuple[str, tuple[Side, ...]], ...] = (
    ("baseline–candidate", ("baseline", "candidate")),
    ("ancestor–baseline", ("ancestor", "baseline")),
    ("ancestor–candidate", ("ancestor", "candidate")),
)


def example_quality(name: str, sides: tuple[Side, ...]) -> CrosscoderQuality:
    counts = (2, 3, 5, 14, 60, 180, 140, 50, 20, 4)
    delta_norm = Histogram(edges=tuple(i / 10 for i in range(11)), counts=counts)
    cosine = Histogram(edges=tuple(i / 5 - 1 for i in range(11)), counts=(0, 0, 1, 2, 6, 9, 14, 40, 150, 256))
    main = name == "baseline–candidate"
    return CrosscoderQuality(
        name=name,
        models=sides,
        n_latents=512,
        k=16,
        l0=15.7,
        sparsity="batch_topk",
        activation="threshold",
        threshold=1.31,
        explained_variance={side: 0.93 - 0.01 * i for i, side in enumerate(sides)},
        dead_share=0.066,
        decoder_cosine_median=0.88,
        delta_norm=delta_norm,
        pairs=(DecoderPair(first=sides[0], second=sides[1], delta_norm=delta_norm, cosine=cosine, cosine_median=0.88),),
        splice={side: example_splice(0.021 + 0.004 * i) for i, side in enumerate(sides)} if main else {},
        splice_reason=None if main else "it is measured for the main crosscoder alone",
        stability=_STABILITY if main else None,
        stability_reason=None if main else "there is no second training to compare with (--seeds 2)",
        n_train_tokens=360_000,
        n_heldout_tokens=40_000,
        n_measured_tokens=40_000,
        n_by_status={"shared": 410, "candidate-specific": 3, "baseline-specific": 1, "other": 64, "dead": 34},
    )


_STABILITY = Stability(
    share=0.714, cosine=0.9, cosine_median=0.953, chance_share=0.0, n_latents=478, seeds=(0, 1)
)  # fmt: skip


def example_splice(delta: float) -> SpliceLoss:
    return SpliceLoss(
        n_texts=64,
        n_tokens=5_120,
        ce=1.842,
        ce_spliced=1.842 + delta,
        ce_zeroed=4.61,
        ce_mean=3.27,
        delta_ce=delta,
        interval=Interval(low=delta - 0.006, high=delta + 0.006, method="Student's t over texts"),
        loss_recovered=1 - delta / (4.61 - 1.842),
        loss_recovered_mean=1 - delta / (3.27 - 1.842),
    )


def example_model(side: Side) -> ModelInfo:
    return ModelInfo(
        side=side,
        name=f"organism-{side}",
        model_args=f"pretrained=organism/{side}",
        n_parameters=221_440,
        n_layers=4,
        hidden_size=64,
        dtype="float32",
        fingerprint="9f86d081884c7d65",
    )


def example_replay(task: str, side: Side) -> ReplayCheck:
    return ReplayCheck(
        task=task,
        side=side,
        n=64,
        n_requests=120,
        median=1.2e-6,
        maximum=3.1e-5,
        tolerance=1e-2,
        median_tolerance=1e-3,
        n_decisions=120,
        changed_share=0.0,
        changed_tolerance=0.02,
        holds=True,
    )
