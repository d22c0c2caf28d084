"""Documents are paired by what they are; what can not be compared is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffharness.regression.pairing import Pairs, Refused, pair_tasks
from diffharness.regression.scores import FinishedRun, SideScores
from tests.regression.made_up import MadeUpTask, made_up_run, right

TASK = MadeUpTask("arc", right(20, 10), right(20, 10))


def scores(folder: Path, *tasks: MadeUpTask, **settings: object) -> SideScores:
    """The candidate's, of a made-up run."""
    return FinishedRun.open(made_up_run(folder, tasks, protocol=settings)).side("candidate")


def pair(
    before: SideScores, after: SideScores, *, intersect: bool = False, task: str = "arc"
) -> Pairs | Refused | None:
    """Against a file."""
    return pair_tasks(task, before, after, intersect=intersect, file="baseline.json")


def test_the_same_documents_are_paired_whatever_their_order(tmp_path: Path) -> None:
    """And those that come twice one by one."""
    numbers = [*range(18), 3, 3]
    before = scores(tmp_path / "a", replace(TASK, documents=numbers))
    after = scores(tmp_path / "b", replace(TASK, documents=numbers[::-1]))
    found = pair(before, after)
    assert isinstance(found, Pairs)
    assert sorted(found.before) == list(range(20))
    assert [numbers[i] for i in found.before] == [numbers[::-1][i] for i in found.after]
    assert found.note is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "2.0"}, "version 1.0 in baseline.json, 2.0 in the run"),
        ({"documents": range(5, 25)}, "5 of 20 documents of baseline.json are not in the run, 5 of the run's 20"),
        ({"prompts": "other"}, "20 of 20 documents have another prompt or target than in baseline.json"),
        ({"name": "brc"}, "the run does not have this task"),
    ],
)
def test_what_changed_is_refused_by_name(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    """Version, documents, prompts, or the task itself."""
    found = pair(scores(tmp_path / "a", TASK), scores(tmp_path / "b", replace(TASK, **changed)))
    assert isinstance(found, Refused)
    assert said in found.sentence


def test_a_task_that_was_never_blessed_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    before, after = scores(tmp_path / "a", TASK), scores(tmp_path / "b", TASK, replace(TASK, name="new"))
    found = pair(before, after, task="new")
    assert isinstance(found, Refused)
    assert "baseline.json does not have this task; bless a run that has it" in found.sentence
    assert pair(before, after, task="new", intersect=True) is None


def test_intersecting_goes_on_with_what_matches_and_says_what_was_left_out(tmp_path: Path) -> None:
    """Documents of one side only, and those that were asked otherwise."""
    before = scores(tmp_path / "a", TASK)
    after = scores(tmp_path / "b", replace(TASK, documents=range(5, 25)))
    found = pair(before, after, intersect=True)
    assert isinstance(found, Pairs)
    assert (found.before, found.after) == (tuple(range(5, 20)), tuple(range(15)))
    assert found.note == "arc: 15 documents compared; left out were 5 of baseline.json alone, 5 of the run alone"
    other = pair(before, scores(tmp_path / "c", replace(TASK, prompts="other")), intersect=True)
    assert isinstance(other, Refused)
    assert "no document is the same" in other.sentence


def test_another_version_is_refused_even_where_documents_match(tmp_path: Path) -> None:
    """`--intersect` is about documents, not about what a score means."""
    found = pair(scores(tmp_path / "a", TASK), scores(tmp_path / "b", replace(TASK, version="2.0")), intersect=True)
    assert isinstance(found, Refused)


def test_settings_that_differ_are_named_as_a_cause(tmp_path: Path) -> None:
    """Shots show in prompts; how answers are generated does not, and is refused by itself."""
    before = scores(tmp_path / "a", TASK, num_fewshot=5)
    found = pair(before, scores(tmp_path / "b", replace(TASK, prompts="other")))
    assert isinstance(found, Refused)
    assert "(num_fewshot was 5, is not given)" in found.sentence
    assert isinstance(pair(before, scores(tmp_path / "c", TASK)), Pairs)
    generated = pair(scores(tmp_path / "d", TASK, gen_kwargs="temperature=1"), scores(tmp_path / "e", TASK))
    assert isinstance(generated, Refused)
    assert "gen_kwargs was temperature=1, is not given" in generated.sentence


def test_prompts_of_one_run_may_differ_where_the_candidate_has_its_own_template(tmp_path: Path) -> None:
    """The documents still have to be the same."""
    sides = [
        scores(tmp_path / prompts, replace(TASK, prompts=prompts)) for prompts in ("question", "templated question")
    ]
    common = {"intersect": False, "file": None}
    assert isinstance(pair_tasks("arc", *sides, **common), Refused)
    found = pair_tasks("arc", *sides, **common, by_design=True)
    assert found == Pairs(tuple(range(20)), tuple(range(20)))
    fewer = scores(tmp_path / "fewer", MadeUpTask("arc", right(19, 10), right(19, 10), prompts="templated question"))
    assert isinstance(pair_tasks("arc", sides[0], fewer, **common, by_design=True), Refused)
