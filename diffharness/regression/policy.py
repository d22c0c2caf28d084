"""What a check asks for: which metric of which task may lose how much, and what is asked of the mechanism."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from diffharness.errors import UsageError

MARGIN, ALPHA = 0.01, 0.05
"""Of a policy that does not say them: one point of a bounded metric, one in twenty."""
Correction = Literal["holm", "none"]
OnInconclusive = Literal["pass", "fail", "exit3"]
Direction = Literal["higher", "lower"]


def _share(value: Any) -> Any:
    """`50%` as 0.5."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(found.group(1)) / 100
    return value


class _Part(BaseModel):
    """Base of all parts: unknown keys and numbers that are none are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Margin(_Part):
    """The loss that is accepted."""

    value: float = Field(ge=0)
    relative: bool = False
    """Whether it is a share of the score before (`2%`), and not in the metric's unit."""


def _margin(value: Any) -> Any:
    if isinstance(value, str) and (share := _share(value)) is not value:
        return Margin(value=share, relative=True)
    return Margin(value=value) if isinstance(value, int | float) and not isinstance(value, bool) else value


MarginField = Annotated[Margin, BeforeValidator(_margin)]
AlphaField = Annotated[float, Field(gt=0, lt=0.5)]
"""One-sided: the chance, where nothing is worse by more than the margin, of a regression."""


class Defaults(_Part):
    """What holds where a task's rule says nothing."""

    margin: MarginField = Margin(value=MARGIN)
    """Of bounded metrics in their unit; of others (perplexities, bits per byte) a share of the score before."""
    alpha: AlphaField = ALPHA
    correction: Correction = "holm"
    """Over all score rules of a check."""
    on_inconclusive: OnInconclusive = "exit3"


class TaskRule(_Part):
    """What is asked of one task, or of all whose name fits a pattern."""

    metric: str | tuple[str, ...] | None = None
    """`metric` or `metric,filter`; a task's first by default."""
    margin: MarginField | None = None
    direction: Direction | None = None
    """Whether higher or lower is better; what lm-eval says by default."""
    cluster: str | None = None
    """Field of the documents that says which belong together."""
    alpha: AlphaField | None = None


class ContributionRule(_Part):
    """How little a category's latents may contribute to tasks' gaps."""

    category: str
    task: str = "*"
    """A name or a pattern."""
    min_contribution: float
    """In the surrogate's unit, written and read together; −0.01 lets them cost a point."""


class SpecificLimit(_Part):
    """How far the number of one category's specific latents may change."""

    side: Literal["baseline", "candidate"]
    change: Annotated[float, Field(ge=0), BeforeValidator(_share)]
    """A share: 0.5 or `50%`."""


class MechanismRule(_Part):
    """One entry of `mechanism`; exactly one of the three kinds."""

    category: str | None = None
    task: str = "*"
    min_contribution: float | None = None
    max_specific: dict[str, SpecificLimit] = {}
    min_explained_variance: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self) -> MechanismRule:
        if (self.category is None) != (self.min_contribution is None):
            raise ValueError("category and min_contribution go together; give both")
        kinds = [self.category is not None, bool(self.max_specific), self.min_explained_variance is not None]
        if sum(kinds) != 1:
            raise ValueError("give one of category with min_contribution, max_specific, min_explained_variance")
        if self.category is None and "task" in self.model_fields_set:
            raise ValueError("task goes with category and min_contribution; leave it out")
        return self


class Floor(_Part):
    """A score that a task's metric has to reach, whatever the baseline's was (vLLM's files)."""

    task: str
    metric: str
    """`metric,filter`."""
    value: float
    tolerance: float = Field(ge=0)
    """Relative: the score may be below `value` by this share of it."""

    @property
    def least(self) -> float:
        """The lowest score that is accepted."""
        return self.value - self.tolerance * abs(self.value)


