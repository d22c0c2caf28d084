"""A check is right about planted losses, and what can not be compared is an error that says so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from diffharness.errors import RunError, UsageError
from diffharness.regression.baseline import Baseline
from diffharness.regression.blessing import bless, bless_run
from diffharness.regression.check import check
from diffharness.regression.outcome import EXIT_CODES
from diffharness.regression.scores import FinishedRun
from tests.regression.made_up import MadeUpTask, lost, made_up_run, right

BEFORE = right(400, 300)
SAME = MadeUpTask("arc", BEFORE, BEFORE)
WORSE = MadeUpTask("safe", BEFORE, lost(BEFORE, 80))


def gate(tmp_path: Path, text: str) -> Path:
    """A policy file."""
    file = tmp_path / "gate.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def blessed(tmp_path: Path, *tasks: MadeUpTask) -> Path:
    """A file of the baselines' scores."""
    bless_run(made_up_run(tmp_path / "blessed", tasks), tmp_path / "b.json", "baseline", None)
    return tmp_path / "b.json"


def test_no_change_passes_and_a_loss_is_a_regression_with_its_why(tmp_path: Path) -> None:
    """Against the run's own baseline."""
    found = check(made_up_run(tmp_path / "run", (SAME, WORSE)))
    assert [rule.verdict for rule in found.rules] == ["pass", "regression"]
    assert (found.verdict, found.exit_code, found.against) == ("regression", 1, "baseline of the run")
    assert found.rules[1].difference == pytest.approx(-0.2)
    assert found.rules[1].why is not None
    assert found.rules[0].why is None
    assert any("no policy was given" in note for note in found.notes)


def test_a_baseline_file_gives_the_verdicts_of_the_run_itself(tmp_path: Path) -> None:
    """Scores in the file are those of the blessed side."""
    file = blessed(tmp_path, SAME, WORSE)
    run = made_up_run(tmp_path / "run", (SAME, WORSE))
    own, against = check(run), check(run, against=file)
    assert [r.verdict for r in own.rules] == [r.verdict for r in against.rules]
    assert [r.interval for r in own.rules] == [r.interval for r in against.rules]
    assert any("contributions are comparable" in note for note in against.notes)


def test_another_crosscoder_is_said(tmp_path: Path) -> None:
    """Its latents are others."""
    file = blessed(tmp_path, SAME)
    found = check(made_up_run(tmp_path / "run", (SAME,), weights="cd" * 32), against=file)
    assert any("is not the blessed run's" in note for note in found.notes)


def test_other_names_of_its_latents_are_said_and_where_the_blessed_ones_lie(tmp_path: Path) -> None:
    file = blessed(tmp_path, SAME)
    kept = Baseline.load(file)
    assert kept.crosscoder is not None
    kept.model_copy(update={"crosscoder": kept.crosscoder.model_copy(update={"names": "of others"})}).save(file)
    notes = check(made_up_run(tmp_path / "run", (SAME,)), against=file).notes
    where = Path(kept.crosscoder.location).parent / "latents.parquet"
    assert any(f"run with --annotator file,{where}" in note for note in notes)


def test_reasons_of_another_pair_are_said_to_be(tmp_path: Path) -> None:
    """The account is of the run's own baseline, which need not be the model that was blessed."""
    run = made_up_run(tmp_path / "run", (SAME, WORSE))
    own = next(model for model in FinishedRun.open(run).report.models if model.side == "baseline")
    for fingerprint, is_said in ((own.fingerprint, False), ("of another model", True)):
        file = tmp_path / "kept.json"
        bless(FinishedRun.open(run), "baseline").model_copy(update={"model_fingerprint": fingerprint}).save(file)
        notes = check(run, against=file).notes
        assert any("whose baseline is another model" in note for note in notes) == is_said


def test_few_documents_are_inconclusive_and_the_code_is_as_asked(tmp_path: Path) -> None:
    """Exit 3 unless the policy or the caller says otherwise."""
    few = MadeUpTask("arc", right(30, 20), right(30, 19, seed=1))
    run = made_up_run(tmp_path / "run", (few,))
    assert (check(run).verdict, check(run).exit_code) == ("inconclusive", EXIT_CODES["inconclusive"])
    policy = gate(tmp_path, "version: 1\ndefaults: {on_inconclusive: pass}\n")
    assert check(run, policy=policy).exit_code == 0
    assert check(run, policy=policy, on_inconclusive="fail").exit_code == 1
    assert check(run).rules[0].n_to_settle is not None


def test_a_direction_turns_the_gap(tmp_path: Path) -> None:
    """What lm-eval calls better can be overruled."""
    policy = gate(tmp_path, "version: 1\ntasks: {safe: {direction: lower}}\n")
    found = check(made_up_run(tmp_path / "run", (SAME, WORSE)), policy=policy)
    assert [(rule.task, rule.verdict) for rule in found.rules] == [("safe", "improved")]


