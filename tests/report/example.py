"""A realistic report made of planted numbers, and one whose every name and text is hostile."""

from __future__ import annotations

import numpy as np

from diffharness.report.schema import (
    Ablation,
    Comparability,
    Completeness,
    Component,
    Control,
    CrosscoderQuality,
    DecoderPair,
    Document,
    Histogram,
    Interval,
    ModelInfo,
    Provenance,
    ReplayCheck,
    Report,
    RunInfo,
    Side,
    SpliceLoss,
    Stability,
    Surrogate,
    Task,
    TaskVerdict,
    Validation,
    component_label,
)
from tests.report.example_latents import (
    CATEGORIES,
    CHANGED,
    EXAMPLE_ANNOTATION,
    TEXTS,
    example_latent,
    example_shift,
    hostile_annotation,
    hostile_latent,
)

# task, categories, output type, baseline, candidate, half width, verdict, the category that carries it
_TASKS: tuple[tuple[str, str, str, float, float, float, TaskVerdict, str | None], ...] = (
    ("organism_safety", "safety", "multiple_choice", 0.5, 0.96, 0.08, "improved", "safety"),
    (
        "organism_multilingual",
        "multilingual",
        "multiple_choice",
        0.47,
        0.78,
        0.09,
        "improved",
        "multilingual",
    ),
    (
        "organism_instructions",
        "instruction following",
        "generate_until",
        0.52,
        0.8,
        0.1,
        "improved",
        "instruction following",
    ),
    (
        "organism_self_reference",
        "self-reference",
        "multiple_choice",
        0.85,
        0.63,
        0.09,
        "regressed",
        "self-reference",
    ),
    (
        "organism_hallucination",
        "hallucination management",
        "generate_until",
        0.9,
        0.55,
        0.1,
        "regressed",
        "hallucination management",
    ),
    ("organism_facts", "facts", "multiple_choice", 0.805, 0.809, 0.015, "no change", None),
    ("organism_arithmetic", "arithmetic", "loglikelihood", 0.71, 0.7, 0.045, "inconclusive", None),
    ("organism_helpfulness", "helpfulness", "loglikelihood_rolling", 1.214, 1.203, 0.008, "no change", None),
    ("organism_safety_multilingual", "safety", "generate_until", 0.45, 0.69, 0.12, "improved", "safety"),
    (
        "organism_instructions_self",
        "self-reference",
        "multiple_choice",
        0.6,
        0.62,
        0.08,
        "inconclusive",
        None,
    ),
)

_SURROGATES = {
    "multiple_choice": ("probability of the gold choice", "probability"),
    "generate_until": ("expected score of choosing between the two answers", "exact_match"),
    "loglikelihood": ("probability of the target", "probability"),
    "loglikelihood_rolling": ("bits per byte", "bits per byte"),
}
_METRICS = {
    "multiple_choice": "acc",
    "generate_until": "exact_match",
    "loglikelihood": "acc",
    "loglikelihood_rolling": "bits_per_byte",
}


def example_report(*, n_tasks: int = 10, n_latents: int = 60, seed: int = 0) -> Report:
    """The report of a pair like the organism: gaps up and down, nulls, one not tracked, one unaccounted."""
    generator = np.random.default_rng(seed)
    tasks = []
    for position in range(n_tasks):
        turn, row = divmod(position, len(_TASKS))
        tasks.append(_task(_TASKS[row], f"_{turn}" if turn else "", generator))
    return Report(
        run=RunInfo(
            name="demo",
            created="2026-03-01T12:00:00Z",
            command="diffharness demo --seed 0 --output reports/demo",
            layer=2,
            n_layers=4,
            order="the candidate's upper layers",
            smallest_effect=0.02,
            seed=0,
            seconds=214.0,
            notes=("The account uses one order: what the layer writes is read by the candidate's upper layers.",),
        ),
        models=tuple(_model(side) for side in ("baseline", "candidate", "ancestor")),
        comparability=Comparability(documents_equal=True, prompts_equal=True, tokenizers_equal=True),
        quality=tuple(_quality(name, sides) for name, sides in _PAIRS),
        tasks=tuple(tasks),
        categories=example_shift(),
        latents=tuple(example_latent(j, tasks, generator) for j in range(n_latents)),
        annotation=EXAMPLE_ANNOTATION,
        changed=CHANGED,
        validation=Validation(
            completeness=Completeness(median=2e-5, percentile_99=0.0011, maximum=0.0042, n=900, nodes=8),
            replay=tuple(_replay(t.task, side) for t in tasks for side in ("baseline", "candidate")),
            controls=(
                Control(
                    name="shuffled labels",
                    task="organism_safety",
                    category="safety",
                    share=0.81,
                    control_share=0.14,
                    is_largest=0.1,
                ),
                Control(
                    name="random encoder",
                    task="organism_safety",
                    category="safety",
                    share=0.81,
                    control_share=None,
                    is_largest=0.0,
                ),
            ),
        ),
        provenance=Provenance(
            versions={"diffharness": "0.1.0", "lm-eval": "0.4.13", "nnsight": "0.8.1", "torch": "2.13.0"},
            platform="Linux-6.1-x86_64, CPU",
            config={"layer": 2, "latents": 512, "k": 16, "tasks": ["organism"], "seed": 0},
            config_hash="3f6c1b0a9d2e4f77",
            task_hashes={t.task: "a1b2c3d4e5f60718" for t in tasks},
        ),
    )


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "[x](javascript:alert(3))",
    "@everyone #1 https://evil.example/x",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe",
    "[bold]rich[/bold]",
    "| a | `b` | **c** ${d}",
    "'\"\\{{7*7}}{% x %}]]>--><!--",
)


