"""The report for Python: `diffharness.Report.load(path)`, tidy pandas tables of it, and what a notebook shows.

A row is one observation, a column one variable. Missing values are NaN. Texts are `str`, those that repeat (names of
tasks, components, categories, verdicts) `category`; numbers `float64`; counts `int64`, or `float64` where one is
missing; yes and no `bool`, or `boolean` where one is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from diffharness.report import schema, tables
from diffharness.report.numbers import interval, percent, plain, signed
from diffharness.report.reading import read_report, report_file
from diffharness.report.tables import Cell, Row, Table
from diffharness.report.text import brief
from diffharness.report.view import by_severity, heat, is_explained, primary, side_name
from diffharness.report.words import VERDICT_SIGNS, headline

if TYPE_CHECKING:
    import pandas as pd

_REPEATED = {
    "task", "metric", "filter", "output_type", "verdict", "surrogate", "unit", "component", "kind", "origin",
    "category", "check", "status", "side", "status_by_norm", "annotator", "runner_up", "largest_task", "protocol",
    "conclusion", "mass_conclusion",
}  # fmt: skip
MOST_ROWS = 30
"""Tasks that a notebook shows; the others are counted."""
_MOST_CATEGORIES = 6

_CATEGORY: dict[str, type] = {
    "protocol": str, "is_default": bool, "category": str, "n_baseline": int, "n_candidate": int, "total_baseline": int,
    "total_candidate": int, "change": float, "low": float, "high": float, "p_value": float, "q_value": float,
    "conclusion": str, "mass_baseline": float, "mass_candidate": float, "mass_change": float, "mass_low": float,
    "mass_high": float, "mass_p_value": float, "mass_q_value": float, "mass_conclusion": str, "change_reason": str,
}  # fmt: skip
_FLIP: dict[str, type] = {
    "task": str, "metric": str, "n": int, "n_flips": int, "kind": str, "n_lost": int, "n_gained": int, "gap": float,
    "n_accounted": int, "reason": str,
}  # fmt: skip
_LATENT_TASK: dict[str, type] = {
    "latent": int, "category": str, "status": str, "task": str, "unit": str, "contribution": float, "written": float,
    "read": float,
}  # fmt: skip


class Report:
    """A finished run's report as pandas tables: `diffharness.Report.load("reports/demo").tasks()`.

    `data` is the whole report, everything that `report.json` holds, as `diffharness.run` returns it.
    """

    def __init__(self, data: schema.Report, folder: Path | None = None) -> None:
        """Wrap a report.

        Args:
            data: what `diffharness.run` returned.
            folder: the run's, for what lies beside the report.
        """
        self.data = data
        self.folder = folder

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a finished run's report, also of an older schema version.

        Args:
            path: the run's folder, or its `report.json`.

        Raises:
            diffharness.errors.UsageError: there is none, it is damaged, or a newer diffharness wrote it.
        """
        return cls(read_report(Path(path)), report_file(Path(path)).parent)

    def tasks(self) -> pd.DataFrame:
        """A row a score (task, metric, filter): both models', the gap with its interval, the verdict, the surrogate.

        `low` and `high` are the gap's interval, `detectable` the smallest gap that the test finds with 80 % power,
        `unit` what the account is in. `is_primary` marks the metric that a task's account is of.
        """
        return _frame(tables.tasks(self.data))

    def contributions(self) -> pd.DataFrame:
        """A row a (task, component): what it contributes to the task's gap, its interval, the exact check.

        `contribution`, `low`, `high` and `interaction` are in `unit`; `contribution_raw` is in the unit that the path
        integrates. `kind` says what it belongs to, `origin` whether it is written or read, `category` what its latents
        stand for. A task's contributions add up to its `surrogate_gap`.
        """
        return _frame(tables.contributions(self.data))

    def document_contributions(self) -> pd.DataFrame:
        """A row a (task, document, component), from the run's `contributions.parquet`.

        `weight` is how many of the task's documents this one stands for.

        Raises:
            FileNotFoundError: the report was not loaded from a run's folder that holds the file.
        """
        import pandas as pd

        file = None if self.folder is None else self.folder / "contributions.parquet"
        if file is None or not file.is_file():
            raise FileNotFoundError(
                f"{file or 'contributions.parquet'} is not there; load the report from a run's folder"
            )
        found = pd.read_parquet(file)
        for name in ("task", "kind", "origin", "category"):
            found[name] = found[name].astype("category")
        return found

    def latents(self) -> pd.DataFrame:
        """A row a latent: what it stands for, whose it is, how often it fires, what it contributes most to."""
        return _frame(tables.latents(self.data))

    def latent_contributions(self) -> pd.DataFrame:
        """A row a (latent, task): what the latent contributes to the task's gap, written and read, in `unit`."""
        units = {t.task: t.surrogate.unit for t in self.data.tasks if t.surrogate is not None and t.components}
        return _frame(Table(_LATENT_TASK, tuple(_by_task(self.data.latents, units))))

    def categories(self) -> pd.DataFrame:
        """A row a (protocol, category): how many latents are specific to either model, and the change.

        `change`, `low` and `high` are in percent, `mass_change`, `mass_low` and `mass_high` in points. Needs an
        ancestor; without one the table is empty and `data.categories_reason` says why.
        """
        return _frame(Table(_CATEGORY, tuple(map(_category_row, self.data.categories))))

    def flips(self) -> pd.DataFrame:
        """A row a (task, kind of flip): documents lost and gained, and their part of the gap.

        A task whose flips have no kinds has one row without a `kind`, and the `reason`.
        """
        return _frame(Table(_FLIP, tuple(row for task in self.data.flips for row in _flip_rows(task))))

    def __repr__(self) -> str:
        """One line."""
        return f"<diffharness.Report: {brief(headline(self.data), 200)}>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """What a notebook shows, without a page around it: the verdict, the leaderboard, what carries most."""
        names = " → ".join(_safe(side_name(self.data, side), 60) for side in ("baseline", "candidate"))
        return (
            f'<div class="diffharness-report"><p><strong>{_safe(headline(self.data), 400)}</strong><br>{names}, '
            f"layer {self.data.run.layer} of {self.data.run.n_layers}</p>{_scores_html(self.data)}"
            f"{_categories_html(self.data)}</div>"
        )


def _frame(table: Table) -> pd.DataFrame:
    import pandas as pd

    columns = {name: _column(name, kind, [row[name] for row in table.rows]) for name, kind in table.columns.items()}
    return pd.DataFrame(columns, columns=list(table.columns))


def _column(name: str, kind: type, values: Sequence[Cell]) -> pd.Series:
    import pandas as pd

    missing = any(value is None for value in values)
    if kind is str:
        texts = pd.Series(values, dtype=pd.StringDtype(na_value=float("nan")))
        return texts.astype("category") if name in _REPEATED else texts
    dtypes = {float: "float64", int: "float64" if missing else "int64", bool: "boolean" if missing else "bool"}
    return pd.Series(values, dtype=dtypes[kind])


def _category_row(row: schema.CategoryShift) -> Row:
    same = _CATEGORY.keys() & type(row).model_fields.keys()
    inside, mass = row.interval, row.mass_interval
    return {
        **{name: getattr(row, name) for name in same},
        "category": row.name,
        "low": inside and inside.low,
        "high": inside and inside.high,
        "mass_low": mass and mass.low,
        "mass_high": mass and mass.high,
        "mass_conclusion": row.mass_conclusion or None,
    }


def _flip_rows(found: schema.FlipKinds) -> Iterable[Row]:
    whole = {"task": found.task, "metric": found.metric, "n": found.n, "n_flips": found.n_flips}
    for kind in found.kinds:
        own = {name: getattr(kind, name) for name in ("kind", "n_lost", "n_gained", "gap", "n_accounted")}
        yield {**whole, **own, "reason": found.gap_reason if kind.gap is None else None}
    if not found.kinds:
        none = {"kind": None, "n_lost": found.n_lost, "n_gained": found.n_gained, "gap": None, "n_accounted": None}
        yield {**whole, **none, "reason": found.reason}


def _by_task(latents: Iterable[schema.Latent], units: dict[str, str]) -> Iterable[Row]:
    for latent in latents:
        for task, value in latent.contributions.items():
            read = latent.read.get(task)
            yield {
                "latent": latent.index, "category": latent.category, "status": latent.status, "task": task,
                "unit": units.get(task), "contribution": value, "written": None if read is None else value - read,
                "read": read,
            }  # fmt: skip


def _safe(text: str, limit: int) -> str:
    return escape(brief(text, limit))


def _scores_html(report: schema.Report) -> str:
    """The leaderboard, what changed first."""
    shown = by_severity(primary(report))
    head = "".join(f"<th>{name}</th>" for name in ("task", "n", "baseline", "candidate", "gap", "interval", "verdict"))
    rows = [
        f"<tr><th>{_safe(task.task, 60)}</th>" + "".join(f"<td>{cell}</td>" for cell in (
            task.n, plain(task.baseline), plain(task.candidate), signed(task.gap), interval(task.interval),
            f"{VERDICT_SIGNS[task.verdict]} {task.verdict}",
        )) + "</tr>"
        for task in shown[:MOST_ROWS]
    ]  # fmt: skip
    rest = f"<p>and {len(shown) - MOST_ROWS} more tasks</p>" if len(shown) > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{rest}"


def _categories_html(report: schema.Report) -> str:
    """What latents of each category carry, where a gap is explained: the largest by its largest task."""
    if report.validation.mechanism_withheld is not None:
        return f"<p>Why is withheld: {_safe(report.validation.mechanism_withheld, 300)}</p>"
    found = heat(report)
    best: dict[str, tuple[float, schema.Task]] = {}
    for task, cells in () if found is None else zip(found.tasks, found.cells, strict=True):
        for category, value in zip(found.categories, cells, strict=True) if is_explained(task) and found else ():
            if value is not None and abs(value) > abs(best.get(category, (0.0,))[0]):
                best[category] = value, task
    if not best:
        return "<p>There is no gap to explain.</p>"
    rows = [
        f"<tr><th>{_safe(category, 60)}</th><td>{signed(value)}</td><td>{_share(value, task)}</td>"
        f"<td>{_safe(task.task, 60)}</td></tr>"
        for category, (value, task) in sorted(best.items(), key=lambda item: -abs(item[1][0]))[:_MOST_CATEGORIES]
    ]
    head = "<th>category</th><th>carries at most</th><th>of the gap</th><th>in</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _share(value: float, task: schema.Task) -> str:
    return percent(value / task.surrogate.gap) if task.surrogate is not None and task.surrogate.gap else "–"
