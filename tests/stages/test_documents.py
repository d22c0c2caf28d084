"""Flipped documents of a whole run on tiny models, down to their tokens, beside the run's account and its answers."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from diffharness.evaluation.scores import Evaluation
from diffharness.report.schema import Report, TaskDocuments, component_label


@pytest.fixture(scope="module")
def report(tiny_run) -> Report:
    return Report.load(tiny_run)


@pytest.fixture(scope="module")
def by_task(report) -> dict[str, TaskDocuments]:
    return {row.task: row for row in report.documents}


@pytest.fixture(scope="module")
def sides(tiny_run) -> list[Evaluation]:
    return [Evaluation.load(tiny_run / "evaluation" / side) for side in ("baseline", "candidate")]


def test_every_task_with_a_gap_has_documents(report, by_task):
    moved = {t.task for t in report.tasks if t.is_primary and t.verdict in ("improved", "regressed")}
    assert set(by_task) == moved
    assert {"tiny_choice", "tiny_answer", "tiny_text"} <= moved
    assert all(1 <= len(row.documents) <= 6 for row in by_task.values())


def test_shown_and_other_documents_are_all_the_flips(report, by_task):
    flips = {row.task: row for row in report.flips}
    for row in by_task.values():
        ids = [d.doc_id for d in row.documents] + [i for other in row.others for i in (*other.lost, *other.gained)]
        assert len(ids) == len(set(ids)) == flips[row.task].n_flips
        n_lost = sum(d.is_loss for d in row.documents) + sum(len(other.lost) for other in row.others)
        assert n_lost == flips[row.task].n_lost
        assert all(other.reason for other in row.others)


def test_those_in_the_direction_of_the_gap_come_first(report, by_task):
    verdicts = {t.task: t.verdict for t in report.tasks if t.is_primary}
    for row in by_task.values():
        order = [
            (d.is_loss != (verdicts[row.task] == "regressed"), -abs(d.candidate_surrogate - d.baseline_surrogate))
            for d in row.documents
        ]
        assert order == sorted(order, key=lambda key: (key[0], round(key[1], 3)))


def test_tokens_add_up_to_the_document_and_the_document_to_the_account(tiny_run, by_task):
    account: dict[tuple[str, int], dict[str, float]] = {}
    for r in pq.read_table(tiny_run / "contributions.parquet").to_pylist():
        label = component_label(r["kind"], r["category"], r["origin"])
        account.setdefault((r["task"], r["doc_id"]), {})[label] = r["contribution"]
    for row in by_task.values():
        for d in row.documents:
            gap = d.candidate_surrogate - d.baseline_surrogate
            size = sum(abs(v) for v in d.contributions.values())
            assert d.contributions == pytest.approx(account[row.task, d.doc_id], abs=2e-3 * size)
            assert sum(d.contributions.values()) + d.residual == pytest.approx(gap, abs=2e-3 * size)
            sums = [column.sum for column in d.columns]
            assert sum(sums) + d.contributions["prior"] + d.residual == pytest.approx(gap, abs=2e-3 * size)
            assert [c.kind for c in d.columns][-3:] == ["other", "bias", "error"]
            for n, column in enumerate(d.columns):
                found = sum(sum(s.values[n]) + s.left_out[n] for s in d.segments)
                assert found == pytest.approx(column.sum, abs=2e-3 * size)
                if column.category is not None:
                    both = d.contributions[column.category] + d.contributions[f"{column.category} (read)"]
                    assert column.sum == pytest.approx(both, abs=2e-3 * size)


def test_segments_read_as_what_the_models_read(by_task, sides):
    """The tokenizer of these models joins words by single spaces."""
    for d in by_task["tiny_choice"].documents:
        document = sides[0].of("tiny_choice", "none")[d.doc_id]
        texts = {s.name: "".join(s.texts).strip() for s in d.segments}
        assert texts["prompt"] == f"<bos> {document.prompt}"
        assert [texts[f"choice {n + 1}"] for n in range(2)] == [c.strip() for c in document.choices]
    for d in by_task["tiny_answer"].documents:
        texts = ["".join(s.texts).strip() for s in d.segments]
        assert texts[0].startswith(f"<bos> {sides[0].of('tiny_answer', 'none')[d.doc_id].prompt}")
        assert d.segments[0].name == "before the answers differ"
    for d in by_task["tiny_text"].documents:
        text = sides[0].of("tiny_text", "none")[d.doc_id].prompt.split()
        first = [word for word in "".join(d.segments[0].texts).split() if word not in ("<bos>", "<eos>")]
        assert first == text[: len(first)]
        assert len(first) > 20, "a window of 32 positions"


def test_kinds_are_those_of_the_flips(report, by_task):
    flips = {row.task: row for row in report.flips}
    kinds = {kind.kind for kind in flips["tiny_answer"].kinds}
    found = {d.kind for d in by_task["tiny_answer"].documents}
    assert found <= kinds
    assert None not in found
    assert {d.kind for d in by_task["tiny_text"].documents} == {None}
    examples = {e.doc_id: k.kind for k in flips["tiny_answer"].kinds for e in k.examples}
    shared = [d for d in by_task["tiny_answer"].documents if d.doc_id in examples]
    assert shared
    assert all(d.kind == examples[d.doc_id] for d in shared)


def test_the_artifact_is_plain_json_and_small(tiny_run, by_task):
    content = (tiny_run / "documents.json").read_text()
    assert [TaskDocuments.model_validate(row) for row in json.loads(content)] == list(by_task.values())
    n_documents = sum(len(row.documents) for row in by_task.values())
    assert len(content) < 20_000 * n_documents