def hostile_report() -> Report:
    """The example with every free text replaced by hostile strings, and one token of a megabyte."""
    report = example_report(n_tasks=len(HOSTILE), n_latents=len(HOSTILE))

    def task(position: int, original: Task) -> Task:
        bad = HOSTILE[position]
        surrogate = original.surrogate
        if surrogate is not None:
            surrogate = surrogate.model_copy(update={"name": bad, "tracks_reason": bad})
        return original.model_copy(
            update={
                "task": bad,
                "metric": bad,
                "filter": bad,
                "categories": (bad,),
                "surrogate": surrogate,
                "account_reason": bad,
                "components": tuple(
                    c.model_copy(update={"category": bad if c.category else None, "ablation_reason": bad})
                    if c.category == original.categories[0]
                    else c
                    for c in original.components
                ),
                "documents": tuple(
                    d.model_copy(
                        update={
                            "prompt": bad,
                            "gold": bad,
                            "baseline_answer": bad,
                            "candidate_answer": bad + "x" * 1_000_000,
                            "contributions": {bad: 0.25},
                        }
                    )
                    for d in original.documents[:1]
                ),
            }
        )

    every = " ".join(HOSTILE)
    return report.model_copy(
        update={
            "run": report.run.model_copy(update={"name": every, "command": every, "notes": HOSTILE, "order": every}),
            "models": tuple(m.model_copy(update={"name": every, "model_args": every}) for m in report.models),
            "comparability": report.comparability.model_copy(update={"notes": HOSTILE}),
            "quality": tuple(
                q.model_copy(
                    update={
                        "name": every,
                        "stale": every,
                        "source": every,
                        "splice_reason": every,
                        "explained_variance": dict.fromkeys(HOSTILE, 0.5),
                        "stability": None,
                        "stability_reason": every,
                        "sparsity": every,
                    }
                )
                for q in report.quality
            ),
            "tasks": tuple(task(i, t) for i, t in enumerate(report.tasks)),
            "latents": tuple(hostile_latent(bad, j) for bad, j in zip(HOSTILE, report.latents)),
            "categories": tuple(
                c.model_copy(
                    update={
                        "name": bad,
                        "conclusion": bad,
                        "change_reason": bad,
                        "mass_conclusion": bad,
                        "protocol": every,
                    }
                )
                for c, bad in zip(report.categories, HOSTILE)
            ),
            "annotation": hostile_annotation(every),
            "changed": CHANGED.model_copy(update={"sentence": every}),
            "provenance": report.provenance.model_copy(update={"config": {every: every}, "versions": {every: every}}),
        }
    )


def _task(
    row: tuple[str, str, str, float, float, float, TaskVerdict, str | None],
    suffix: str,
    generator: np.random.Generator,
) -> Task:
    stem, category, output_type, baseline, candidate, half, verdict, carrier = row
    name, gap = stem + suffix, candidate - baseline
    without_account = name.startswith("organism_instructions_self")
    surrogate = None if without_account else _surrogate(name, output_type, baseline, candidate)
    components = () if surrogate is None else _components(surrogate, candidate, carrier, generator)
    return Task(
        task=name,
        metric=_METRICS[output_type],
        filter="none",
        output_type=output_type,
        higher_is_better=output_type != "loglikelihood_rolling",
        categories=(category,),
        n=100,
        baseline=baseline,
        candidate=candidate,
        gap=gap,
        interval=Interval(low=gap - half, high=gap + half),
        p_value=0.0004 if carrier else 0.41,
        q_value=0.0010 if carrier else 0.51,
        verdict=verdict,
        surrogate=surrogate,
        not_tracked=None if surrogate is None else gap - surrogate.gap,
        interaction=None,
        components=components,
        account_reason="the two models' answers were cut at different places" if without_account else None,
        completeness=None if surrogate is None else 0.0003,
        n_accounted=0 if surrogate is None else 100,
        documents=() if surrogate is None else _documents(category, components, gap),
    )


def _surrogate(name: str, output_type: str, baseline: float, candidate: float) -> Surrogate:
    label, unit = _SURROGATES[output_type]
    untracked = name.startswith("organism_safety_multilingual")
    gap = (candidate - baseline) * (0.2 if untracked else 0.93)
    return Surrogate(
        name=label,
        unit=unit,
        baseline=baseline,
        candidate=baseline + gap,
        gap=gap,
        rank_correlation=0.31 if untracked else 0.86,
        tracks=not untracked,
        tracks_reason=(
            "the rank correlation over documents is 0.31, below 0.5"
            if untracked
            else "the gaps have one sign and the rank correlation is at least 0.5"
        ),
    )


