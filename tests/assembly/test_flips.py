"""Flips beside the account: numbers per kind add up to the gap, and to the account of the documents."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffharness.assembly.flips import Contributions, Scored, flip_kinds
from diffharness.evaluation.scores import DocumentScore, MetricKey

METRIC = MetricKey("exact_match", "none", True)
NOTHING = Contributions({}, {})


def document(i: int, answer: str, response: str | None = "", stopped: bool | None = True, **more) -> DocumentScore:
    kept = answer if response == "" else response
    return DocumentScore(
        "t", i, "none", "d", "p", "Question: what?", "42", answer, {}, response=kept, stopped=stopped, **more
    )


def scored(base: list[DocumentScore], cand: list[DocumentScore], values, **changes) -> Scored:
    gap = float(np.mean([c - b for b, c in values]))
    sides = ({d.doc_id: d for d in side} for side in (base, cand))
    return Scored(**{
        "task": "t", "output_type": "generate_until", "metric": METRIC, "gap": gap,
        **dict(zip(("baseline", "candidate"), sides, strict=True)), "values": dict(enumerate(values)), **changes,
    })  # fmt: skip


@pytest.fixture
def generated() -> Scored:
    base = [document(i, answer) for i, answer in enumerate(("42", "42", "42", "", "7", "42"))]
    cand = [
        document(0, "[invalid]", "I must decline."),
        document(1, "8"),
        document(2, "8", "no end", stopped=False),
        document(3, "42"),
        document(4, "7"),
        document(5, "[invalid]", "I must decline."),
    ]
    return scored(base, cand, [(1, 0), (1, 0), (1, 0), (0, 1), (0, 0), (1, 0)])


@pytest.fixture
def account(tmp_path) -> Contributions:
    rows = [
        {"task": "t", "doc_id": i, "weight": 1.0 + (i == 5), "kind": "latents", "origin": origin, "category": "night",
         "contribution": -0.1 * (i + 1)} for i in (0, 1, 3, 5) for origin in ("written", "read")
    ]  # fmt: skip
    rows += [{**row, "kind": "bias", "origin": "written", "category": None, "contribution": 1.0} for row in rows[::2]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "contributions.parquet")
    return Contributions.load(tmp_path / "contributions.parquet")


def found_of(task: Scored, contributions: Contributions = NOTHING):
    (found,) = flip_kinds([task], contributions, np.random.default_rng(0))
    return found


def test_kinds_are_counted_and_their_gaps_add_up(generated):
    found = found_of(generated)
    assert {k.kind: (k.n_lost, k.n_gained) for k in found.kinds} == {
        "refused": (2, 0), "truncated": (1, 0), "empty": (0, 1), "answer differs": (1, 0),
    }  # fmt: skip
    assert [k.kind for k in found.kinds][-1] == "answer differs"
    assert (found.n, found.n_flips, found.n_lost, found.n_gained) == (6, 5, 4, 1)
    gaps = {k.kind: k.gap for k in found.kinds}
    assert gaps["refused"] == pytest.approx(-2 / 6)
    assert sum(gap for gap in gaps.values() if gap is not None) == pytest.approx(generated.gap)
    assert (found.reason, found.gap_reason) == (None, None)


def test_contributions_are_the_weighted_mean_of_the_kinds_documents(generated, account):
    refused, truncated, empty, rest = found_of(generated, account).kinds
    assert refused.n_accounted == 2
    assert refused.contributions == pytest.approx({
        "night": (-0.1 - 2 * 0.6) / 3, "night (read)": (-0.1 - 2 * 0.6) / 3, "bias": 1.0,
    })  # fmt: skip
    assert (truncated.n_accounted, truncated.contributions) == (0, {})
    assert empty.contributions["night"] == pytest.approx(-0.4)
    assert rest.contributions["night"] == pytest.approx(-0.2)


def test_examples_hold_answers_and_evidence(generated):
    example = found_of(generated).kinds[0].examples[0]
    assert (example.doc_id, example.is_loss, example.baseline_answer) == (0, True, "42")
    assert example.candidate_answer == "I must decline."
    assert example.evidence[0].startswith("refused: begins with “i must decline")
    assert example.evidence[1].startswith("wrong format: ")


def test_a_metric_that_is_no_mean_gives_kinds_no_gap(generated):
    found = found_of(scored(
        list(generated.baseline.values()), list(generated.candidate.values()), list(generated.values.values()), gap=0.3,
    ))  # fmt: skip
    assert {k.gap for k in found.kinds} == {None}
    assert found.gap_reason is not None


def test_recordings_without_responses_say_so():
    found = found_of(scored([document(0, "42", None)], [document(0, "8", None)], [(1, 0)]))
    assert (found.kinds, found.n_lost) == ((), 1)
    assert found.reason is not None
    assert "earlier version" in found.reason


def test_unknown_ends_and_repeats_are_said(generated):
    cand = [document(d.doc_id, d.answer, d.response, None) for d in generated.candidate.values()]
    found = found_of(scored(
        list(generated.baseline.values()), cand, list(generated.values.values()), is_repeated=True,
    ))  # fmt: skip
    assert found.kinds
    assert found.reason is not None
    assert "truncated" in found.reason
    assert "first answer" in found.reason


def choices(n: int, base_place, cand_place) -> Scored:
    letters = ("a", "b", "c", "d")
    sides = [[document(i, "", None, None, gold=(i % 4,), choices=letters) for i in range(n)] for _ in range(2)]
    places = {i: (base_place(i), cand_place(i)) for i in range(n)}
    values = [(float(b == i % 4), float(c == i % 4)) for i, (b, c) in places.items()]
    return scored(*sides, values, output_type="multiple_choice", metric=MetricKey("acc", "none", True), places=places)


def test_answers_that_moved_to_one_place_are_a_kind():
    found = found_of(choices(80, lambda i: i % 4, lambda i: 0 if i % 3 else i % 4))
    assert found.position is not None
    assert (found.position.position, found.position.moved, found.position.right) == (0, True, 0.25)
    assert [(k.kind, k.n_lost, k.n_gained) for k in found.kinds] == [("position", found.n_lost, 0)]
    assert found.kinds[0].gap == pytest.approx(-found.n_lost / 80)


def test_losses_that_go_anywhere_are_no_shift():
    found = found_of(choices(80, lambda i: i % 4, lambda i: (i + 1) % 4 if i % 3 else i % 4))
    assert found.position is not None
    assert not found.position.moved
    assert found.kinds == ()
    assert found.reason == "there is no free answer to sort"


def test_likelihood_tasks_have_no_kinds():
    found = found_of(
        scored([document(0, "", None)], [document(0, "", None)], [(0.5, 0.25)], output_type="loglikelihood")
    )
    assert (found.kinds, found.position, found.n_lost) == ((), None, 1)
    assert found.reason == "there is no free answer to sort"
