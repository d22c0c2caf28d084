"""lm-eval's command line with the recording model, evaluated as lm-eval itself would and gathered when it is done."""

# lm-eval's decorators and lazy exports hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api import registry
from lm_eval.tasks import TaskManager

from diffharness.errors import UsageError
from diffharness.evaluation.gathering import gather
from diffharness.evaluation.harness import PROTOCOL, create_model
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation

_ABLATED = ("diffharness-ablated", "diffharness.attribution.ablated:AblatedModel")
"""A model of a run's folder, by its name and where its class is, which is only looked at when it is asked for."""

Ready = Callable[[RecordingModel], None]
Finished = Callable[[RecordingModel, Evaluation, dict[str, Any]], None]


def run_command_line(arguments: Sequence[str], ready: Ready, finished: Finished) -> None:
    """Run lm-eval's command line with the recording model, and the models of a run's folder, registered.

    Args:
        arguments: what would follow `lm-eval`.
        ready: called with the model when `--model diffharness` was used, before anything is scored.
        finished: called with the model, its evaluation and lm-eval's results when `--model diffharness` was used.
    """
    from lm_eval.__main__ import cli_evaluate

    if _ABLATED[0] not in registry.model_registry:
        registry.model_registry.register(_ABLATED[0], target=_ABLATED[1])
    simple_evaluate = lm_eval.simple_evaluate

    def watched(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("model") != "diffharness":
            return simple_evaluate(*args, **kwargs)
        return _recorded(simple_evaluate, kwargs, ready, finished)

    with (
        _replaced(sys, "argv", ["diffharness lm-eval", *arguments]),
        _replaced(lm_eval, "simple_evaluate", watched),
    ):
        cli_evaluate()


@dataclass
class _Loader:
    """Stands in for the model's class while lm-eval makes its model, so as to keep it."""

    ready: Ready
    model: RecordingModel | None = None

    def create_from_arg_obj(self, arguments: dict[str, Any], options: dict[str, Any]) -> RecordingModel:
        self.model = create_model(arguments, options)
        self.ready(self.model)
        return self.model


def _recorded(simple_evaluate: Callable[..., Any], kwargs: dict[str, Any], ready: Ready, finished: Finished) -> Any:
    """lm-eval's evaluation of the recording model, and what was gathered from it."""
    _refuse_caches(kwargs)
    if kwargs.get("samples"):
        kwargs["samples"] = {task: _sorted(task, ids) for task, ids in kwargs["samples"].items()}
    keeps_samples = kwargs.get("log_samples", True)
    manager, loader, tasks = kwargs["task_manager"], _Loader(ready), {}
    get_model, load = registry.get_model, manager.load

    def load_and_keep(specs: Any) -> Any:
        loaded = load(specs)
        tasks.update(loaded["tasks"])
        return loaded

    with (
        _replaced(registry, "get_model", lambda name: loader if name == "diffharness" else get_model(name)),
        _replaced(manager, "load", load_and_keep),
    ):
        results = simple_evaluate(**{**kwargs, "log_samples": True})
    if results is not None and loader.model is not None:
        model_args = _model_args_text(kwargs.get("model_args") or {})
        settings = _settings(kwargs, manager, loader.model.layer)
        evaluation = gather(loader.model, tasks, dict(results), model_args=model_args, settings=settings)
        finished(loader.model, evaluation, dict(results))
        if not keeps_samples:
            results.pop("samples", None)
    return results


def _refuse_caches(kwargs: Mapping[str, Any]) -> None:
    if kwargs.get("use_cache"):
        raise UsageError("--use_cache answers requests without the model, so nothing could be recorded; leave it out")
    if kwargs.get("cache_requests") and not kwargs.get("rewrite_requests_cache"):
        raise UsageError(
            "--cache_requests may ask what an earlier run of another task, split or generation setting asked; leave it "
            "out, or give `--cache_requests refresh`"
        )


def _sorted(task: str, ids: Sequence[int]) -> list[int]:
    """Document numbers as lm-eval goes through them; it logs others under wrong numbers."""
    if any(i < 0 for i in ids):
        raise UsageError(f"--samples of task {task!r} names document {min(ids)}; documents are numbered from 0")
    return sorted(set(ids))


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


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
