"""lm-eval's own door: its command line with the recording model, leaving scores, ledger and activations in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import Workspace, fingerprint, model_fingerprint, split_model_args

if TYPE_CHECKING:
    from pathlib import Path

    from diffharness.evaluation.recording import RecordingModel
    from diffharness.evaluation.scores import Evaluation


def record_command_line(arguments: Sequence[str]) -> None:
    """Run `lm-eval` with these arguments; the model `diffharness` keeps what it read in its `record_to` folder."""
    from diffharness.evaluation.command_line import run_command_line

    run_command_line(arguments, check_recording, save_recording)


def check_recording(model: RecordingModel) -> None:
    """Refuse a folder or layer that could not be recorded, before anything is scored.

    Raises:
        UsageError: `record_to` can not be written, or `layer` is not one of the model's.
    """
    if model.record_to is not None:
        Workspace(model.record_to, "record_to")
    if model.layer is not None:
        _layers(model, model.layer)


def save_recording(model: RecordingModel, evaluation: Evaluation, results: dict[str, Any]) -> None:
    """Leave an evaluation in the model's `record_to` folder, with the activations of its `layer`.

    Args:
        model: the recording model; without `record_to` nothing is written.
        evaluation: what was gathered from it.
        results: lm-eval's result dictionary.
    """
    if model.record_to is None:
        return
    from diffharness.evaluation.harness import write_results

    workspace = Workspace(model.record_to, "record_to")
    weights = model_fingerprint(split_model_args(evaluation.model_args))
    evaluation = replace(evaluation, settings={**evaluation.settings, "model_fingerprint": weights})
    made_from = fingerprint(evaluation.model_args, dict(evaluation.settings), [t.hash for t in evaluation.tasks])
    with workspace.stage("evaluate", made_from) as folder:
        evaluation.save(folder)
        write_results(results, folder)
    if model.layer is None:
        return
    layers = _layers(model, model.layer)
    made_from = fingerprint(made_from, layers)
    with workspace.stage("activations", made_from, "activations", resumable=True) as folder:
        _save_activations(model, evaluation, layers, weights, folder)


def _layers(model: RecordingModel, spec: str) -> tuple[int, ...]:
    """The layers that `layer=` names: one, or several joined by `+`."""
    from diffharness.activations.layers import decoder_layers, resolve_layer

    n_layers = len(decoder_layers(model.hf_model)[1])
    return tuple(sorted({resolve_layer(part, n_layers) for part in spec.split("+")}))


def _save_activations(
    model: RecordingModel, evaluation: Evaluation, layers: tuple[int, ...], weights: str, folder: Path
) -> None:
    from diffharness.activations.capture import LayerReader
    from diffharness.activations.corpus import Text
    from diffharness.activations.harvesting import ReplayedTexts
    from diffharness.activations.store import StoreSpec, write_store

    hf_model = model.hf_model
    read = {r.ids: Text(r.ids, f"{r.task}:{r.doc_id}") for r in evaluation.ledger if len(r.ids) > 1}
    spec = StoreSpec(
        sides=("recorded",),
        layers=layers,
        d_model=hf_model.config.get_text_config().hidden_size,
        dtype=str(hf_model.dtype).removeprefix("torch."),
        models={"recorded": weights},
        special_ids=tuple(sorted(model.hf_tokenizer.all_special_ids)),
    )
    write_store(folder, spec, list(read.values()), ReplayedTexts([LayerReader(hf_model, layers)]))