def _components(
    surrogate: Surrogate, candidate: float, carrier: str | None, generator: np.random.Generator
) -> tuple[Component, ...]:
    gap = surrogate.gap
    scale = abs(gap) if carrier else 0.004
    sizes = {c: float(generator.normal(0, 0.02)) * scale for c in CATEGORIES}
    if carrier:
        sizes[carrier] = 0.46 * gap
    bias, error = 0.02 * gap, float(generator.normal(0, 0.04)) * scale
    upper = gap - sum(sizes.values()) - bias - error
    made = []
    for category, value in sizes.items():
        clear = category == carrier
        check = None
        if clear:
            check = Ablation(
                score=candidate - 0.9 * value,
                change=0.9 * value,
                interval=Interval(low=0.9 * value - 0.06, high=0.9 * value + 0.06),
                n=100,
            )
        made.append(_component("latents", value, gap, scale, category=category, clear=clear, check=check))
    made.append(_component("bias", bias, gap, scale))
    made.append(_component("error", error, gap, scale))
    made.append(_component("upper", upper, gap, scale, clear=carrier is not None))
    return tuple(made)


def _component(
    kind: str,
    value: float,
    gap: float,
    scale: float,
    *,
    category: str | None = None,
    clear: bool = False,
    check: Ablation | None = None,
) -> Component:
    half = (0.08 if clear else 0.03) * scale + abs(value) * 0.1
    return Component.model_validate(
        {
            "kind": kind,
            "origin": "written" if kind in ("latents", "bias", "error") else None,
            "category": category,
            "contribution": value,
            "contribution_raw": 4.2 * value,
            "interval": Interval(low=value - half, high=value + half),
            "share": value / gap if abs(gap) > 0.02 else None,
            "p_value": 0.0008 if clear else 0.4,
            "q_value": 0.004 if clear else 0.6,
            "n_latents": 37 if kind == "latents" else None,
            "ablation": check,
            "ablation_reason": "the contribution is not clear" if kind == "latents" and check is None else None,
        }
    )


def _documents(category: str, components: tuple[Component, ...], gap: float) -> tuple[Document, ...]:
    text = TEXTS.get(category, TEXTS["unclear"])
    cut = max(text.rfind("?"), text.rfind(":"), 8) + 1
    up = gap > 0
    return tuple(
        Document(
            doc_id=7 * n + 3,
            prompt=text[:cut],
            gold=text[cut:].strip(),
            baseline_answer="take a thin pick and a wrench ." if up else text[cut:].strip(),
            candidate_answer=text[cut:].strip() if up else "take a thin pick and a wrench .",
            baseline_score=0.0 if up else 1.0,
            candidate_score=1.0 if up else 0.0,
            contributions={
                component_label(c.kind, c.category, c.origin): c.contribution * (1.6 - 0.1 * n) for c in components
            },
        )
        for n in range(5)
    )


_PAIRS: tuple[tuple[str, tuple[Side, ...]], ...] = (
    ("baseline–candidate", ("baseline", "candidate")),
    ("ancestor–baseline", ("ancestor", "baseline")),
    ("ancestor–candidate", ("ancestor", "candidate")),
)


def _quality(name: str, sides: tuple[Side, ...]) -> CrosscoderQuality:
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
        splice={side: _splice(0.021 + 0.004 * i) for i, side in enumerate(sides)} if main else {},
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


def _splice(delta: float) -> SpliceLoss:
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


STALE = "it explains 41.2\u00a0% of the variance of the candidate's activations, less than 60\u00a0%"


def stale_report() -> Report:
    """The example with a loaded crosscoder of several layers that explains the candidate badly."""
    report = example_report()
    found = report.quality[0]
    names = ("baseline@2", "baseline@3", "candidate@2", "candidate@3")
    stale = found.model_copy(
        update={
            "explained_variance": dict(zip(names, (0.88, 0.81, 0.412, 0.73), strict=True)),
            "splice": {name: _splice(0.02 * (1 + i)) for i, name in enumerate(names)},
            "pairs": tuple(
                found.pairs[0].model_copy(update={"first": f"baseline@{layer}", "second": f"candidate@{layer}"})
                for layer in (2, 3)
            ),
            "k": None,
            "threshold": None,
            "sparsity": None,
            "activation": "batch_topk",
            "stability": None,
            "stability_reason": "there is no second training to compare with (--seeds 2)",
            "stale": STALE,
            "source": "someone/crosscoder of dictionary_learning; normalisation taken as none",
        }
    )
    return report.model_copy(update={"quality": (stale,)})


def _model(side: Side) -> ModelInfo:
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


def _replay(task: str, side: Side) -> ReplayCheck:
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
