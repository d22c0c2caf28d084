"""The adapter to lm-eval's task side: tasks by name, and one evaluation.

`recording.py`, `forwarded.py`, `weights.py` and `loading.py` are the adapter to its model side, `gathering.py` to its
results, `command_line.py` to its command line; outside this room nothing imports lm-eval.
"""

# lm-eval's decorators and lazy exports hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation.gathering import gather
from diffharness.evaluation.loading import create_model, is_missing_folder, load_model, parse_model_args
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation

__all__ = [
    "PROTOCOL", "LoadedTasks", "create_model", "evaluate", "is_missing_folder", "load_model", "load_tasks",
    "parse_model_args", "write_results",
]  # fmt: skip

PROTOCOL = (
    "num_fewshot", "fewshot_random_seed", "apply_chat_template", "fewshot_as_multiturn", "system_instruction",
    "gen_kwargs", "samples",
)  # fmt: skip
"""Arguments of `simple_evaluate` that change what a model is asked."""


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks ready to be run, as often as needed."""

    tasks: dict[str, Task]
    manager: TaskManager

    @property
    def names(self) -> tuple[str, ...]:
        """The leaf tasks, in order."""
        return tuple(self.tasks)

    def check_metric(self, metric: str) -> None:
        """Refuse a metric (or `metric,filter`) that no task has.

        Metrics of foreign functions are let pass: they may come under names that only a result shows.

        Raises:
            UsageError: naming the metrics that there are.
        """
        known: list[str] = []
        for task in self.tasks.values():
            listed = task.get_config("metric_list") or []
            if any(m.get("hf_evaluate") or callable(m.get("metric")) for m in listed):
                return
            filters = [f["name"] for f in task.get_config("filter_list") or [{"name": "none"}]]
            known += [name for name in task.aggregation() if name not in known]
            known += [f"{m},{f}" for m in task.aggregation() for f in filters if f"{m},{f}" not in known]
        if metric not in known:
            names = ", ".join(name for name in known if "," not in name or "," in metric)
            raise UsageError(
                f"--metric {metric!r} is a metric of no task{_nearest(metric, set(known))}; there are: {names}"
            )

    def aggregation(self, task: str, metric: str) -> Callable[[list[Any]], float]:
        """lm-eval's own function from the documents' values to the task's score."""
        functions = self.tasks[task].aggregation()
        return functions.get(metric, lambda values: float(np.mean(values)))


def load_tasks(names: Sequence[str], include_path: Sequence[Path] = ()) -> LoadedTasks:
    """Find and load tasks, groups and patterns by name, as lm-eval does.

    Raises:
        UsageError: a name that no task has, a task that can not be loaded, a task without documents.
    """
    for path in include_path:
        if not path.is_dir():
            raise UsageError(f"--include-path {path} is not a folder; give the folder that holds the tasks' YAML files")
    if (own := _load_included(names, include_path)) is not None:
        return own
    manager = TaskManager(include_path=[str(p) for p in include_path] or None)
    known = set(manager.all_tasks)
    for name in names:
        matched = manager.match_tasks([name])
        if not matched and not Path(name).is_file():
            raise UsageError(f"task {name!r} is unknown{_nearest(name, known)}; `lm-eval ls tasks` lists all")
    return _load(names, manager)


def _load_included(names: Sequence[str], include_path: Sequence[Path]) -> LoadedTasks | None:
    """The tasks, where the included folders alone define them; patterns, tags and groups of others are left to lm-eval.

    lm-eval's own tasks are fourteen thousand files, which take it five seconds and more to read.
    """
    if not include_path:
        return None
    manager = TaskManager(include_path=[str(p) for p in include_path], include_defaults=False)
    if not set(names) <= {*manager.all_subtasks, *manager.all_groups}:
        return None
    try:
        return _load(names, manager)
    except UsageError:
        if set(names) <= set(manager.all_subtasks):
            raise
        return None


