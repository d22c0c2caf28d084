"""A realistic report made of planted numbers, and one whose every name and text is hostile."""

from __future__ import annotations

import numpy as np

from diffharness.report.schema import (
    Comparability,
    Completeness,
    Control,
    Provenance,
    Report,
    RunInfo,
    Task,
    Validation,
)
from tests.report.example_checks import example_claims, example_depth, example_flips, example_shapley, hostile_checks
from tests.report.example_latents import (
    CHANGED,
    EXAMPLE_ANNOTATION,
    example_latent,
    example_shift,
    hostile_annotation,
    hostile_latent,
)
from tests.report.example_quality import PAIRS, example_model, example_quality, example_replay, example_splice
from tests.report.example_tasks import example_task


def example_report(*, n_tasks: int = 10, n_latents: int = 60, seed: int = 0) -> Report:
    """The report of a pair like the organism: gaps up and down, nulls, one not tracked, one unaccounted."""
    generator = np.random.default_rng(seed)
    tasks = [example_task(position, generator) for position in range(n_tasks)]
    shapley, shapley_agreement = example_shapley(tasks)
    return Report(
        run=RunInfo(
            name="demo",
            created="2026-03-01T12:00:00Z",
            command="diffharness demo --seed 0 --output reports/demo",
            layer=2,
            n_layers=4,
            order="the mean of both orders",
            smallest_effect=0.02,
            seed=0,
            seconds=214.0,
            notes=("The corpus is written by the organism itself.",),
        ),
        models=tuple(example_model(side) for side in ("baseline", "candidate", "ancestor")),
        comparability=Comparability(documents_equal=True, prompts_equal=True, tokenizers_equal=True),
        quality=tuple(example_quality(name, sides) for name, sides in PAIRS),
        tasks=tuple(tasks),
        depth=example_depth(tasks),
        categories=example_shift(),
        latents=tuple(example_latent(j, tasks, generator) for j in range(n_latents)),
        annotation=EXAMPLE_ANNOTATION,
        shapley=shapley,
        shapley_agreement=shapley_agreement,
        changed=CHANGED,
        claims=example_claims(tasks),
        flips=example_flips(tasks),
        validation=Validation(
            completeness=Completeness(median=2e-5, percentile_99=0.0011, maximum=0.0042, n=900, nodes=8),
            replay=tuple(example_replay(t.task, side) for t in tasks for side in ("baseline", "candidate")),
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


def bare(report: Report) -> Report:
    """The report without what later stages add to an account: claims, Shapley values, depth and flips."""
    return report.model_copy(update={"claims": (), "shapley": (), "shapley_agreement": None, "depth": (), "flips": ()})


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
            **hostile_checks(report, {t.task: bad for t, bad in zip(report.tasks, HOSTILE, strict=True)}),
            "provenance": report.provenance.model_copy(update={"config": {every: every}, "versions": {every: every}}),
        }
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
            "splice": {name: example_splice(0.02 * (1 + i)) for i, name in enumerate(names)},
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
