"""The adapter to lm-eval's own command line: run as it is, with the recording model registered and listened to."""

# lm-eval's lazy exports hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from diffharness.errors import UsageError
from diffharness.evaluation.gathering import gather
from diffharness.evaluation.harness import PROTOCOL, create_model
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation

Ready = Callable[[RecordingModel], None]
Finished = Callable[[RecordingModel, Evaluation, dict[str, Any]], None]


@contextmanager
def _watched_evaluation(ready: Ready, finished: Finished) -> Iterator[None]:
    """Let lm-eval's command line run as it is, and be told of its model, tasks and results when it has them."""
    original = lm_eval.simple_evaluate

    def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
        if model != "diffharness":
            return original(model, *args, **kwargs)
        if kwargs.get("use_cache"):
            raise UsageError(
                "--use_cache answers requests without the model, so nothing could be recorded; leave it out"
            )
        recording = create_model(
            dict(kwargs.get("model_args") or {}),
            {key: kwargs.get(key) for key in ("batch_size", "max_batch_size", "device")},
        )
        ready(recording)
        manager = kwargs["task_manager"]
        load, tasks = manager.load, {}

        def watched_load(specs: Any) -> Any:
            loaded = load(specs)
            tasks.update(loaded["tasks"])
            return loaded

        manager.load = watched_load
        keeps_samples = kwargs.pop("log_samples", True)
        results = original(recording, *args, **kwargs, log_samples=True)
        if results is not None:
            evaluation = gather(
                recording,
                tasks,
                dict(results),
                model_args=_model_args_text(kwargs.get("model_args") or {}),
                settings=_settings(kwargs, manager, recording.layer),
            )
            finished(recording, evaluation, dict(results))
            if not keeps_samples:
                results.pop("samples", None)
        return results

    lm_eval.simple_evaluate = watched
    try:
        yield
    finally:
        lm_eval.simple_evaluate = original


def _settings(kwargs: dict[str, Any], manager: TaskManager, layer: str | None) -> dict[str, Any]:
    include_path = manager.include_path or []
    paths = include_path if isinstance(include_path, list) else [include_path]
    return {
        "limit": kwargs.get("limit"),
        "protocol": {key: kwargs[key] for key in PROTOCOL if kwargs.get(key) is not None},
        "batch_size": kwargs.get("batch_size"),
        "include_path": [str(Path(p).resolve()) for p in paths],
        "layer": layer,
    }


def _model_args_text(arguments: dict[str, Any]) -> str:
    """Model arguments as they are given on a command line, without what concerns the recording."""
    kept = {key: value for key, value in arguments.items() if key not in ("record_to", "layer")}
    if set(kept) == {"pretrained"}:
        return str(kept["pretrained"])
    return ",".join(f"{key}={value}" for key, value in kept.items())


def run_command_line(arguments: Sequence[str], ready: Ready, finished: Finished) -> None:
    """Run lm-eval's command line with the recording model registered.

    Args:
        arguments: what would follow `lm-eval`.
        ready: called with the model when `--model diffharness` was used, before anything is scored.
        finished: called with the model, its evaluation and lm-eval's results when `--model diffharness` was used.
    """
    from lm_eval.__main__ import cli_evaluate

    before = sys.argv
    sys.argv = ["diffharness lm-eval", *arguments]
    try:
        with _watched_evaluation(ready, finished):
            cli_evaluate()
    finally:
        sys.argv = before