def test_clusters_are_drawn_whole(tmp_path: Path) -> None:
    """A loss that lies in one of few subjects is no regression of independent documents."""
    subjects = [f"s{i // 40}" for i in range(400)]
    before = [1.0] * 400
    after = [0.0] * 40 + [1.0] * 360
    run = made_up_run(tmp_path / "run", (MadeUpTask("arc", before, after, subjects=subjects),))
    assert check(run).verdict == "regression"
    found = check(run, policy=gate(tmp_path, "version: 1\ntasks: {arc: {cluster: subject}}\n"))
    assert found.verdict == "inconclusive"
    with pytest.raises(UsageError, match="no documents with a field 'subjekt'"):
        check(run, policy=gate(tmp_path, "version: 1\ntasks: {arc: {cluster: subjekt}}\n"))


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_score_that_is_no_number_is_an_error(tmp_path: Path, side: str) -> None:
    """Exit 4, naming task, metric and document; other rules are decided."""
    broken = replace(SAME, name="nan", scores=(0.75, 0.75), **{side: [*BEFORE[:-1], math.nan]})
    found = check(made_up_run(tmp_path / "run", (SAME, broken)))
    assert [rule.verdict for rule in found.rules] == ["pass", "error"]
    assert (found.verdict, found.exit_code) == ("error", 4)
    assert "document 399 has no number" in found.rules[1].sentence


def test_missing_tasks_and_changed_ones_are_errors_by_name(tmp_path: Path) -> None:
    """Unless the matching rest is asked for."""
    file = blessed(tmp_path, SAME, replace(SAME, name="gone"))
    run = made_up_run(tmp_path / "run", (replace(SAME, version="2"), replace(SAME, name="new")))
    found = check(run, against=file)
    assert {rule.task: rule.verdict for rule in found.rules} == {"arc": "error", "new": "error", "gone": "error"}
    assert found.exit_code == 4
    part = check(run, against=file, intersect=True)
    assert [rule.task for rule in part.rules] == ["arc"]
    assert sum("left out" in note for note in part.notes) == 2


def test_a_margin_below_the_noise_floor_is_refused_with_the_figure(tmp_path: Path) -> None:
    """Of the A/A run that was stored."""
    from diffharness.regression.baseline import NoiseFloor

    file = blessed(tmp_path, SAME)
    floor = NoiseFloor(task="arc", metric="acc,none", difference=0.02, n_changed=8, floor=0.03)
    Baseline.load(file).model_copy(update={"noise": (floor,), "noise_rule": "rule"}).save(file)
    run = made_up_run(tmp_path / "run", (SAME,))
    with pytest.raises(UsageError, match=r"noise floor of 0\.03"):
        check(run, against=file)
    assert check(run, against=file, policy=gate(tmp_path, "version: 1\ndefaults: {margin: 0.03}")).exit_code == 0
    with pytest.raises(UsageError) as caught:
        check(run, against=file)
    remedy = str(caught.value).split("`")[1]
    found = check(made_up_run(tmp_path / "two", (SAME, WORSE)), policy=gate(tmp_path, f"version: 1\n{remedy}"))
    assert [rule.task for rule in found.rules] == [SAME.name, WORSE.name]


def test_rules_on_the_mechanism_are_decided(tmp_path: Path) -> None:
    """Contribution, specific latents and explained variance, each a result of its kind."""
    run = made_up_run(tmp_path / "run", (SAME,))
    text = (
        "version: 1\nmechanism:\n  - {category: safety, min_contribution: -0.01}\n"
        "  - max_specific: {hallucination management: {side: baseline, change: 50%}}\n"
        "  - min_explained_variance: 0.999\n"
    )
    found = check(run, policy=gate(tmp_path, text))
    assert [rule.kind for rule in found.rules] == ["score", "contribution", "specific", "quality"]
    assert "0.999 is asked for" in found.rules[3].sentence
    with pytest.raises(UsageError, match="did you mean 'safety'"):
        check(run, policy=gate(tmp_path, text.replace("safety", "savety")))


@pytest.mark.parametrize(("value", "verdict"), [(0.75, "pass"), (0.79, "inconclusive"), (0.85, "regression")])
def test_vllm_values_are_floors_of_the_candidate_alone(tmp_path: Path, value: float, verdict: str) -> None:
    """300 of 400 right: Wilson's one-sided bounds at 5 % are 0.713 and 0.784; a twentieth below is accepted."""
    text = f'tasks: [{{name: arc, metrics: [{{name: "acc,none", value: {value}}}]}}]\nlimit: 400\n'
    found = check(made_up_run(tmp_path / "run", (SAME, WORSE)), policy=gate(tmp_path, text))
    assert [(rule.task, rule.verdict) for rule in found.rules] == [("arc", verdict)]
    assert any("limit 400" in note for note in found.notes)


def test_runs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """No folder, an empty one, one without scores."""
    with pytest.raises(UsageError, match="is no folder"):
        check(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no run"):
        check(tmp_path)
    run = made_up_run(tmp_path / "run", (SAME,))
    (run / "evaluation" / "candidate" / "evaluation.json").write_text('{"tasks": [')
    with pytest.raises(RunError, match="absent or damaged"):
        check(run)
