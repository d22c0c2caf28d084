"""The stage of the validity gate: do stored activations of every task give lm-eval's answers again?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.stages.reading import MAIN, Progress, write_json
from diffharness.stages.replaying import RunTexts, store_spec

if TYPE_CHECKING:
    from diffharness.activations.store import ActivationStore
    from diffharness.activations.validity import Agreement
    from diffharness.evaluation.scores import Evaluation
    from diffharness.pipeline import Run

RETOKENISED_CHANGED = 0.1
"""Share of an answer's tokens that may differ where they were made from its text."""


def validate(run: Run, folder: Path, progress: Progress) -> None:
    """Store activations of some sequences of every task, and let the upper layers answer from them."""
    from diffharness.activations.corpus import Text
    from diffharness.activations.store import ActivationStore, write_store
    from diffharness.activations.validity import sampled_readings, withheld_reason
    from diffharness.assembly.account import model_info

    evaluations = {side: run.load_evaluation(run.shared(side)) for side in MAIN}
    sampled = {
        (info.name, side): sampled_readings(
            [r for own in evaluation.ledger.by_document(info.name).values() for r in own]
        )
        for side, evaluation in evaluations.items()
        for info in evaluation.tasks
    }
    sources = {r.ids: f"{r.task}:{r.doc_id}" for readings in sampled.values() for r in readings}
    texts = [Text(ids, source) for ids, source in sources.items()]
    found: dict[tuple[str, str], Agreement] = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write_store(Path(scratch), store_spec(run), texts, RunTexts(run), progress)
        store = ActivationStore.open(Path(scratch))
        places = {text.ids: i for i, text in enumerate(store.texts)}
        for (task, side), readings in sampled.items():
            found[task, side] = _agreement(run, evaluations[side], task, side, store, places, readings)
    untried = [key for key, agreement in found.items() if agreement.is_empty]
    models = [
        model_info(
            side,
            run.session.model_args[side],
            run.session.model(side).hf_model,
            run.session.model_fingerprints[side],
            run.session.architectures[side].n_layers,
        )
        for side in run.sides
    ]
    body = {
        "checks": [_check_row(*key, agreement) for key, agreement in found.items() if key not in untried],
        "withheld": withheld_reason(found),
        "notes": [
            f"Replay of {task} ({side}) could not be tried: its answers were drawn at random, or are not known token "
            "by token."
            for task, side in untried
        ],
        "models": [model.model_dump(mode="json") for model in models],
        "layer": run.session.layer,
        "n_layers": run.session.n_layers,
    }
    write_json(folder / "validity.json", body)


def _agreement(
    run: Run,
    evaluation: Evaluation,
    task: str,
    side: str,
    store: ActivationStore,
    places: Mapping[tuple[int, ...], int],
    readings: Sequence[Any],
) -> Agreement:
    from diffharness.activations.validity import agreement, tolerance_of

    column = store.spec.sides.index(side)
    model = run.session.model(side).hf_model
    dtypes = [str(model.dtype), store.spec.dtype]
    quantised = getattr(model.config, "quantization_config", None) is not None
    tolerance = tolerance_of(dtypes, quantised=quantised)
    if any(r.retokenised for r in readings):
        tolerance = replace(tolerance, changed=RETOKENISED_CHANGED)
    return agreement(
        run.session.upper(side),
        lambda ids: store.text(places[ids], run.session.layer)[:, column],
        readings,
        greedy=not evaluation.task(task).sampled,
        tolerance=tolerance,
        sums={int(d): v for d, v in evaluation.settings.get("rolling_log_likelihood", {}).get(task, {}).items()},
    )


def _check_row(task: str, side: str, found: Agreement) -> dict[str, Any]:
    from diffharness.report import schema

    return schema.ReplayCheck(
        task=task,
        side=side,  # pyright: ignore[reportArgumentType]
        n=found.n_sequences,
        n_requests=found.n_requests,
        median=found.median,
        maximum=found.maximum,
        tolerance=found.tolerance.maximum,
        median_tolerance=found.tolerance.median,
        n_decisions=found.n_decisions,
        changed_share=found.changed_share,
        changed_tolerance=found.tolerance.changed,
        holds=found.holds,
    ).model_dump(mode="json")
