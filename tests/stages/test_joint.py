"""What a matrix's pairs share: texts of all models, columns of one store, names by one annotator."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffharness.candidates import Candidates
from diffharness.config import RunConfig
from diffharness.matrix import JointRun, PairRun
from tests.latents.annotators.chat_server import ChatServer, serve
from tests.latents.annotators.conftest import straight_to_the_local_server
from tests.stages.test_naming import by_dogs

__all__ = ["straight_to_the_local_server"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve(by_dogs) as running:
        yield running


@pytest.fixture(scope="module")
def candidates(tiny, tiny_moved) -> Candidates:
    return Candidates.named([str(tiny_moved), str(tiny.candidate)])


@pytest.fixture(scope="module")
def config(tiny_options, tmp_path_factory) -> RunConfig:
    """Without a corpus: what the tasks made the models read is trained on."""
    options = {**tiny_options, "tasks": ["tiny_answer", "tiny_word"], "corpus": (), "train_tokens": 100_000}
    return RunConfig.make({**options, "output": tmp_path_factory.mktemp("joint") / "out"})


@pytest.fixture(scope="module")
def joint(config, candidates) -> JointRun:
    return JointRun(config, candidates)


def test_without_a_corpus_all_models_read_what_any_of_them_read(joint, candidates):
    read = {
        side: {reading.ids for reading in joint.load_evaluation(side).ledger if len(reading.ids) > 1}
        for side in joint.sides
    }
    assert joint.sides == ("baseline", "candidate-moved", "candidate-candidate")
    assert any(own - read["baseline"] - read[other] for own, other in (
        (read["candidate-moved"], "candidate-candidate"), (read["candidate-candidate"], "candidate-moved"),
    )), "answers differ"  # fmt: skip
    assert {text.ids for text in joint.harvested.texts} == set.union(*read.values())


def test_a_pair_reads_its_columns_of_the_shared_store(joint, config, candidates):
    rows = joint.harvested.rows(joint.sides)
    for place, (name, args) in enumerate(candidates.arguments.items(), start=1):
        own = config.model_copy(update={"candidate": args, "output": config.output / name})
        pair = PairRun(own, joint, candidates.side(name))
        found = pair.harvested.rows(("baseline", "candidate"))
        assert torch.equal(found[:], rows[:][:, [0, place]])
        assert (pair.harvested.heldout == joint.harvested.heldout).all()
        assert not list((config.output / name / "activations").glob("shard*"))


def test_a_language_model_is_asked_once_about_all_candidates(joint, config, candidates, server):
    again = JointRun(config.model_copy(update={"annotator": (server.spec,), "annotate": 5}), candidates)
    kind, _, file = again.annotator.partition(",")
    rows = list(csv.DictReader(Path(file).read_text().splitlines()))
    assert kind == "file"
    assert len(rows) == 5, "those that were asked about"
    assert {row["category"] for row in rows} <= {"animals", "night", "unclear"}
    assert {row["category"] for row in rows} & {"animals", "night"}
    assert all("over all models" in row["note"] for row in rows)
    n_asked = len(server.requests)
    assert n_asked > 0
    assert again.annotator == f"file,{file}"
    assert len(server.requests) == n_asked
    assert "local-chat-completions" in again.names_from


@pytest.mark.parametrize("spec", ["none", "file,mine.csv"])
def test_nobody_and_a_persons_table_are_passed_on(config, candidates, spec):
    run = JointRun(config.model_copy(update={"annotator": (spec,)}), candidates)
    assert run.annotator == spec
    assert ("mine.csv" if "mine" in spec else "nobody") in run.names_from
