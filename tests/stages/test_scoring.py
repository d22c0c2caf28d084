"""The comparison stage: groups' rows, clusters, and a key that is refused before anything is scored."""

from __future__ import annotations

import json

import pytest
import yaml

from diffharness.config import RunConfig
from diffharness.errors import UsageError
from diffharness.pipeline import Run
from diffharness.report.schema import Task
from tests.tiny import metrics, write_task


@pytest.fixture(scope="module")
def options(tiny, tiny_options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    tasks = folder / "tasks"
    tasks.mkdir()
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row["passage"] = i // 2
    for name, n in (("first", 12), ("second", 6)):
        write_task(
            tasks, name, rows[:n], output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target=" {{word}}",
            metric_list=metrics("acc"),
        )  # fmt: skip
    body = {"group": "both", "task": ["first", "second"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tasks / "both.yaml").write_text(yaml.safe_dump(body))
    return {**tiny_options, "tasks": ["both"], "include_path": [tasks], "output": folder / "run"}


def _rows(options) -> list[dict]:
    run = Run(RunConfig.make(options))
    return run.read_json(run.comparison(), "comparison.json")["rows"]


def test_a_group_is_a_row_with_lm_evals_weights(options):
    rows = {row["task"]: row for row in _rows(options)}
    assert list(rows) == ["first", "second", "both"]
    both = rows["both"]
    assert (both["is_group"], both["is_primary"], both["n"]) == (True, False, 18)
    for side in ("baseline", "candidate", "gap"):
        assert both[side] == pytest.approx((12 * rows["first"][side] + 6 * rows["second"][side]) / 18)
    assert both["low"] <= both["gap"] <= both["high"]
    assert "within each of 2 tasks, which count by size" in both["method"]
    assert Task.model_fields.keys() >= {"is_group", "p_holm", "mde", "n_to_settle", "approximate", "n_clusters"}


def test_an_option_draws_clusters_everywhere(options, tmp_path):
    rows = {row["task"]: row for row in _rows({**options, "cluster": "passage", "output": tmp_path / "run"})}
    assert [rows[name]["n_clusters"] for name in rows] == [6, 3, 9]
    assert [rows[name]["cluster"] for name in rows] == ["passage", "passage", None]


def test_an_unknown_cluster_key_is_refused_before_anything_is_scored(options, tmp_path):
    run = Run(RunConfig.make({**options, "cluster": "chapter", "output": tmp_path / "run"}))
    with pytest.raises(UsageError, match="--cluster 'chapter' is a field of no task's documents"):
        run.comparison()
    assert not (tmp_path / "run" / "evaluation" / "baseline" / "evaluation.json").exists()
