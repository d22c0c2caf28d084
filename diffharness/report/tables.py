"""The report as tables for other tools: tasks, contributions and latents, as CSV and Parquet.

CSV is read by spreadsheets, which run a cell that begins like a formula: a text that does has `'` before it. Parquet
holds every text as it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffharness.report.claims import claim_of
from diffharness.report.schema import Claim, Component, Interval, Latent, Report, Task
from diffharness.report.text import clean
from diffharness.report.view import label, ordered, weight_of
from diffharness.report.words import check_word

Cell = str | float | int | bool | None
Row = Mapping[str, Cell]
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Table:
    """Rows of one kind; every row has all columns."""

    columns: Mapping[str, type]
    """By name: `str`, `float`, `int` or `bool`."""
    rows: tuple[Row, ...]


def tables(report: Report) -> dict[str, Table]:
    """By name: `tasks` (a row a score), `contributions` (a row a task and component), `latents` (a row a latent)."""
    return {"tasks": tasks(report), "contributions": contributions(report), "latents": latents(report)}


def tasks(report: Report) -> Table:
    """The leaderboard: a row a task, metric and filter, in the report's order."""
    return _table(_TASK, [_task_row(task) for task in report.tasks])


def contributions(report: Report) -> Table:
    """What every gap is made of: a row a task and component, with its exact check and what random latents do."""
    rows = [
        _component_row(task, component, report.claims)
        for task in report.tasks
        for component in ordered(task.components)
    ]
    return _table(_CONTRIBUTION, rows)


def latents(report: Report) -> Table:
    """A row a latent, in the report's order."""
    return _table(_LATENT, [_latent_row(latent) for latent in report.latents])


_TASK: dict[str, type] = {
    "task": str, "metric": str, "filter": str, "is_primary": bool, "is_group": bool, "output_type": str,
    "higher_is_better": bool, "categories": str, "n": int, "baseline": float, "candidate": float, "ancestor": float,
    "gap": float, "low": float, "high": float, "level": float, "p_value": float, "q_value": float, "p_holm": float,
    "verdict": str, "detectable": float, "n_to_settle": int, "is_approximate": bool, "surrogate": str, "unit": str,
    "surrogate_baseline": float, "surrogate_candidate": float, "surrogate_gap": float, "tracks": bool,
    "not_tracked": float, "n_accounted": int, "account_reason": str,
}  # fmt: skip


def _task_row(task: Task) -> Row:
    stand_in = task.surrogate
    return {
        "task": task.task, "metric": task.metric, "filter": task.filter, "is_primary": task.is_primary,
        "is_group": task.is_group, "output_type": task.output_type, "higher_is_better": task.higher_is_better,
        "categories": "; ".join(task.categories), "n": task.n, "baseline": task.baseline, "candidate": task.candidate,
        "ancestor": task.ancestor, "gap": task.gap, **_interval("", task.interval), "level": task.interval.level,
        "p_value": task.p_value, "q_value": task.q_value, "p_holm": task.p_holm, "verdict": task.verdict,
        "detectable": task.mde, "n_to_settle": task.n_to_settle, "is_approximate": task.approximate,
        "surrogate": stand_in and stand_in.name, "unit": stand_in and stand_in.unit,
        "surrogate_baseline": stand_in and stand_in.baseline, "surrogate_candidate": stand_in and stand_in.candidate,
        "surrogate_gap": stand_in and stand_in.gap, "tracks": stand_in and stand_in.tracks,
        "not_tracked": task.not_tracked, "n_accounted": task.n_accounted, "account_reason": task.account_reason,
    }  # fmt: skip


_CONTRIBUTION: dict[str, type] = {
    "task": str, "metric": str, "filter": str, "component": str, "kind": str, "origin": str, "category": str,
    "n_latents": int, "contribution": float, "low": float, "high": float, "level": float, "unit": str,
    "contribution_raw": float, "share": float, "interaction": float, "p_value": float, "q_value": float,
    "check_change": float, "check_low": float, "check_high": float, "check_n": int, "check": str, "check_reason": str,
    "random_effect": float, "random_low": float, "random_high": float, "random_p": float, "is_causal": bool,
    "worded_as": str,
}  # fmt: skip