def _load(names: Sequence[str], manager: TaskManager) -> LoadedTasks:
    try:
        loaded = manager.load(list(names))["tasks"]
    except (StopIteration, IndexError) as error:  # what the datasets library makes of an empty file or split
        reason = f" ({error})" if str(error) else ""
        raise UsageError(f"{_tasks(names)} has no documents{reason}; check its dataset and split") from error
    except Exception as error:
        reason = _first_line(error)
        raise UsageError(f"{_tasks(names)} can not be loaded ({reason}); check its YAML and dataset") from error
    for name, task in loaded.items():
        if len(task.eval_docs) == 0:
            raise UsageError(f"task {name!r} has no documents; check its dataset and split")
    if not loaded:
        raise UsageError(f"{_tasks(names)} holds no tasks")
    return LoadedTasks(loaded, manager)


def _tasks(names: Sequence[str]) -> str:
    return f"task {names[0]!r}" if len(names) == 1 else f"one of the tasks {', '.join(names)}"


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}" if close else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def evaluate(
    model: RecordingModel,
    tasks: LoadedTasks,
    *,
    only: Sequence[str] | None = None,
    limit: float | None = None,
    model_args: str = "",
    protocol: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Run lm-eval and gather the scores, the documents and the ledger.

    Args:
        model: the recording model; its ledger is cleared first.
        tasks: the loaded tasks.
        only: names of the tasks to run; all by default.
        limit: documents a task (a count, or a fraction below 1).
        model_args: kept with the result.
        protocol: how to ask (`PROTOCOL`), or how a recorded evaluation asked, to ask in the same way.
        progress: called with (answered requests, all requests).

    Returns:
        The evaluation, and lm-eval's own result dictionary (with samples).

    Raises:
        RunError: lm-eval failed, or the ledger is short of a request.
    """
    model.clear_ledger()
    asked = dict(protocol or {})
    if asked.get("samples"):  # lm-eval logs documents under wrong numbers where they are not sorted
        asked["samples"] = {task: sorted(set(ids)) for task, ids in asked["samples"].items()}
    chosen = {name: tasks.tasks[name] for name in (only or tasks.names)}
    if progress is not None:
        _count_progress(model, progress)
    try:
        with _environment_described_once():
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=list(chosen.values()),
                task_manager=tasks.manager,
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                **asked,
            )
    except DiffharnessError:
        raise
    except Exception as error:
        raise RunError(f"lm-eval failed on {', '.join(chosen)}: {_first_line(error)}") from error
    if results is None:
        raise RunError("lm-eval returned no results on this process; run on one process")
    settings = {"limit": limit, "protocol": asked}
    evaluation = gather(model, chosen, dict(results), model_args=model_args, settings=settings)
    for task in chosen.values():
        # Requests and answers, which lm-eval keeps until the task is asked again.
        task._instances = None  # pyright: ignore[reportPrivateUsage]
    return evaluation, dict(results)


@contextmanager
def _environment_described_once() -> Iterator[None]:
    """lm-eval describes the machine after every evaluation, by `pip list` too: seconds for each arm of a check."""
    from torch.utils import collect_env

    describe = collect_env.get_pretty_env_info
    collect_env.get_pretty_env_info = partial(_environment, describe)
    try:
        yield
    finally:
        collect_env.get_pretty_env_info = describe


@cache
def _environment(describe: Callable[[], str]) -> str:
    return describe()


def _count_progress(model: RecordingModel, progress: Callable[[int, int], None]) -> None:
    """Count answers; the total is only known once lm-eval has built its requests, one request type at a time."""
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        progress(done, max(done, model.n_requests))

    model.report_progress(report)


def write_results(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write lm-eval's results and samples in its own JSON shapes."""
    body = {key: value for key, value in results.items() if key != "samples"}
    files = [folder / "results.json"]
    files[0].write_text(
        json.dumps(body, indent=2, default=handle_non_serializable, ensure_ascii=False), encoding="utf-8"
    )
    for name, samples in results.get("samples", {}).items():
        file = folder / f"samples_{name.replace('/', '_')}.jsonl"
        lines = (json.dumps(s, default=handle_non_serializable, ensure_ascii=False) for s in samples)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append(file)
    return files
