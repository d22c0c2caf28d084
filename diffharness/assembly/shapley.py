"""Shapley values as rows of the report, beside what the account calls *written* in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.report import schema
from diffharness.statistics.bootstrap import Intervals, bootstrap_means, percentile_interval

if TYPE_CHECKING:
    from diffharness.attribution.shapley import Player, Values
    from diffharness.pipeline import Run

_METHOD = "percentile bootstrap over documents"
_NOTHING = 1e-12
"""Differences of scores up to this are of rounding: the sum over orders is in float64."""


@dataclass(frozen=True)
class Written:
    """What a task's documents write under the candidate's upper layers, in the surrogate's unit."""

    doc_ids: tuple[int, ...]
    sample_N: np.ndarray
    """How many of the task's documents each stands for."""
    categories: Mapping[str, np.ndarray]
    """By category, a number a document."""
    bias_and_error_N: np.ndarray

    def of(self, player: Player) -> np.ndarray:
        """What a player writes, a number a document."""
        if not player.categories:
            return self.bias_and_error_N
        return np.sum([self.categories[name] for name in player.categories], axis=0)

    def sums(self, weight_N: np.ndarray) -> dict[str, float]:
        """Each category's part of the task's gap."""
        total = float((self.sample_N * weight_N).sum())
        return {name: float(self.sample_N @ values_N) / total for name, values_N in self.categories.items()}


def read_written(path: Path) -> dict[str, Written]:
    """By task, from `contributions.parquet`: the mean of both orders plus half their difference is the first order."""
    import pyarrow.parquet as pq

    rows: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path, filters=[("origin", "=", "written")]).to_pylist():
        rows.setdefault(row["task"], []).append(row)
    return {task: _written(own) for task, own in rows.items()}


def _written(rows: Sequence[Mapping[str, Any]]) -> Written:
    doc_ids = tuple(dict.fromkeys(row["doc_id"] for row in rows))
    place = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    sample_N = np.ones(len(doc_ids))
    categories: dict[str, np.ndarray] = {}
    bias_and_error_N = np.zeros(len(doc_ids))
    for row in rows:
        i = place[row["doc_id"]]
        sample_N[i] = row["weight"]
        is_latents = row["kind"] == "latents"
        values_N = categories.setdefault(row["category"], np.zeros(len(doc_ids))) if is_latents else bias_and_error_N
        values_N[i] += row["contribution"] + row["interaction"]
    return Written(doc_ids, sample_N, categories, bias_and_error_N)


@dataclass(frozen=True)
class Scored:
    """What was scored of a task."""

    task: str
    metric: str
    score_S: np.ndarray
    recorded: float
    n_changed: int
    exact: bool
    same_unit: bool
    direction: int
    """1 where the surrogate and the metric rise together, −1 where one falls."""
    weight_N: np.ndarray
    """What each document weighs in the task's score."""
    clusters: Sequence[str] | None
    """Each document's cluster, where they are not by themselves."""


def row(
    scored: Scored, players: Sequence[Player], values: Values, written: Written, rng: np.random.Generator
) -> schema.Shapley:
    """One task's row."""
    weight_N = written.sample_N * scored.weight_N
    written_NP = np.stack([written.sample_N * written.of(player) for player in players], axis=1)
    n_units = len(weight_N) if scored.clusters is None else len(set(scored.clusters))
    draws_RX = bootstrap_means(np.hstack([written_NP, weight_N[:, None]]), rng, clusters=scored.clusters)
    intervals = percentile_interval(draws_RX[:, :-1] / draws_RX[:, -1:], n=n_units)
    written_P = written_NP.sum(axis=0) / weight_N.sum()
    none, every = float(scored.score_S[0]), float(scored.score_S[-1])
    return schema.Shapley(
        task=scored.task,
        metric=scored.metric,
        players=tuple(
            _player(player, p, values, float(written_P[p]), intervals, scored.direction)
            for p, player in enumerate(players)
        ),
        exact=scored.exact,
        n_subsets=len(scored.score_S),
        n_documents=len(written.doc_ids),
        v_none=none,
        v_all=every,
        recorded=scored.recorded,
        n_changed=scored.n_changed,
        residual=float(values.value_P.sum()) - (every - none),
        same_unit=scored.same_unit,
        interval_reason=None if values.intervals else f"{scored.metric} is not known as a sum over documents",
    )


def _player(
    player: Player, p: int, values: Values, written: float, written_intervals: Intervals, direction: int
) -> schema.ShapleyPlayer:
    value = float(values.value_P[p])
    interval = None if values.intervals is None else _interval(values.intervals, p)
    written_interval = _interval(written_intervals, p)
    clear = written_interval.excludes_zero() or (interval is not None and interval.excludes_zero())
    value = 0.0 if abs(value) <= _NOTHING else value
    return schema.ShapleyPlayer(
        name=player.name,
        categories=player.categories,
        value=value,
        interval=interval,
        standard_error=None if values.standard_error_P is None else float(values.standard_error_P[p]),
        written=written,
        written_interval=written_interval,
        agrees=bool(np.sign(value) == direction * np.sign(written)) if clear and value else None,
    )


def _interval(found: Intervals, p: int) -> schema.Interval:
    return schema.Interval(low=float(found.low[p]), high=float(found.high[p]), level=found.level, method=_METHOD)


def agreement(rows: Sequence[schema.Shapley]) -> schema.ShapleyAgreement | None:
    """How values and *written* go together over all tasks; `None` without a row."""
    from diffharness.attribution.shapley import correlation

    pairs = [(row, player) for row in rows for player in row.players]
    if not pairs:
        return None
    clear = [player.agrees for _, player in pairs if player.agrees is not None]
    still = [player for _, player in pairs if player.is_still]
    alike = [(player.value, player.written) for row, player in pairs if row.same_unit]
    return schema.ShapleyAgreement(
        n_pairs=len(pairs),
        n_clear=len(clear),
        n_still=len(still),
        sign_agreement=sum(clear) / len(clear) if clear else None,
        n_correlated=len(alike),
        correlation=correlation(alike),
    )


def parts(run: Run) -> dict[str, Any]:
    """The report's fields."""
    if run.config.shapley == "none":
        return {}
    body = run.read_json(run.shapley(), "shapley.json")
    found = body["agreement"]
    return {
        "shapley": tuple(schema.Shapley.model_validate(own) for own in body["rows"]),
        "shapley_agreement": None if found is None else schema.ShapleyAgreement.model_validate(found),
    }
