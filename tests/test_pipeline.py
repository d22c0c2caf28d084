"""A run from configuration to report: what is done again and what is not, and going on from lm-eval's own door."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from click.testing import CliRunner
from lm_eval.models.huggingface import HFLM

import diffharness
from diffharness import cli, stages
from diffharness.activations.store import ActivationStore
from diffharness.artifacts import Workspace
from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.scores import Evaluation
from diffharness.pipeline import Run, default_command
from diffharness.recording import record_command_line
from diffharness.report.schema import Report
from tests.tiny import WORDS, tokenizer, write_jsonl

EVERY = [
    "evaluate baseline", "evaluate candidate", "compare", "validate", "harvest", "train baseline-candidate",
    "latents baseline-candidate", "account", "checks", "controls", "report",
]  # fmt: skip
FROM_TRAIN, FROM_LATENTS = EVERY[5:], EVERY[6:]


@pytest.fixture(scope="module")
def small(tiny_options) -> dict[str, Any]:
    """A run on two tasks."""
    return {**tiny_options, "tasks": ["tiny_choice", "tiny_word"], "train_tokens": 1500}


@pytest.fixture(scope="module")
def first(small, tmp_path_factory) -> Path:
    """The folder of a finished small run."""
    output = tmp_path_factory.mktemp("first") / "run"
    diffharness.run(diffharness.RunConfig.make({**small, "output": output}))
    return output


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The stages that run, in order."""
    names: list[str] = []
    whole = Workspace.stage

    def listed(self: Workspace, stage: str, *rest: Any, **more: Any):
        names.append(stage)
        return whole(self, stage, *rest, **more)

    monkeypatch.setattr(Workspace, "stage", listed)
    return names


@pytest.fixture
def again(first, small, tmp_path) -> Callable[..., Report]:
    """Run a copy of the finished run with changed options."""
    shutil.copytree(first, tmp_path / "run")

    def run(**changes: object) -> Report:
        return diffharness.run(diffharness.RunConfig.make({**small, "output": tmp_path / "run", **changes}))

    return run


def test_python_returns_the_report_that_is_on_disk(first, again, ran):
    found, before = again(), Report.load(first)
    assert isinstance(found, Report)
    assert found.model_copy(update={"run": before.run, "provenance": before.provenance}) == before
    assert ran == ["report"], "only the command in it, which names the folder, is another"


def test_views_written_again_are_not_a_reason_to_run_again(again, ran, tmp_path):
    again()
    assert CliRunner().invoke(cli.main, ["report", str(tmp_path / "run")]).exit_code == 0
    ran.clear()
    again()
    assert ran == []


