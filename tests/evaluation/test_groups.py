"""Rows of groups against lm-eval's own group scores, and their intervals against a plain stratified bootstrap."""

from __future__ import annotations

import json

import lm_eval
import numpy as np
import pytest
import yaml

from diffharness.evaluation import harness
from diffharness.evaluation.groups import compare_group, group_info, group_metrics
from tests.tiny import metrics, write_task

SIZES = {"part_a": 12, "part_b": 5, "part_c": 9}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Three tasks of different sizes, an inner group that counts tasks alike, a tag, and an outer one by size."""
    folder = tmp_path_factory.mktemp("groups")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    for i, (name, n) in enumerate(SIZES.items()):
        write_task(
            folder, name, [*rows[i:], *rows[:i]][:n], output_type="multiple_choice", doc_to_text="{{prompt}}",
            doc_to_target="gold", doc_to_choice="choices", metric_list=metrics("acc", "acc_norm"),
            **({"tag": "tagged"} if name != "part_a" else {}),
        )  # fmt: skip
    inner = {
        "group": "inner", "task": ["tagged"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
    }  # fmt: skip
    outer = {
        "group": "outer", "task": ["inner", "part_a"],
        "aggregate_metric_list": [
            {"metric": "acc", "weight_by_size": True, "filter_list": "none"}, {"metric": "acc_norm"},
        ],
    }  # fmt: skip
    for body in (inner, outer):
        (folder / f"{body['group']}.yaml").write_text(yaml.safe_dump(body))
    return folder


@pytest.fixture(scope="module")
def compared(folder, tiny_models):
    tasks = harness.load_tasks(["outer"], [folder])
    evaluations = [harness.evaluate(model, tasks)[0] for model in tiny_models]
    found = group_metrics(tasks, ["outer"], evaluations[0].tasks)
    rng = np.random.default_rng(0)
    return tasks, evaluations, {
        (g.group, g.metric.metric): (g, compare_group(g, evaluations[0], evaluations[1], tasks, rng)) for g in found
    }  # fmt: skip


def test_groups_have_lm_evals_own_scores(compared, tiny, folder):
    tasks, _, found = compared
    assert list(found) == [("inner", "acc"), ("outer", "acc"), ("outer", "acc_norm")]
    for side, model in (("baseline", tiny.baseline), ("candidate", tiny.candidate)):
        results = lm_eval.simple_evaluate(
            model="hf", model_args={"pretrained": str(model)}, batch_size=4, device="cpu", tasks=["outer"],
            task_manager=tasks.manager, bootstrap_iters=0,
        )  # fmt: skip
        assert results is not None
        for (group, metric), (_, row) in found.items():
            assert getattr(row, side) == pytest.approx(results["groups"][group][f"{metric},none"], abs=1e-12)


def test_a_groups_gap_and_interval_are_stratified(compared):
    _, (baseline, candidate), found = compared
    for (group, metric), (wanted, row) in found.items():
        shares = wanted.shares(baseline)
        assert sum(shares.values()) == pytest.approx(1)
        if group == "inner":
            assert list(shares.values()) == [0.5, 0.5]
        else:
            assert shares == {name: pytest.approx(n / 26) for name, n in SIZES.items()}
        differences = {
            name: np.array([candidate.of(name, "none")[i].values[metric] - d.values[metric] for i, d in docs.items()])
            for name in shares if (docs := baseline.of(name, "none"))
        }  # fmt: skip
        gap = sum(shares[name] * d.mean() for name, d in differences.items())
        assert row.result.gap == pytest.approx(gap)
        assert row.result.gap == pytest.approx(row.candidate - row.baseline)
        assert row.result.n == sum(map(len, differences.values()))
        if not any(d.any() for d in differences.values()):
            assert row.result.low < 0 < row.result.high
            continue
        error = sum(shares[n] ** 2 * d.var(ddof=1) / len(d) for n, d in differences.items()) ** 0.5
        assert row.result.standard_error == pytest.approx(error)
        rng = np.random.default_rng(1)
        draws = sum(shares[n] * rng.choice(d, size=(4000, len(d))).mean(axis=1) for n, d in differences.items())
        low, high = np.quantile(draws, [0.025, 0.975])
        assert row.result.low <= low + 0.3 * (high - low)
        assert row.result.high >= high - 0.3 * (high - low)
        assert row.effect_kind == "absolute"


def test_a_group_is_a_row_from_its_tasks(compared):
    _, (baseline, _), found = compared
    info = group_info(found["inner", "acc"][0], baseline.tasks)
    assert (info.name, info.output_type, info.categories) == ("inner", "multiple_choice", ("night",))
    assert info.hash


def test_tasks_and_groups_without_an_aggregate_have_no_row(tiny_tasks, tiny_evaluations):
    assert group_metrics(tiny_tasks, ["tiny", "tiny_word"], tiny_evaluations[0].tasks) == ()
