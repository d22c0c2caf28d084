"""The matrix against its definitions: Holm over all cells, sums over moved tasks, intervals, what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffharness.assembly.matrix import matrix
from diffharness.report.schema import Component, Interval, Report, Surrogate
from diffharness.report.schema.matrix import Matrix
from tests.report.example import example_report

QUALITY = {"n_latents": 64, "l0": 8.0, "explained_variance": {"baseline": 0.9, "candidate-a": 0.8}}
KEYS = (("latents", "written", "safety"), ("latents", "read", "safety"), ("prior", None, None))


def component(key: tuple[str, str | None, str | None], value: float) -> Component:
    kind, origin, category = key
    return Component(
        kind=kind, origin=origin, category=category, contribution=value, contribution_raw=value,
        interval=Interval(low=value, high=value), share=None, p_value=None, q_value=None,
    )  # fmt: skip


def planted(folder: Path, gaps: list[float], *, weights: list[float] | None = None, n: int = 400) -> Report:
    """A report whose first tasks moved by these gaps, and the contributions of its documents."""
    rng = np.random.default_rng(0)
    report = example_report()
    rows: list[dict[str, object]] = []
    tasks = []
    for position, (task, gap) in enumerate(zip(report.tasks[: len(gaps)], gaps, strict=True)):
        values = np.array([0.6, 0.3, 0.1]) * gap + rng.normal(size=(n, 3))
        weight = np.ones(n)
        contributions = values.mean(axis=0) if weights is None else values.mean(axis=0) * weights[position]
        for doc_id, own in enumerate(values):
            rows += [
                {"task": task.task, "doc_id": doc_id, "weight": weight[doc_id], "kind": key[0], "origin": key[1],
                 "category": key[2], "contribution": float(value)}
                for key, value in zip(KEYS, own, strict=True)
            ]  # fmt: skip
        whole = float(contributions.sum())
        surrogate = Surrogate(
            name="s", unit="probability", baseline=0, candidate=whole, gap=whole, rank_correlation=1, tracks=True,
            tracks_reason="",
        )  # fmt: skip
        parts = tuple(component(key, float(value)) for key, value in zip(KEYS, contributions, strict=True))
        update = {"surrogate": surrogate, "components": parts, "n_accounted": n, "is_primary": True, "is_group": False}
        tasks.append(task.model_copy(update={**update, "verdict": "improved" if gap > 0 else "regressed"}))
    folder.mkdir(parents=True)
    text, real = pa.string(), pa.float64()
    types = [("task", text), ("doc_id", pa.int64()), ("weight", real), ("kind", text), ("origin", text),
             ("category", text), ("contribution", real)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), folder / "contributions.parquet")
    return report.model_copy(update={"tasks": tuple(tasks)})


def made(folder: Path, **reports: Report) -> Matrix:
    return matrix(reports, folder, quality=QUALITY, names_from="n", command="c")


def test_parts_are_sums_over_tasks_with_the_interval_of_independent_documents(tmp_path):
    report = planted(tmp_path / "a", [1.0, 2.0])
    found = made(tmp_path, a=report)
    safety, prior = found.parts
    assert (safety.kind, safety.category, prior.kind) == ("latents", "safety", "prior")
    known = [
        sum(c.contribution for t in report.tasks for c in t.components if c.origin == o) for o in ("written", "read")
    ]
    assert (safety.written, safety.read) == pytest.approx(known)
    assert safety.contribution == pytest.approx(sum(known))
    assert prior.written is None
    assert found.sums[0].gap == pytest.approx(safety.contribution + prior.contribution)
    assert safety.share is not None
    assert prior.share is not None
    assert safety.share + prior.share == pytest.approx(1)
    assert safety.interval is not None
    assert prior.interval is not None
    wanted = 1.96 * np.sqrt(2 * 2 / 400)  # two independent columns of variance 1 in either of two tasks
    assert (safety.interval.high - safety.interval.low) / 2 == pytest.approx(wanted, rel=0.08)
    assert (prior.interval.high - prior.interval.low) / 2 == pytest.approx(wanted / np.sqrt(2), rel=0.08)


def test_gaps_that_cancel_have_no_shares(tmp_path):
    found = made(tmp_path, a=planted(tmp_path / "a", [2.0, -1.9]))
    assert {part.share for part in found.parts} == {None}
    assert "nearly cancel" in (found.sums[0].share_reason or "")
    assert all(part.interval is not None for part in found.parts)


def test_documents_that_weigh_differently_leave_the_interval_out(tmp_path):
    found = made(tmp_path, a=planted(tmp_path / "a", [1.0, 2.0], weights=[1.0, 0.5]))
    assert found.parts
    assert all(part.interval is None for part in found.parts)


def test_cells_are_decided_over_the_whole_matrix(tmp_path):
    reports = {name: planted(tmp_path / name, [1.0, 2.0]) for name in ("a", "b")}
    p_values = {"a": (0.001, 0.02), "b": (0.013, None)}
    for name, report in reports.items():
        tasks = tuple(t.model_copy(update={"p_value": p}) for t, p in zip(report.tasks, p_values[name], strict=True))
        reports[name] = report.model_copy(update={"tasks": tasks})
    cells = made(tmp_path, **reports).cells
    assert [cell.p_holm for cell in cells] == [pytest.approx(0.003), pytest.approx(0.026), pytest.approx(0.026), None]
    assert [cell.is_decided for cell in cells] == [True, True, True, False]
    assert [(cell.candidate, cell.verdict) for cell in cells] == [("a", "improved")] * 2 + [("b", "improved")] * 2


def test_a_task_whose_surrogate_does_not_follow_is_in_no_sum_and_said_so(tmp_path):
    report = planted(tmp_path / "a", [1.0, 2.0])
    first, second = report.tasks
    assert first.surrogate is not None
    odd = first.surrogate.model_copy(update={"tracks": False, "tracks_reason": "ranks differ"})
    found = made(tmp_path, a=report.model_copy(update={"tasks": (first.model_copy(update={"surrogate": odd}), second)}))
    assert found.sums[0].tasks == (second.task,)
    assert found.left_out == (f"a: {first.task} is in no sum: ranks differ",)


def test_units_and_directions_are_not_added_up(tmp_path):
    report = planted(tmp_path / "a", [1.0, 2.0])
    first, second = report.tasks
    lower = first.model_copy(update={"higher_is_better": False})
    found = made(tmp_path, a=report.model_copy(update={"tasks": (lower, second)}))
    assert [whole.unit for whole in found.sums] == ["probability (lower is better)", "probability"]


def test_the_direction_of_a_sum_is_the_surrogates_own(tmp_path):
    """A log-likelihood rises where the perplexity that it stands for falls."""
    report = planted(tmp_path / "a", [1.0, 2.0])
    first, second = report.tasks
    assert first.surrogate is not None
    rising = first.surrogate.model_copy(update={"higher_is_better": True})
    perplexity = first.model_copy(update={"higher_is_better": False, "surrogate": rising})
    found = made(tmp_path, a=report.model_copy(update={"tasks": (perplexity, second)}))
    assert [whole.unit for whole in found.sums] == ["probability"]