def _component_row(task: Task, part: Component, claims: Sequence[Claim]) -> Row:
    check, claim = part.ablation, claim_of(claims, task.task, part.category, part.origin)
    random = claim.random_effects if claim is not None else None
    return {
        "task": task.task, "metric": task.metric, "filter": task.filter, "component": label(part), "kind": part.kind,
        "origin": part.origin, "category": part.category, "n_latents": part.n_latents,
        "contribution": part.contribution, **_interval("", part.interval), "level": part.interval.level,
        "unit": task.surrogate and task.surrogate.unit, "contribution_raw": part.contribution_raw,
        "share": part.share, "interaction": part.interaction, "p_value": part.p_value, "q_value": part.q_value,
        "check_change": check and check.change, **_interval("check_", check and check.interval),
        "check_n": check and check.n, "check": check_word(task, part) or None, "check_reason": part.ablation_reason,
        "random_effect": claim and claim.effect, "random_low": random and random.q05,
        "random_high": random and random.q95, "random_p": claim and claim.p_corrected,
        "is_causal": claim and claim.is_causal, "worded_as": claim and claim.words,
    }  # fmt: skip


_LATENT: dict[str, type] = {
    "latent": int, "category": str, "status": str, "side": str, "status_reason": str, "status_by_norm": str,
    "delta_norm": float, "nu_reconstruction": float, "nu_reconstruction_low": float, "nu_reconstruction_high": float,
    "nu_error": float, "nu_error_low": float, "nu_error_high": float, "decoder_cosine": float, "density": float,
    "mean_activation": float, "n_active": int, "n_texts": int, "is_matched": bool, "annotator": str, "auroc": float,
    "name_q_value": float, "is_name_clear": bool, "runner_up": str, "detection": float, "detection_chance": float,
    "rate_baseline": float, "rate_candidate": float, "rate_low": float, "rate_high": float, "mean_baseline": float,
    "mean_candidate": float, "mean_low": float, "mean_high": float, "use_q_value": float,
    "absolute_contribution": float, "largest_task": str, "largest_contribution": float,
}  # fmt: skip


def _latent_row(latent: Latent) -> Row:
    why, use, tried = latent.evidence, latent.use, latent.evidence.detection
    task, largest = max(latent.contributions.items(), key=lambda item: abs(item[1]), default=(None, None))
    return {
        "latent": latent.index, "category": latent.category, "status": latent.status, "side": latent.side,
        "status_reason": latent.status_reason or None, "status_by_norm": latent.status_by_norm,
        "delta_norm": latent.delta_norm, "nu_reconstruction": latent.nu_reconstruction,
        **_interval("nu_reconstruction_", latent.nu_reconstruction_interval), "nu_error": latent.nu_error,
        **_interval("nu_error_", latent.nu_error_interval), "decoder_cosine": latent.decoder_cosine,
        "density": latent.density, "mean_activation": latent.mean_activation, "n_active": latent.n_active,
        "n_texts": latent.n_texts, "is_matched": latent.matched, "annotator": why.annotator, "auroc": why.auroc,
        "name_q_value": why.q_value, "is_name_clear": why.is_clear, "runner_up": why.runner_up,
        "detection": tried and tried.score, "detection_chance": tried and tried.chance,
        "rate_baseline": use and use.rate_baseline, "rate_candidate": use and use.rate_candidate,
        **_interval("rate_", use and use.rate_interval), "mean_baseline": use and use.mean_baseline,
        "mean_candidate": use and use.mean_candidate, **_interval("mean_", use and use.mean_interval),
        "use_q_value": use and use.q_value, "absolute_contribution": weight_of(latent), "largest_task": task,
        "largest_contribution": largest,
    }  # fmt: skip


def _interval(prefix: str, value: Interval | None) -> dict[str, Cell]:
    return {f"{prefix}low": value and value.low, f"{prefix}high": value and value.high}


def _table(columns: Mapping[str, type], rows: Sequence[Row]) -> Table:
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError(f"columns {sorted(row.keys() ^ columns.keys())} are in the head or the rows only")
    return Table(columns, tuple(rows))


def to_csv(table: Table) -> bytes:
    """UTF-8 with a head; numbers as they are, `true` and `false`, nothing where there is no value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([_csv_cell(row[name]) for name in table.columns])
    return stream.getvalue().encode("utf-8")


def _csv_cell(value: Cell) -> str | float | int:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return safe_cell(value)
    return value


def safe_cell(text: str) -> str:
    """A text that no spreadsheet runs: control characters written out, `'` before what begins like a formula."""
    shown = clean(text)
    return f"'{shown}" if shown.lstrip(" \u00a0").startswith(_FORMULA) else shown


def to_parquet(table: Table) -> bytes:
    """Parquet with the types of the columns, also where a column or the whole table is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()])
    arrays = [
        pa.array([_parquet_cell(row[name], kind) for row in table.rows], types[kind])
        for name, kind in table.columns.items()
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=schema), sink)
    return sink.getvalue()


def _parquet_cell(value: Cell, kind: type) -> Any:
    """Half code points, which UTF-8 does not have, as `U+FFFD`."""
    if kind is str and isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


WRITERS: dict[str, Callable[[Table], bytes]] = {"csv": to_csv, "parquet": to_parquet}
"""By the files' ending."""
