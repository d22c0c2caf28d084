"""Rows of lm-eval's groups that aggregate (MMLU-like): its own score, with an interval stratified by task."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.config.group import AggMetricConfig, GroupConfig
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from diffharness.errors import RunError
from diffharness.evaluation.comparison import Comparison, EffectKind, clusters, documents, effect_kind, measured
from diffharness.evaluation.harness import LoadedTasks
from diffharness.evaluation.measures import Means
from diffharness.evaluation.scores import Evaluation, MetricKey, TaskInfo
from diffharness.statistics.paired import PairedResult, no_difference, resampled_result
from diffharness.statistics.resampled import unit_codes


@dataclass(frozen=True)
class GroupMetric:
    """One score of a group."""

    group: str
    metric: MetricKey
    tasks: tuple[str, ...]
    """The tasks that have it, nested groups' among them."""
    weight_by_size: bool
    """Whether tasks count by their documents, or all alike."""

    def shares(self, evaluation: Evaluation) -> dict[str, float]:
        """What each task counts for; they sum to 1."""
        sizes = {name: len({d.doc_id for d in evaluation.documents if d.task == name}) for name in self.tasks}
        total = sum(sizes.values())
        return {name: size / total if self.weight_by_size else 1 / len(sizes) for name, size in sizes.items()}

    def score(self, evaluation: Evaluation) -> float:
        """As lm-eval's `aggregate_subtask_metrics`."""
        shares = self.shares(evaluation)
        return sum(share * evaluation.task(name).scores[str(self.metric)] for name, share in shares.items())


def group_metrics(tasks: LoadedTasks, names: Sequence[str], infos: Sequence[TaskInfo]) -> tuple[GroupMetric, ...]:
    """The scores of the groups that were asked for, and of groups in them, in lm-eval's order.

    Args:
        tasks: as loaded.
        names: that were asked for; those of tasks and tags have no score of their own.
        infos: the tasks as evaluated, for which filters a metric has.
    """
    by_name, found = {info.name: info for info in infos}, []
    for group, config, leaves in _groups(tasks.manager.task_index, names):
        members = [name for name in leaves if name in by_name]
        for listed in config.aggregate_metric_list or []:
            if not isinstance(listed, AggMetricConfig):
                continue
            keys: dict[str, list[str]] = {}
            direction: dict[str, bool] = {}
            for name in members:
                for key in by_name[name].metrics:
                    wanted = listed.filter_list is None or key.filter in listed.filter_list
                    if key.metric == listed.metric and wanted:
                        keys.setdefault(key.filter, []).append(name)
                        direction.setdefault(key.filter, key.higher_is_better)
            for filter_name in sorted(keys) if listed.filter_list is None else listed.filter_list:
                if filter_name in keys:
                    key = MetricKey(listed.metric, filter_name, direction[filter_name])
                    found.append(GroupMetric(group, key, tuple(keys[filter_name]), listed.weight_by_size))
    return tuple(found)


def compare_group(
    group: GroupMetric, baseline: Evaluation, candidate: Evaluation, tasks: LoadedTasks, rng: np.random.Generator
) -> Comparison:
    """The gap of a group's score: documents (or clusters) are drawn and exchanged within each task.

    Raises:
        RunError: a task's score is not a number.
    """
    b, c = group.score(baseline), group.score(candidate)
    if not (math.isfinite(b) and math.isfinite(c)):
        raise RunError(f"group {group.group!r}: {group.metric} is {b} and {c}, no numbers to compare")
    result = _result(group, baseline, candidate, tasks, rng)
    kinds: set[EffectKind] = {effect_kind(name, group.metric, baseline, candidate) for name in group.tasks}
    kind = kinds.pop() if len(kinds) == 1 else "relative"
    return Comparison(group.group, group.metric, b, c, result, kind)


def _result(
    group: GroupMetric, baseline: Evaluation, candidate: Evaluation, tasks: LoadedTasks, rng: np.random.Generator
) -> PairedResult:
    strata, spans, n, n_units, better, worse = [], [], 0, 0, 0, 0
    for name, share in group.shares(baseline).items():
        base, _ = documents(name, group.metric, baseline, candidate)
        aggregation = tasks.aggregation(name, group.metric.metric)
        made = measured(name, group.metric, baseline, candidate, aggregation)
        part = made.resampled(unit_codes(clusters(base), len(base)))
        strata.append((share, part))
        spans.append(None if made.span is None else made.span * share / part.n_units)
        n, n_units = n + len(base), n_units + part.n_units
        if isinstance(made, Means):
            up, down = int((made.cand_N > made.base_N).sum()), int((made.cand_N < made.base_N).sum())
            better, worse = (
                (better + up, worse + down) if group.metric.higher_is_better else (better + down, worse + up)
            )
    n_clusters = n_units if n_units < n else None
    if not any(part.differs_G.any() for _, part in strata):
        known = [span for span in spans if span is not None]
        # the most that a single unit can move the group's score, times the units
        span = max(known) * n_units if len(known) == len(spans) else None
        return no_difference(n, n_clusters, 0.95, span)
    weight = "by size" if group.weight_by_size else "alike"
    return resampled_result(
        strata, rng, n=n, better=better, worse=worse, n_clusters=n_clusters,
        words=f"exchanges within each of {len(strata)} tasks, which count {weight},",
    )  # fmt: skip


def group_info(group: GroupMetric, infos: Sequence[TaskInfo]) -> TaskInfo:
    """A group as a row of its own, from its tasks."""
    members = [info for info in infos if info.name in group.tasks]
    types = {info.output_type for info in members}
    return TaskInfo(
        name=group.group,
        output_type=types.pop() if len(types) == 1 else "mixed",
        metrics=(group.metric,),
        categories=tuple(dict.fromkeys(c for info in members for c in info.categories)),
        version="",
        hash=hashlib.sha256("".join(info.hash for info in members).encode()).hexdigest()[:16],
        scores={},
    )


def _groups(index: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, GroupConfig, list[str]]]:
    """Groups among the names, and those in them: name, what its YAML says, and its tasks; the inner ones first."""
    found: dict[str, tuple[str, GroupConfig, list[str]]] = {}
    for name in names:
        entry = index.get(name)
        if entry is not None and entry.kind is Kind.GROUP:
            list(_leaves(index, name, _yaml(entry), found))
    return list(found.values())


def _leaves(
    index: Mapping[str, Any], name: str, body: Mapping[str, Any], found: dict[str, tuple[str, GroupConfig, list[str]]]
) -> Iterator[str]:
    """The names of a group's tasks, as lm-eval's task factory makes them; notes the group on the way."""
    members: list[str] = []
    listed = body.get("task")
    for item in listed if isinstance(listed, list) else []:
        inner = item.get("group") if isinstance(item, dict) else None
        if inner is not None and inner not in index:
            members.extend(_leaves(index, f"{name}::{inner}", item, found))
            continue
        one = inner or (item["task"] if isinstance(item, dict) else item)
        entry = index.get(one)
        if entry is None:
            members.append(f"{name}::{one}")
        elif entry.kind is Kind.GROUP:
            members.extend(_leaves(index, one, _yaml(entry), found))
        elif entry.kind is Kind.TAG:
            members.extend(sorted(entry.tags))
        else:
            members.append(one)
    known = {key: body[key] for key in ("aggregate_metric_list", "metadata") if key in body}
    found[name] = name, GroupConfig(group=name, **known), members
    yield from members


def _yaml(entry: Any) -> Mapping[str, Any]:
    return load_yaml(Path(entry.yaml_path), resolve_func=False) if entry.yaml_path else (entry.cfg or {})
