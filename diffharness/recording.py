"""lm-eval's own door: its command line with the recording model, leaving scores, ledger and activations in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.artifacts import Workspace, fingerprint

if TYPE_CHECKING:
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
        _layer(model, model.layer)


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
    made_from = fingerprint(evaluation.model_args, dict(evaluation.settings), [t.hash for t in evaluation.tasks])
    with workspace.stage("evaluate", made_from) as folder:
        evaluation.save(folder)
        write_results(results, folder)
    if model.layer is None:
        return
    layer = _layer(model, model.layer)
    with workspace.stage("activations", fingerprint(made_from, layer), "activations") as folder:
        _save_activations(model, evaluation, layer, folder)


def _layer(model: RecordingModel, spec: str) -> int:
    from diffharness.activations.layers import decoder_layers, resolve_layer

    return resolve_layer(spec, len(decoder_layers(model.hf_model)[1]))


def _save_activations(model: RecordingModel, evaluation: Evaluation, layer: int, folder: Path) -> None:
    from diffharness.activations.capture import LayerReader
    from diffharness.activations.corpus import Text
    from diffharness.activations.replay import replay
    from diffharness.activations.store import StoreWriter

    read = {r.ids: Text(r.ids, f"{r.task}:{r.doc_id}") for r in evaluation.ledger if len(r.ids) > 1}
    texts = list(read.values())
    writer = StoreWriter(folder, sides=("recorded",), layer=layer, texts=texts)
    for batch in replay([LayerReader(model.hf_model, layer)], [text.ids for text in texts]):
        writer.add(batch)
    writer.finish()