def test_second_run_does_nothing_and_loads_no_models(first, small):
    config = diffharness.RunConfig.make({**small, "output": first})
    script = f"""
import sys
from diffharness import RunConfig, run
run(RunConfig.make({config.model_dump(mode="json", exclude_unset=True)!r}))
print([m for m in ("torch", "lm_eval", "transformers", "nnsight", "datasets") if m in sys.modules])
"""
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"smallest_effect": 0.3}, ["checks", "controls", "report"]),
        ({"latents": 24}, FROM_TRAIN),
        ({"metric": "acc_norm"}, ["compare", "account", "checks", "controls", "report"]),
        ({"limit": 8}, [s for s in EVERY if s not in ("harvest", "train baseline-candidate", EVERY[6])]),
        ({"controls": False}, ["report"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_changed_option_reruns_what_depends_on_it(again, ran, changes, expected):
    found = again(**changes)
    assert ran == expected
    if "limit" in changes:
        assert {t.n for t in found.tasks} == {8}


def test_changed_probes_rename_the_latents_only(again, ran, tiny, tmp_path):
    lines = [json.loads(line) for line in tiny.probes.read_text().splitlines()]
    other = write_jsonl(tmp_path / "other.jsonl", [{**line, "category": line["category"].upper()} for line in lines])
    again(probes=other)
    assert ran == FROM_LATENTS


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_damaged_artifact_reruns_its_stage_and_changes_nothing_else(again, ran, tmp_path, damage):
    file = tmp_path / "run" / "crosscoder" / "model.safetensors"
    before = json.loads((tmp_path / "run" / "account.json").read_text())
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    again()
    assert ran == ["train baseline-candidate", "report"]
    assert json.loads((tmp_path / "run" / "account.json").read_text()) == before


def test_failing_stage_leaves_nothing_and_the_next_run_goes_on(again, ran, monkeypatch, tmp_path):
    def fails(run: object, sides: object, folder: Path, progress: object) -> None:
        (folder / "config.json").write_text("half")
        raise RunError("the training broke")

    with monkeypatch.context() as broken:
        broken.setattr(stages, "train", fails)
        with pytest.raises(RunError):
            again(latents=24)
    config = json.loads((tmp_path / "run" / "crosscoder" / "config.json").read_text())
    assert config["n_latents"] == 32, "the old one stands until the new is whole"
    assert not list((tmp_path / "run").glob(".*"))
    ran.clear()
    again(latents=24)
    assert ran == FROM_TRAIN


def test_first_stage_that_fails_leaves_no_folder(small, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise RunError("no scores")

    monkeypatch.setattr(stages, "evaluate", fails)
    with pytest.raises(RunError):
        diffharness.run(diffharness.RunConfig.make({**small, "output": tmp_path / "new" / "run"}))
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_the_report_is_the_configuration(small, tmp_path, monkeypatch):
    config = diffharness.RunConfig.make({**small, "controls": False, "limit": 0.5, "output": tmp_path})
    seen: list[diffharness.RunConfig] = []
    monkeypatch.setattr(cli, "_run", seen.append)
    result = CliRunner().invoke(cli.main, shlex.split(default_command(config))[1:])
    assert result.exit_code == 0, result.output
    assert seen == [config]


@pytest.fixture(scope="module")
def recorded(quick_door, tiny, tiny_moved, tmp_path_factory) -> dict[str, Path]:
    """Folders that lm-eval's own door left, one a side, of two tasks with their activations."""
    folder = tmp_path_factory.mktemp("recorded")
    for side, model in (("baseline", tiny.baseline), ("candidate", tiny_moved)):
        record_command_line(door(model, tiny, f",record_to={folder / side},layer=1+0"))
    return {"baseline": folder / "baseline", "candidate": folder / "candidate"}


def door(model: Path, tiny: Any, more: str, *further: str, tasks: str = "tiny_choice,tiny_word") -> list[str]:
    return [
        "run", "--model", "diffharness", "--model_args", f"pretrained={model}{more}", "--tasks", tasks,
        "--include_path", str(tiny.tasks), "--batch_size", "4", "--device", "cpu", *further,
    ]  # fmt: skip


def test_lm_evals_door_prints_its_table_and_leaves_its_scores(quick_door, tiny, tmp_path, capsys):
    before = sys.argv
    record_command_line(door(tiny.baseline, tiny, f",record_to={tmp_path / 'x'}", tasks="tiny"))
    out = capsys.readouterr().out
    assert sys.argv is before
    assert "|    Tasks" in out
    assert "bits_per_byte" in out
    tasks = harness.load_tasks(["tiny"], [tiny.tasks])
    model = HFLM(pretrained=str(tiny.baseline), batch_size=4, device="cpu")
    plain = lm_eval.simple_evaluate(model=model, tasks=list(tasks.tasks.values()), task_manager=tasks.manager)
    assert plain is not None
    found = Evaluation.load(tmp_path / "x")
    results = json.loads((tmp_path / "x" / "results.json").read_text())["results"]
    for info in found.tasks:
        assert info.scores == {key: plain["results"][info.name][key] for key in info.scores}
        assert info.scores == {key: results[info.name][key] for key in info.scores}
        assert (tmp_path / "x" / f"samples_{info.name}.jsonl").read_text().count("\n") == 12
    assert len(found.tasks) == 4
    assert not (tmp_path / "x" / "activations").exists(), "no layer was asked for"


def test_run_goes_on_from_two_recordings_without_reading_again(recorded, tmp_path, monkeypatch, ran):
    monkeypatch.setattr("diffharness.activations.replay.replay", lambda *_, **__: pytest.fail("read again"))
    options = {"latents": 24, "k": 4, "device": "cpu", "output": tmp_path / "run"}
    options |= {f"{side}_results": folder for side, folder in recorded.items()}
    found = diffharness.run(diffharness.RunConfig.make(options))
    assert ran == EVERY
    assert [(t.task, t.verdict) for t in found.tasks if t.components] == [
        ("tiny_choice", "improved"),
        ("tiny_word", "improved"),
    ]
    assert found.run.layer == 1
    assert all(check.holds for check in found.validation.replay)
    assert any(c.ablation for t in found.tasks for c in t.components)


def test_paired_recordings_are_what_a_replay_reads(recorded, small, tmp_path):
    results = {f"{side}_results": folder for side, folder in recorded.items()}
    stores = []
    for name, more in (("read", {}), ("taken", results)):
        config = diffharness.RunConfig.make({**small, **more, "corpus": [], "output": tmp_path / name})
        stores.append(ActivationStore.open(Run(config).harvest().folder))
    read, taken = stores
    assert ActivationStore.open(recorded["baseline"] / "activations").spec.layers == (0, 1)
    own = {text.ids: i for i, text in enumerate(read.texts)}
    assert {t.ids for t in taken.texts} == set(own)
    for i, text in enumerate(taken.texts):
        assert abs(taken.text(i, 1) - read.text(own[text.ids], 1)).max() < 1e-5


def test_exact_check_asks_as_the_recording_did(quick_door, tiny, tiny_moved, tmp_path):
    tasks = tmp_path / "tasks"
    shutil.copytree(tiny.tasks, tasks)
    yaml = tasks / "tiny_word.yaml"
    yaml.write_text(yaml.read_text().replace("num_fewshot: 0\n", "fewshot_split: test\n"))
    folders = {}
    for side, model in (("baseline", tiny.baseline), ("candidate", tiny_moved)):
        arguments = door(model, tiny, f",record_to={tmp_path / side},layer=1", "--num_fewshot", "2", tasks="tiny_word")
        arguments[arguments.index("--include_path") + 1] = str(tasks)
        record_command_line(arguments)
        folders[f"{side}_results"] = tmp_path / side
    found = Evaluation.load(tmp_path / "baseline")
    assert found.settings["protocol"]["num_fewshot"] == 2
    assert all(len(d.prompt.split()) > 15 for d in found.documents)
    again, _ = harness.evaluate(
        harness.load_model(str(tiny.baseline), batch_size=4, device="cpu"),
        harness.load_tasks(["tiny_word"], [tasks]),
        protocol=found.settings["protocol"],
    )
    assert again.documents == found.documents


@pytest.mark.parametrize(
    ("more", "further", "message"),
    [
        ("", ("--use_cache", "{tmp}/cache"), "--use_cache answers requests without the model"),
        (",record_to={tmp}/file/x", (), "record_to .*file/x can not be written .*choose another"),
        (",record_to={tmp}/x,layer=7", (), "--layer 7 is out of range"),
    ],
)
def test_what_can_not_be_recorded_is_refused_before_scoring(
    quick_door, tiny, tmp_path, monkeypatch, more, further, message
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(HFLM, "loglikelihood", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(UsageError, match=message):
        record_command_line(
            door(tiny.baseline, tiny, more.format(tmp=tmp_path), *(f.format(tmp=tmp_path) for f in further))
        )
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_model_folder_at_the_door_is_one_line(quick_door, tiny, tmp_path):
    with pytest.raises(UsageError, match=r"model folder .*/none does not exist; give a model folder"):
        record_command_line(door(tmp_path / "none", tiny, ""))


def test_recordings_of_other_tasks_are_refused(recorded, quick_door, tiny, tiny_moved, tmp_path):
    other = tmp_path / "other"
    record_command_line(door(tiny_moved, tiny, f",record_to={other}", tasks="tiny_choice"))
    options = {"baseline_results": recorded["baseline"], "candidate_results": other, "output": tmp_path / "run"}
    with pytest.raises(UsageError, match="was recorded with --tasks"):
        diffharness.run(diffharness.RunConfig.make(options))
    mine = {**options, "candidate_results": recorded["candidate"], "tasks": ["tiny_word"]}
    with pytest.raises(UsageError, match="--tasks is settled by the recorded"):
        diffharness.run(diffharness.RunConfig.make(mine))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["evaluation.json", "ledger.parquet"])
def test_altered_recording_is_refused_by_name(recorded, tmp_path, name):
    other = tmp_path / "other"
    shutil.copytree(recorded["candidate"], other)
    body = (other / name).read_bytes()
    (other / name).write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])
    options = {"baseline_results": recorded["baseline"], "candidate_results": other, "output": tmp_path / "run"}
    with pytest.raises(UsageError, match=f"{name} was cut off or altered"):
        diffharness.run(diffharness.RunConfig.make(options))


def test_recording_of_weights_that_changed_since_is_refused(quick_door, recorded, tiny, tiny_moved, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_moved, model)
    record_command_line(door(model, tiny, f",record_to={tmp_path / 'recorded'}"))
    shutil.copyfile(tiny.candidate / "model.safetensors", model / "model.safetensors")
    options = {"baseline_results": recorded["baseline"], "candidate_results": tmp_path / "recorded"}
    with pytest.raises(UsageError, match="was recorded with other weights"):
        diffharness.run(diffharness.RunConfig.make({**options, "output": tmp_path / "run"}))
    moved = {**options, "replay_candidate": str(tiny_moved), "output": tmp_path / "run"}
    with pytest.raises(UsageError, match=r"--tasks is settled") as refused:
        diffharness.run(diffharness.RunConfig.make({**moved, "tasks": ["tiny_text"]}))
    assert "other weights" not in str(refused.value), "the same weights in another folder are the same"


def test_token_that_one_side_lacks_is_refused_where_a_task_uses_it(small, tiny_moved, tmp_path):
    lacking = tmp_path / "lacking"
    shutil.copytree(tiny_moved, lacking)
    tokenizer(WORDS[:-1]).save_pretrained(lacking)
    options = {**small, "candidate": lacking, "output": tmp_path / "run"}
    with pytest.raises(UsageError, match=r"task 'tiny_\w+' uses the token ':' of the baseline's tokenizer"):
        diffharness.run(diffharness.RunConfig.make(options))


def test_metric_that_only_the_results_can_refuse(again, monkeypatch):
    monkeypatch.setattr(harness.LoadedTasks, "check_metric", lambda *_: None)
    with pytest.raises(UsageError, match="'rouge1' is a metric of no task; there are: acc,none, acc_norm,none"):
        again(metric="rouge1")


@pytest.mark.parametrize("damage", ["cut off", "altered", "absent"])
def test_damaged_shard_is_written_again_and_nothing_else_changes(again, ran, tmp_path, monkeypatch, damage):
    monkeypatch.setattr("diffharness.activations.store.SHARD_TOKENS", 600)
    again(train_tokens=1400)
    ran.clear()
    shards = sorted((tmp_path / "run" / "activations").glob("shard_*"))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in shards}
    assert len(shards) >= 2
    body = before[shards[1]][0]
    shards[1].unlink()
    if damage != "absent":
        shards[1].write_bytes(body[:-1] if damage == "cut off" else body[:-1] + bytes([body[-1] ^ 1]))
    again(train_tokens=1400)
    assert ran == ["harvest"]
    assert {file: file.read_bytes() for file in shards} == {file: b for file, (b, _) in before.items()}
    assert shards[0].stat().st_mtime_ns == before[shards[0]][1], "a whole shard is not written again"


def test_activations_recorded_of_other_weights_are_refused(recorded, small, tmp_path):
    folders = {side: shutil.copytree(folder, tmp_path / side) for side, folder in recorded.items()}
    shutil.rmtree(folders["candidate"] / "activations")
    shutil.copytree(folders["baseline"] / "activations", folders["candidate"] / "activations")
    results = {f"{side}_results": folder for side, folder in folders.items()}
    options = {**small, **results, "corpus": [], "output": tmp_path / "run"}
    options = {k: v for k, v in options.items() if k not in ("baseline", "candidate")}
    with pytest.raises(RunError, match="holds activations of other weights than the candidate's"):
        diffharness.run(diffharness.RunConfig.make(options))
