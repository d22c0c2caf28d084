"""A baseline file holds what a check needs, in little room, and says when it is not what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffharness.errors import RunError, UsageError
from diffharness.regression.baseline import Baseline, NoiseFloor
from diffharness.regression.blessing import bless, bless_run
from diffharness.regression.noise import NOISE_FILE, Noise, noise_floors
from diffharness.regression.scores import FinishedRun
from tests.regression.made_up import MadeUpTask, made_up_run, right

RNG = np.random.default_rng(3)
TASKS = (
    MadeUpTask("arc", right(40, 20), right(40, 25), subjects=[f"s{i % 4}" for i in range(40)]),
    MadeUpTask("loss", *(RNG.normal(size=(2, 40)).tolist()), metric="log_prob"),
    MadeUpTask("bytes", *([[-float(v), 30.0 + i] for i, v in enumerate(row)] for row in RNG.uniform(5, 50, (2, 40))),
               metric="bits_per_byte", higher_is_better=False, scores=(1.0, 1.0)),
    MadeUpTask("labels", *([[i % 2, (i * k) % 2] for i in range(40)] for k in (1, 3)), metric="f1", scores=(1.0, 1.0)),
)  # fmt: skip


def blessed(tmp_path: Path, *tasks: MadeUpTask) -> Path:
    """A file of a made-up run."""
    file = tmp_path / "baseline.json"
    bless_run(made_up_run(tmp_path / "run", tasks or TASKS), file, "candidate", None)
    return file


def test_scores_come_back_as_the_run_has_them(tmp_path: Path) -> None:
    """Right and wrong exactly, other numbers in single precision; hashes in order."""
    there = Baseline.load(blessed(tmp_path)).scores()
    here = FinishedRun.open(tmp_path / "run").side("candidate")
    for name, task in here.tasks.items():
        assert there.tasks[name].documents == task.documents
        assert there.tasks[name].asked == task.asked
        assert list(there.tasks[name].columns) == list(task.columns)
        for metric, column in task.columns.items():
            kept = there.tasks[name].columns[metric]
            assert (kept.kind, kept.score, kept.span) == (column.kind, column.score, column.span)
            np.testing.assert_array_equal(kept.values_NC, column.rounded().values_NC)
    assert there.tasks["arc"].columns["acc,none"].values_NC[:, 0].tolist() == TASKS[0].candidate
    assert {c.kind for t in there.tasks.values() for c in t.columns.values()} == {"mean", "ratio", "labels"}


@pytest.mark.parametrize("values", [right(1000, 700), RNG.normal(size=1000).tolist()])
def test_a_thousand_documents_take_at_most_25_bytes_each(tmp_path: Path, values: list[float]) -> None:
    """Account and all: small enough to commit."""
    file = blessed(tmp_path, MadeUpTask("arc", values, values, metric="score"))
    assert file.stat().st_size <= 25_000


def test_the_account_and_the_crosscoder_are_kept(tmp_path: Path) -> None:
    """Contributions with intervals, fingerprint and explained variance."""
    found = Baseline.load(blessed(tmp_path))
    assert found.crosscoder is not None
    assert found.crosscoder.fingerprint == "ab" * 8
    assert found.crosscoder.explained_variance
    report = FinishedRun.open(tmp_path / "run").report
    wanted = {c.category for c in report.tasks[0].components if c.kind == "latents"}
    assert {part.category for part in found.tasks[0].contributions} == wanted
    value, low, high, level = found.tasks[0].contributions[0].values
    assert low <= value <= high
    assert level == 0.95


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:0], "is empty"),
        (lambda text: text[: len(text) // 2], "was cut off"),
        (lambda text: f"[{len(text)}]", "is no baseline file"),
        (lambda text: text.replace('"arc"', '"arc2"', 1), "was altered after it was written"),
        (lambda text: text.replace('"1.0"', '"2.0"', 1), "has schema 2.0, newer than 1.0"),
        (lambda text: text.replace('"1.0"', '"1.1"', 1), "has schema 1.1, newer than 1.0"),
        (lambda text: text.replace('"1.0"', '"one"', 1), "says no schema version"),
    ],
)
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: object, said: str) -> None:
    """Empty, cut off, altered by hand, or of a newer diffharness."""
    file = blessed(tmp_path)
    assert callable(damage)
    file.write_text(str(damage(file.read_text())))
    with pytest.raises(UsageError) as error:
        Baseline.load(file)
    assert said in str(error.value)
    assert "diffharness bless RUN --output FILE" in str(error.value)


def test_packed_columns_are_not_trusted(tmp_path: Path) -> None:
    """A file whose checksum fits can still hold a column that is none."""
    file = blessed(tmp_path)
    found = Baseline.load(file)
    task = found.tasks[0]
    broken = task.model_copy(update={"documents": "####"})
    found.model_copy(update={"tasks": (broken,)}).save(file)
    with pytest.raises(UsageError, match="is damaged"):
        Baseline.load(file).scores()


@pytest.mark.parametrize("left", [[], ["manifest.json"], ["report.json", "manifest.json"]])
def test_a_run_that_is_not_whole_is_refused(tmp_path: Path, left: list[str]) -> None:
    """Empty or partial: with the line that says what to do, and nothing written."""
    whole = made_up_run(tmp_path / "whole", TASKS)
    folder = tmp_path / "partial"
    folder.mkdir()
    for name in left:
        (folder / name).write_bytes((whole / name).read_bytes())
    with pytest.raises((UsageError, RunError), match=r"holds no run|was not finished|absent or damaged"):
        bless_run(folder, tmp_path / "b.json", "candidate", None)
    assert not (tmp_path / "b.json").exists()


def test_the_noise_floor_is_2_8_standard_deviations_of_one_evaluation(tmp_path: Path) -> None:
    """Planted noise of a known size on every document, and right and wrong that came out the same."""
    noise = np.random.default_rng(0)
    truth = noise.normal(size=4000)
    one, other = (truth + noise.normal(scale=0.1, size=4000) for _ in range(2))
    tasks = (
        MadeUpTask("noisy", one.tolist(), other.tolist(), metric="score"),
        MadeUpTask("arc", right(9, 5), right(9, 5)),
    )
    run = FinishedRun.open(made_up_run(tmp_path / "aa", tasks))
    sides = [{n: (t.columns, t.left_out) for n, t in run.side(s).tasks.items()} for s in ("baseline", "candidate")]
    noisy, quiet = noise_floors(*sides)
    assert noisy.floor == pytest.approx(max(2.8 * 0.1 / np.sqrt(4000), abs(noisy.difference)), rel=0.05)
    assert noisy.n_changed == 4000
    assert (quiet.floor, quiet.n_changed) == (0.0, 0)


def noise_file(folder: Path, *scores: tuple[str, str]) -> Path:
    """What an A/A run leaves."""
    folder.mkdir()
    floors = tuple(NoiseFloor(task=t, metric=m, difference=0.02, n_changed=1, floor=0.05) for t, m in scores)
    (folder / NOISE_FILE).write_text(Noise(model="base", runs=("one", "other"), floors=floors).model_dump_json())
    return folder


def test_it_is_said_whose_noise_floors_are_kept_and_what_has_none(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", TASKS)
    scores = [(t.task, f"{m.metric},{m.filter}") for t in bless(FinishedRun.open(run), "candidate").tasks
              for m in t.metrics]  # fmt: skip
    aa = noise_file(tmp_path / "aa", *scores)
    assert bless_run(run, tmp_path / "b.json", "candidate", aa).endswith(
        f"with the noise floors of {aa} (an A/A run of base)"
    )
    fewer = noise_file(tmp_path / "fewer", *scores[1:])
    said = bless_run(run, tmp_path / "b.json", "candidate", fewer)
    assert said.endswith(f"(an A/A run of base, none of {' '.join(scores[0])})")


def test_noise_of_other_tasks_is_refused(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", TASKS)
    other = noise_file(tmp_path / "aa", ("gsm8k", "acc,none"))
    with pytest.raises(UsageError, match=rf"--noise {other} is of other tasks \(gsm8k\) than the run \(arc.*--tasks"):
        bless_run(run, tmp_path / "b.json", "candidate", other)
    assert not (tmp_path / "b.json").exists()


def test_a_noise_floor_below_0_is_no_file_of_an_aa_run(tmp_path: Path) -> None:
    run, aa = made_up_run(tmp_path / "run", TASKS), noise_file(tmp_path / "aa", ("arc", "acc,none"))
    (aa / NOISE_FILE).write_text((aa / NOISE_FILE).read_text().replace('"floor":0.05', '"floor":-1'))
    with pytest.raises(UsageError, match="is no file of an A/A run; make one with"):
        bless_run(run, tmp_path / "b.json", "candidate", aa)


def test_an_aa_run_in_place_of_a_comparison_is_told_apart_from_a_partial_one(tmp_path: Path) -> None:
    aa = noise_file(tmp_path / "aa", ("arc", "acc,none"))
    (aa / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match=r"aa holds an A/A run, .* `diffharness bless --noise`"):
        FinishedRun.open(aa)


def test_a_report_of_a_newer_diffharness_is_not_read(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", TASKS)
    body = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({**body, "schema_version": "99.0"}))
    with pytest.raises(RunError, match=r"its schema version is 99\.0, .* update diffharness"):
        FinishedRun.open(run)


def test_a_side_that_is_absent_is_named_once(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", TASKS)
    (run / "evaluation" / "candidate" / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"absent or damaged \(No such file or directory\); the same") as caught:
        FinishedRun.open(run).side("candidate")
    assert str(caught.value).count("evaluation.json") == 1


def test_the_noise_floor_is_kept(tmp_path: Path) -> None:
    """With its rule."""
    run = FinishedRun.open(made_up_run(tmp_path / "run", TASKS))
    floor = NoiseFloor(task="arc", metric="acc,none", difference=0.025, n_changed=1, floor=0.05)
    file = tmp_path / "b.json"
    bless(run, "candidate", ("the rule", (floor,))).save(file)
    found = Baseline.load(file)
    assert (found.noise, found.noise_rule) == ((floor,), "the rule")
    assert json.loads(file.read_text())["checksum"].startswith("sha256:")
