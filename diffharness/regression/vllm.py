"""vLLM's accuracy files (`.buildkite/lm-eval-harness/configs`), read as rules: every score reaches a value.

model_name: NAME
tasks: [{name: gsm8k, metrics: [{name: "exact_match,strict-match", value: 0.756}]}]
limit: 1000
num_fewshot: 5
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffharness.errors import UsageError
from diffharness.regression.policy import Floor, Policy, nearest

TOLERANCE = 0.05
"""vLLM's own relative tolerance."""
_TOLERANCES = ("rtol", "tolerance", "relative_tolerance")
_EXPECTED = ("limit", "num_fewshot")


def is_accuracy_file(values: Mapping[str, Any]) -> bool:
    """Whether a YAML file's keys are vLLM's: there `tasks` is a list."""
    return isinstance(values.get("tasks"), list)


def read_accuracy(values: Mapping[str, Any], tolerance: float, source: str) -> Policy:
    """The rules of such a file; what a file says of its tolerance comes before `tolerance`.

    Raises:
        UsageError: a task without name or metrics, a metric without name or value.
    """
    own = next((values[key] for key in _TOLERANCES if key in values), tolerance)
    if not _is_number(own) or own < 0:
        raise UsageError(f"{source}: the tolerance {own!r} is no number from 0 on; give a share such as 0.05")
    floors = [floor for task in values["tasks"] for floor in _floors(task, float(own), source)]
    if not floors:
        raise UsageError(f"{source}: tasks is empty; give tasks with metrics, each a name and a value")
    expected = {key: values[key] for key in _EXPECTED if values.get(key) is not None}
    return Policy(tasks={}, floors=tuple(floors), expected=expected)


def _floors(task: Any, tolerance: float, source: str) -> list[Floor]:
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        raise UsageError(f"{source}: a task has no name; each is {{name, metrics: [{{name, value}}]}}")
    where = f"{source}: task {task['name']!r}"
    if unknown := next((key for key in task if key not in ("name", "metrics")), None):
        raise UsageError(f"{where}: unknown key {str(unknown)!r}{nearest(str(unknown), ('name', 'metrics'))}")
    metrics = task.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        raise UsageError(f"{where} has no metrics; give a list of {{name, value}}")
    found = []
    for metric in metrics:
        if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
            raise UsageError(f'{where}: a metric has no name; give {{name: "exact_match,strict-match", value: 0.75}}')
        if not _is_number(metric.get("value")):
            raise UsageError(f"{where}: {metric['name']} has the value {metric.get('value')!r}; give a number")
        found.append(Floor(task=task["name"], metric=metric["name"], value=metric["value"], tolerance=tolerance))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 1e308
