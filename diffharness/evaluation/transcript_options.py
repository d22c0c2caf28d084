"""What a run of plain lm-eval on disk asked, and of whom: the options that its folder stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffharness.errors import UsageError
from diffharness.evaluation.transcript_files import ResultFiles

if TYPE_CHECKING:
    from diffharness.evaluation.harness import LoadedTasks

HUGGING_FACE = ("hf", "hf-auto", "huggingface", "diffharness")
"""lm-eval's model types whose `pretrained` names the weights that answered."""
_NOT_WEIGHTS = ("record_to", "layer", "trust_remote_code")
"""Model arguments that are not taken over: others' files do not switch on code that comes with a model."""
_SEEDS = {
    "random_seed": "random_seed",
    "numpy_seed": "numpy_random_seed",
    "torch_seed": "torch_random_seed",
    "fewshot_seed": "fewshot_random_seed",
}
"""Names in a results file, and as arguments of `simple_evaluate`."""


def results_options(
    files: ResultFiles, side: str, replay: str | None = None, tasks: LoadedTasks | None = None
) -> dict[str, Any]:
    """The options that a folder of plain lm-eval stands for.

    Args:
        files: the run.
        side: baseline, candidate or ancestor.
        replay: lm-eval model arguments of the weights to replay with (`--replay-<side>`); by default those that
            answered.
        tasks: as for `protocol`.

    Returns:
        `side` (model arguments as text), `tasks`, `include_path`, `limit`, `layer`, `batch_size`, `protocol` (what
        `harness.evaluate` takes) and `notes`.

    Raises:
        UsageError: the run was not scored with Hugging Face weights, and `replay` names none.
    """
    batch_size = str(files.body["config"].get("batch_size"))
    remote = replay is None and _arguments(files).get("trust_remote_code")
    notes = ("trust_remote_code of the recorded run is not taken over; give it with the replay weights",)
    return {
        side: replay if replay is not None else _model_args(files, side),
        "tasks": files.tasks,
        "include_path": [],
        "limit": files.body["config"].get("limit"),
        "layer": None,
        "batch_size": int(batch_size) if batch_size.isdigit() else None,
        "protocol": protocol(files, tasks),
        "notes": (*files.notes, *(notes if remote else ())),
    }


def protocol(files: ResultFiles, tasks: LoadedTasks | None = None) -> dict[str, Any]:
    """How the run asked, as arguments of `simple_evaluate`.

    Two things are not in lm-eval's files: `--num_fewshot` is found by what it made of the tasks' own shots, and
    `--samples` from the documents where some are left out without a limit.

    Args:
        files: the run.
        tasks: the run's tasks, not yet evaluated; without them, shots are only told where all tasks have as many.
    """
    body, config = files.body, files.body["config"]
    asked: dict[str, Any] = {
        argument: config[name] for name, argument in _SEEDS.items() if config.get(name) is not None
    }
    if (shots := _num_fewshot(files, tasks)) is not None:
        asked["num_fewshot"] = shots
    if body.get("chat_template") is not None:
        asked["apply_chat_template"] = True
    asked["fewshot_as_multiturn"] = bool(body.get("fewshot_as_multiturn"))
    for key, value in (
        ("system_instruction", body.get("system_instruction")),
        ("gen_kwargs", config.get("gen_kwargs")),
        ("samples", _chosen(files)),
    ):
        if value:
            asked[key] = value
    return asked


def load_recorded_tasks(files: ResultFiles, include_path: Sequence[Path] = ()) -> LoadedTasks:
    """The tasks of a run, as this machine has them.

    Raises:
        UsageError: it has not; naming where the run had them from.
    """
    from diffharness.evaluation.harness import load_tasks

    try:
        return load_tasks(files.tasks, include_path)
    except UsageError as error:
        sources = [(files.body["configs"][t].get("metadata") or {}).get("config_source") for t in files.tasks]
        folders = sorted({str(Path(source).parent) for source in sources if source})
        raise UsageError(
            f"{files.results} was written with tasks that can not be loaded here: {error}; give the folder of their "
            f"YAML files with --include-path (they were in {', '.join(folders) or 'a folder that is not recorded'})"
        ) from error


def _num_fewshot(files: ResultFiles, tasks: LoadedTasks | None) -> int | None:
    """The `--num_fewshot` that gives the tasks the shots they had: it replaces a task's own, unless that is 0."""
    shots = {task: files.body.get("n-shot", {}).get(task) for task in files.tasks}
    if tasks is None:
        return next(iter(shots.values())) if len(set(shots.values())) == 1 else None
    own = {name: tasks.tasks[name].get_config("num_fewshot") for name in shots if name in tasks.tasks}
    for given in (None, *sorted({n for n in shots.values() if n is not None})):
        if all(shots[name] == ((n or 0) if n == 0 or given is None else given) for name, n in own.items()):
            return given
    return None


def _chosen(files: ResultFiles) -> dict[str, list[int]]:
    """The documents that `--samples` chose, by task."""
    if files.body["config"].get("limit") is not None:
        return {}
    counts = files.body.get("n-samples", {})
    some = [t for t in files.tasks if t in counts and counts[t]["effective"] < counts[t]["original"]]
    return {task: sorted({sample["doc_id"] for sample in files.read(task)}) for task in some}


def _arguments(files: ResultFiles) -> dict[str, Any]:
    arguments = files.body["config"].get("model_args") or {}
    if isinstance(arguments, str):
        return dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    return dict(arguments)


def _model_args(files: ResultFiles, side: str) -> str:
    """Model arguments of the weights that answered, as on a command line."""
    arguments = {key: value for key, value in _arguments(files).items() if key not in _NOT_WEIGHTS}
    remedy = f"give Hugging Face weights with --replay-{side}"
    if files.engine not in HUGGING_FACE or "pretrained" not in arguments:
        raise UsageError(
            f"{files.results} was scored by {files.engine!r} ({files.model_name}), whose weights can not be replayed "
            f"from here; {remedy}"
        )
    for key, value in arguments.items():
        if isinstance(value, dict | list) or "," in str(value):
            raise UsageError(
                f"{files.results}: model argument {key}={value} can not be given on a command line; {remedy}"
            )
    if set(arguments) == {"pretrained"}:
        return str(arguments["pretrained"])
    return ",".join(f"{key}={value}" for key, value in arguments.items())
