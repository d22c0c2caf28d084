"""Tasks whose metric is of all documents together: scored, compared by recomputing, accounted for on a surrogate."""

import json
import shutil

import pytest

import diffharness
from tests.tiny import write_task


@pytest.fixture(scope="module")
def report(tiny, tiny_options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tasks = shutil.copytree(tiny.tasks, folder / "tasks")
    rows = [json.loads(line) for line in (tasks / "tiny_choice.jsonl").read_text().splitlines()]
    for metric in ("f1", "mcc"):
        write_task(
            tasks, f"tiny_{metric}", rows, output_type="multiple_choice", doc_to_text="{{prompt}}",
            doc_to_target="gold", doc_to_choice="choices", metric_list=[{"metric": metric}],
        )  # fmt: skip
    write_task(
        tasks, "tiny_bleu", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{word}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 6, "do_sample": False}, metric_list=[{"metric": "bleu"}],
    )  # fmt: skip
    names = ["tiny_choice", "tiny_f1", "tiny_mcc", "tiny_bleu"]
    options = {**tiny_options, "tasks": names, "include_path": [tasks], "output": folder / "run"}
    options |= {"controls": False, "random_sets": 0}
    return diffharness.run(diffharness.RunConfig.make(options))


def test_they_are_compared_by_recomputing_the_metric(report):
    for task in report.tasks[2:]:
        if task.metric in ("f1", "mcc", "bleu"):
            assert "recomputed" in task.interval.method
            assert task.interval.low <= task.gap <= task.interval.high
            assert task.p_value is not None


def test_choices_are_accounted_for_as_accuracy_is(report):
    of = {(t.task, t.metric): t for t in report.tasks}
    choice = of["tiny_choice", "acc"]
    for metric in ("f1", "mcc"):
        task = of[f"tiny_{metric}", metric]
        assert task.surrogate is not None
        assert task.surrogate.gap == pytest.approx(choice.surrogate.gap, abs=1e-6)
        assert f"in place of the task's {metric}" in task.surrogate.name
        assert task.not_tracked is None, "a probability's gap is in another unit"
        assert [c.contribution for c in task.components] == pytest.approx(
            [c.contribution for c in choice.components], abs=1e-6
        )


def test_shapley_values_are_of_the_metric_itself(report):
    rows = {row.task: row for row in report.shapley}
    scores = {t.task: t.candidate for t in report.tasks if t.is_primary}
    found = [rows[name] for name in ("tiny_choice", "tiny_f1", "tiny_mcc") if name in rows]
    assert found
    for row in found:
        assert row.reason is None
        assert row.v_all == pytest.approx(scores[row.task], abs=1e-6)
        assert sum(player.value for player in row.players) == pytest.approx(row.v_all - row.v_none, abs=1e-9)


def test_answers_are_accounted_for_by_their_own_score(report):
    (bleu,) = (t for t in report.tasks if t.task == "tiny_bleu")
    assert bleu.surrogate is not None or bleu.account_reason
    if bleu.surrogate is not None:
        assert sum(c.contribution for c in bleu.components) == pytest.approx(bleu.surrogate.gap, abs=1e-2)