class Policy(_Part):
    """All rules of a check. Without a file: the first metric of every task, with the defaults."""

    version: Literal[1] = 1
    baseline: Path | None = None
    """A baseline file, relative to the policy's folder."""
    defaults: Defaults = Defaults()
    tasks: dict[str, TaskRule] | None = None
    """By name or pattern; a task is only gated if one fits. All tasks are, where there is no such key."""
    mechanism: tuple[MechanismRule, ...] = ()
    floors: tuple[Floor, ...] = ()
    """Only of vLLM's files."""
    expected: Mapping[str, Any] = {}
    """Settings that the run must have (`limit`, `num_fewshot`); only of vLLM's files."""

    @property
    def contributions(self) -> tuple[ContributionRule, ...]:
        """The rules on what categories contribute."""
        return tuple(
            ContributionRule(category=rule.category, task=rule.task, min_contribution=rule.min_contribution)
            for rule in self.mechanism
            if rule.category is not None and rule.min_contribution is not None
        )

    @property
    def specific(self) -> dict[str, SpecificLimit]:
        """By category, the rules on specific latents."""
        return {category: limit for rule in self.mechanism for category, limit in rule.max_specific.items()}

    @property
    def min_explained_variance(self) -> float | None:
        """The strictest that is asked for."""
        asked = [r.min_explained_variance for r in self.mechanism if r.min_explained_variance is not None]
        return max(asked, default=None)

    def rule_of(self, task: str) -> TaskRule | None:
        """The rule for a task: the one of its name, else the first pattern that fits; `None` where it is not gated."""
        if self.tasks is None:
            return TaskRule()
        if task in self.tasks:
            return self.tasks[task]
        return next((rule for pattern, rule in self.tasks.items() if fnmatchcase(task, pattern)), None)

    def check_names(self, tasks: Mapping[str, Collection[str]], categories: Collection[str], source: str) -> None:
        """Refuse a task, metric or category that the run does not have.

        Args:
            tasks: by task of the run or of the baseline file, its metrics as `metric,filter`.
            categories: that latents can have.
            source: what the policy was read from, for the message.

        Raises:
            UsageError: naming the nearest.
        """
        exact = [floor.task for floor in self.floors]
        for pattern in [*(self.tasks or ()), *(rule.task for rule in self.contributions), *exact]:
            if pattern not in tasks and (pattern in exact or not any(fnmatchcase(task, pattern) for task in tasks)):
                raise UsageError(f"{source}: task {pattern!r} is none of the run's{nearest(pattern, tasks)}")
        for task, metrics in tasks.items():
            for name in _listed((self.rule_of(task) or TaskRule()).metric):
                metrics_named(name, metrics, f"{source}: task {task!r}")
        for floor in self.floors:
            metrics_named(floor.metric, tasks[floor.task], f"{source}: task {floor.task!r}")
        for category in [*(rule.category for rule in self.contributions), *self.specific]:
            if category not in categories:
                raise UsageError(f"{source}: category {category!r} is none of the run's{nearest(category, categories)}")


def metrics_named(name: str, metrics: Collection[str], where: str) -> str:
    """The `metric,filter` that a name means.

    Raises:
        UsageError: there is none, or more than one filter has it.
    """
    found = [m for m in metrics if name in (m, m.rsplit(",", 1)[0])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{where}: metric {name!r} has several filters; give one of: {'; '.join(found)}")
    raise UsageError(f"{where} has no metric {name!r}{nearest(name, metrics)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {'; '.join(known) or 'none'}"


def _listed(metric: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if metric is None else (metric,) if isinstance(metric, str) else metric


def gated_metrics(rule: TaskRule, first: str, metrics: Collection[str], where: str) -> tuple[str, ...]:
    """The metrics of a task, as `metric,filter`, that its rule is about; `first` where it names none."""
    names = _listed(rule.metric)
    return tuple(dict.fromkeys(metrics_named(n, metrics, where) for n in names)) if names else (first,)


def read_policy(path: Path, *, tolerance: float | None = None) -> Policy:
    """The policy of a YAML file, ours or vLLM's.

    Args:
        path: the file.
        tolerance: relative, of vLLM's values; theirs by default.

    Raises:
        UsageError: one line that names the file, the first wrong key or value, and the remedy.
    """
    from diffharness.regression.vllm import TOLERANCE, is_accuracy_file, read_accuracy

    source = f"--policy {path}"
    values = _mapping(path, source)
    try:
        if is_accuracy_file(values):
            return read_accuracy(values, TOLERANCE if tolerance is None else tolerance, source)
        _check_keys(values, Policy, ("floors", "expected"), source)
        policy = Policy.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_first(error)}") from error
    if policy.baseline is not None and not policy.baseline.is_absolute():
        policy = policy.model_copy(update={"baseline": path.parent / policy.baseline})
    return policy


def _mapping(path: Path, source: str) -> dict[str, Any]:
    """What a YAML file says, if that is keys and values."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{source} can not be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not text in UTF-8; give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{source}{where}: not YAML ({problem})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{source} is no policy; it starts with `version: 1` and has defaults, tasks or mechanism")
    return values


def _check_keys(values: dict[str, Any], model: type[BaseModel], hidden: Collection[str], source: str) -> None:
    """Name the nearest to an unknown key, at every level where keys are fixed."""
    known = [name for name in model.model_fields if name not in hidden]
    for key in values:
        if key not in known:
            raise UsageError(f"{source}: unknown key {str(key)!r}{nearest(str(key), known)}")
    if model is not Policy:
        return
    parts: list[tuple[Any, type[BaseModel], str]] = [(values.get("defaults"), Defaults, "defaults")]
    if isinstance(tasks := values.get("tasks"), dict):
        parts += [(rule, TaskRule, f"task {name!r}") for name, rule in tasks.items()]
    if isinstance(mechanism := values.get("mechanism"), list):
        parts += [(rule, MechanismRule, f"mechanism {i + 1}") for i, rule in enumerate(mechanism)]
    for part, kind, name in parts:
        if isinstance(part, dict):
            _check_keys(part, kind, (), f"{source}: {name}")


def _first(error: ValidationError) -> str:
    """The first thing wrong, where it stands and in what words."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where + ': ' if where else ''}{found['msg'].removeprefix('Value error, ')}"
