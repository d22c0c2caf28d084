"""The files that plain lm-eval leaves: found below a folder, checked, and turned back into what lm-eval had in memory.

`lm-eval run --output_path DIR --log_samples` writes `results_<time>.json` and a `samples_<task>_<time>.jsonl` for
every task, below a folder named after the model (hidden, where the model's path began with a dot). All responses in
them are text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffharness.errors import UsageError

_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
"""The end of a results file's name; the rest of it is the user's where `--output_path` named a file."""
_WRITE = "write them with `lm-eval run ... --output_path DIR --log_samples`"
_KEYS = (
    "doc_id", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
)  # fmt: skip

Sample = dict[str, Any]
"""lm-eval's record of one document under one filter, in the shape it had in memory (without the document)."""


@dataclass(frozen=True)
class ResultFiles:
    """One run of plain lm-eval on disk."""

    results: Path
    samples: Mapping[str, Path]
    """By task, in lm-eval's order."""
    body: Mapping[str, Any]
    """What `results` holds."""
    notes: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        """lm-eval's name of the model type that answered: hf, vllm, local-completions, …"""
        return str(self.body["config"].get("model"))

    @property
    def model_name(self) -> str:
        """What the model was called."""
        return str(self.body.get("model_name") or self.results.parent.name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.samples)

    def output_type(self, task: str) -> str:
        """lm-eval's output type of a task."""
        return str(self.body["configs"][task].get("output_type"))

    def read(self, task: str) -> list[Sample]:
        """A task's samples, responses and arguments turned back into numbers and tuples.

        Raises:
            UsageError: naming file and line, where one is no sample, or the file, where it is short or was altered.
        """
        file, output_type = self.samples[task], self.output_type(task)
        samples = []
        for number, line in enumerate(_text(file).removesuffix("\n").split("\n"), 1):
            try:
                samples.append(_restored(json.loads(line), output_type))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error).split(": line")[0]
                raise UsageError(
                    f"{file}, line {number} is no sample of a {output_type} task ({reason}); copy the folder again, "
                    "or run lm-eval again"
                ) from error
        self._check_whole(task, samples)
        return samples

    def _check_whole(self, task: str, samples: list[Sample]) -> None:
        file = self.samples[task]
        n_filters = len({sample["filter"] for sample in samples})
        n_expected = int(self.body.get("n-samples", {}).get(task, {}).get("effective", 0)) * n_filters
        if not samples or (n_expected and len(samples) != n_expected):
            raise UsageError(
                f"{file} holds {len(samples)} samples where lm-eval wrote {n_expected or 'some'}; it was cut off: copy "
                "the folder again, or run lm-eval again"
            )
        hashes = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
        expected = self.body.get("task_hashes", {}).get(task)
        if expected and hashlib.sha256(hashes.encode()).hexdigest() != expected:
            raise UsageError(f"{file} is not the file that {self.results.name} was written with; run lm-eval again")


def find_results(folder: Path) -> ResultFiles:
    """The newest run of plain lm-eval below a folder, hidden folders included.

    Raises:
        UsageError: no folder, no results, results of several models, or results without samples.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the --output_path of `lm-eval run ... --log_samples`")
    found = sorted(
        ((match[1], file) for file in folder.rglob("*.json") if (match := _STAMP.search(file.name))), reverse=True
    )
    if not found:
        raise UsageError(f"{folder} holds no results of lm-eval; {_WRITE}, or record with `diffharness lm-eval run`")
    bodies = {file: _results(file) for _, file in found}
    models = {(str(body["config"].get("model")), str(body.get("model_name"))): file for file, body in bodies.items()}
    if len(models) > 1:
        names = ", ".join(f"{name} ({engine})" for engine, name in models)
        folders = sorted({str(file.parent) for file in models.values()})
        remedy = f"give the folder of one, as {folders[0]}" if len(folders) > 1 else "keep one in this folder"
        raise UsageError(f"{folder} holds results of {len(models)} models: {names}; {remedy}")
    stamp, newest = found[0]
    tasks = [task for task in bodies[newest]["results"] if task in bodies[newest]["configs"]]
    samples = {task: newest.with_name(f"samples_{task}_{stamp}.jsonl") for task in tasks}
    absent = [task for task in tasks if not samples[task].is_file()]
    if absent:
        where = "" if len(absent) == len(tasks) else f" of task {absent[0]!r}"
        raise UsageError(
            f"{newest} has no samples{where} beside it; run lm-eval again with `--log_samples` and --output_path"
        )
    notes = ()
    if len(found) > 1:
        others = sorted({task for body in bodies.values() for task in body["configs"]} - set(tasks))
        left = f"; its tasks are not those of the others ({', '.join(others)})" if others else ""
        notes = (f"{folder} holds {len(found)} runs; the newest, of {stamp}, is used{left}",)
    return ResultFiles(newest, samples, bodies[newest], notes)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can not be read ({error}); copy the folder again, or run lm-eval again") from error


def _results(file: Path) -> dict[str, Any]:
    """A results file's content."""
    try:
        body = json.loads(_text(file))
        shaped = all(isinstance(body[key], dict) and body[key] for key in ("results", "configs", "config"))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not a whole results file of lm-eval ({error}); {_WRITE}") from error
    if not shaped:
        raise UsageError(f"{file} is not a results file of lm-eval; {_WRITE}")
    return body


def _restored(line: Any, output_type: str) -> Sample:
    """A line of a samples file in the shape that lm-eval had in memory.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: it has another shape.
    """
    values = {key: line[key] for key in (*_KEYS, *line["metrics"])}
    arguments = values["arguments"]
    values["arguments"] = [
        tuple(arguments[f"gen_args_{i}"][f"arg_{j}"] for j in range(len(arguments[f"gen_args_{i}"])))
        for i in range(len(arguments))
    ]
    values["doc_id"] = int(values["doc_id"])
    values["resps"] = [[_response(r, output_type) for r in responses] for responses in values["resps"]]
    if len(values["resps"]) != len(arguments) or not all(values["resps"]):
        raise ValueError(f"{len(values['resps'])} responses to {len(arguments)} requests")
    if output_type != "generate_until":
        values["filtered_resps"] = [_response(r, output_type) for r in values["filtered_resps"]]
    return values


def _response(response: Any, output_type: str) -> Any:
    """A response as the model gave it: text, a log-likelihood (nats), or that with whether it was greedy."""
    if output_type == "generate_until":
        if not isinstance(response, str):
            raise ValueError("an answer that is not text")
        return response
    if output_type == "loglikelihood_rolling":
        return float(response[0] if isinstance(response, list) else response)
    log_likelihood, greedy = response
    if str(greedy) not in ("True", "False"):
        raise ValueError(f"is_greedy is {greedy!r}")
    return float(log_likelihood), str(greedy) == "True"
