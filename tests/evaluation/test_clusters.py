"""Which documents belong together: from the YAML, from an option, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.clusters import cluster_keys, with_clusters
from diffharness.evaluation.scores import Evaluation
from tests.tiny import write_task


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clustered")
    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"passage": f"p{i // 4}", "page": i // 3}
    for name, metadata in (("plain", {}), ("own", {"cluster": "passage"})):
        write_task(
            folder, name, rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target=" {{word}}",
            metric_list=[{"metric": "acc"}], metadata={"version": 1.0, **metadata},
        )  # fmt: skip
    shutil.copy(tiny.tasks / "tiny_word.yaml", folder)
    return folder


@pytest.fixture(scope="module")
def tasks(folder):
    return harness.load_tasks(["plain", "own", "tiny_word"], [folder])


@pytest.fixture(scope="module")
def evaluated(tasks, tiny_models):
    return harness.evaluate(tiny_models[0], tasks)[0]


def _clusters(evaluation: Evaluation, task: str) -> list[str | None]:
    return [d.cluster for _, d in sorted(evaluation.of(task, "none").items())]


def test_a_tasks_own_key_is_kept_with_every_document_and_on_disk(evaluated, tmp_path):
    assert _clusters(evaluated, "own") == [f"p{i // 4}" for i in range(12)]
    assert set(_clusters(evaluated, "plain")) == {None}
    evaluated.save(tmp_path)
    assert Evaluation.load(tmp_path).documents == evaluated.documents


def test_recordings_from_before_clusters_open(evaluated, tmp_path):
    evaluated.save(tmp_path)
    body = json.loads((tmp_path / "evaluation.json").read_text())
    for document in body["documents"]:
        del document["cluster"]
    (tmp_path / "evaluation.json").write_text(json.dumps(body))
    assert {d.cluster for d in Evaluation.load(tmp_path).documents} == {None}


def test_the_option_comes_before_a_tasks_own_key_and_reaches_recorded_documents(evaluated, tasks):
    assert cluster_keys(tasks.tasks, None) == {"own": "passage"}
    keys = cluster_keys(tasks.tasks, "page")
    assert keys == {"own": "page", "plain": "page"}, "tiny_word's documents have no page"
    found = with_clusters(evaluated, tasks.tasks, keys)
    assert _clusters(found, "plain") == _clusters(found, "own") == [str(i // 3) for i in range(12)]
    assert set(_clusters(found, "tiny_word")) == {None}


def test_an_unknown_key_is_refused_with_the_fields_that_there_are(tasks, folder):
    with pytest.raises(UsageError, match=r"--cluster 'chapter' is a field of no task's documents.*passage, page"):
        cluster_keys(tasks.tasks, "chapter")
    body = yaml.safe_load((folder / "own.yaml").read_text())
    (folder / "wrong.yaml").write_text(yaml.safe_dump({**body, "task": "wrong", "metadata": {"cluster": "chapter"}}))
    wrong = harness.load_tasks(["wrong"], [folder])
    with pytest.raises(UsageError, match=r"task 'wrong': metadata.cluster 'chapter' is no field.*passage, page"):
        cluster_keys(wrong.tasks, None)


def test_documents_that_are_others_here_or_have_no_cluster_are_refused(evaluated, tasks, folder, tiny):
    other = replace(evaluated, documents=tuple(replace(d, doc_hash="x") for d in evaluated.documents))
    with pytest.raises(RunError, match="document 0 of task 'own' is another here"):
        with_clusters(other, tasks.tasks, {"own": "page"})
    rows = [json.loads(line) for line in (folder / "plain.jsonl").read_text().splitlines()]
    rows[5]["page"] = None
    write_task(
        folder, "gap", rows, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target=" {{word}}",
        metric_list=[{"metric": "acc"}],
    )  # fmt: skip
    gap = harness.load_tasks(["gap"], [folder])
    named = replace(
        evaluated, documents=tuple(replace(d, task="gap") for d in evaluated.documents if d.task == "plain")
    )
    with pytest.raises(UsageError, match="a document of task 'gap' has no 'page'"):
        with_clusters(named, gap.tasks, {"gap": "page"})
