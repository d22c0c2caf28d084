"""A run from configuration to report: what is done again and what is not, and going on from lm-eval's own door."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from click.testing import CliRunner
from lm_eval.models.huggingface import HFLM

import diffharness
from diffharness import cli, stages
from diffharness.activations.store import ActivationStore
from diffharness.command import default_command
from diffharness.crosscoder import checkpoint, training
from diffharness.errors import RunError, UsageError
from diffharness.evaluation import harness
from diffharness.evaluation.scores import Evaluation
from diffharness.pipeline import Run
from diffharness.recording import record_command_line
from diffharness.report.schema import Report
from tests.tiny import ONLY_ACCOUNT, WORDS, tokenizer, write_jsonl, write_taxonomy

EVERY = [
    "evaluate baseline", "evaluate candidate", "compare", "validate", "depth", "harvest", "train baseline-candidate",
    "latents baseline-candidate", "account", "checks", "controls", "shapley", "claims", "documents", "flips", "report",
]  # fmt: skip
FROM_TRAIN, FROM_LATENTS, FROM_ACCOUNT = EVERY[6:], EVERY[7:], EVERY[8:]
WITHOUT_TRIALS = [s for s in EVERY if s not in ("controls", "shapley", "claims")]
"""Of a run with `ONLY_ACCOUNT`."""


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
        ({"smallest_effect": 0.3}, ["checks", "controls", "shapley", "claims", "documents", "report"]),
        ({"latents": 24}, FROM_TRAIN),
        ({"k": 5}, FROM_TRAIN),
        ({"seeds": 2}, FROM_TRAIN),
        ({"metric": "acc_norm"}, ["compare", "depth", *FROM_LATENTS]),
        ({"cluster": "prompt"}, ["compare", "depth", *FROM_ACCOUNT]),
        ({"depth_documents": 9}, ["depth", "report"]),
        ({"limit": 8}, [s for s in EVERY if s not in ("harvest", "train baseline-candidate")]),
        ({"layer": "0"}, [s for s in EVERY if s not in (*EVERY[:3], "depth")]),
        ({"attribution_documents": 9}, FROM_ACCOUNT),
        ({"nu_error": 0.5}, FROM_LATENTS),
        ({"nu_reconstruction": 0.4}, FROM_LATENTS),
        ({"annotator": "none"}, FROM_LATENTS),
        ({"seed": 1}, [s for s in EVERY if s not in (*EVERY[:2], "validate")]),
        ({"random_sets": 30}, ["claims", "report"]),
        ({"shapley": "all"}, ["shapley", "report"]),
        ({"ablate": ["night"]}, ["ablations", "report"]),
        ({"controls": False}, ["report"]),
        ({"random_sets": 0}, ["report"]),
        ({"shapley": "none"}, ["report"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_changed_option_reruns_what_depends_on_it(dry, ran, changes, expected):
    dry(**changes)
    assert ran == expected
    ran.clear()
    dry(**changes)
    assert ran == []


def test_changed_option_is_what_the_stages_go_by(again, ran, tiny):
    """What `dry` leaves out: several options at once, every stage really run again."""
    found = again(
        limit=8, cluster="word", depth_documents=8, attribution_documents=6, random_sets=20, ablate=["unclear"]
    )
    before = [s for s in EVERY if s not in ("harvest", "train baseline-candidate")]
    assert sorted(ran) == sorted([*before, "ablations"])
    primary = [task for task in found.tasks if task.is_primary]
    assert {task.n for task in found.tasks} == {8}
    words = [json.loads(line)["word"] for line in (tiny.tasks / "tiny_word.jsonl").read_text().splitlines()[:8]]
    assert {task.n_clusters for task in primary} == {len(set(words))} == {7}
    assert {task.n_accounted for task in primary} == {6}
    assert {profile.n_documents for profile in found.depth} == {8}
    assert {claim.random_effects.n_sets for claim in found.claims if claim.random_effects} <= {20}
    assert [model.categories for model in found.ablated] == [("unclear",)]


def test_changed_probes_rename_the_latents_only(dry, ran, tiny, tmp_path):
    lines = [json.loads(line) for line in tiny.probes.read_text().splitlines()]
    swapped = {"night": "animals", "animals": "night"}
    rows = [{**line, "category": swapped[line["category"]]} for line in lines]
    dry(probes=write_jsonl(tmp_path / "other.jsonl", rows))
    assert ran == FROM_LATENTS


def test_changed_taxonomy_renames_the_latents_only(dry, ran, tmp_path):
    dry(taxonomy=write_taxonomy(tmp_path / "more.yaml", "animals", "night", "weather"))
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
        (folder / "latents.json").write_text("half")
        raise RunError("the naming broke")

    before = (tmp_path / "run" / "latents.json").read_text()
    with monkeypatch.context() as broken:
        broken.setattr(stages, "describe_latents", fails)
        with pytest.raises(RunError):
            again(latents=24, **ONLY_ACCOUNT)
    assert (tmp_path / "run" / "latents.json").read_text() == before, "the old one stands until the new is whole"
    assert not list((tmp_path / "run").glob(".*"))
    ran.clear()
    again(latents=24, **ONLY_ACCOUNT)
    assert ran == [s for s in FROM_LATENTS if s in WITHOUT_TRIALS]


def test_training_that_was_cut_off_goes_on_and_ends_in_the_same_crosscoder(again, first, small, tmp_path, monkeypatch):
    original, steps = training.train, []

    def counted(*data: Any, progress: Any, **more: Any) -> Any:
        def report(done: int, total: int) -> None:
            steps.append(done)
            progress(done, total)
            if len(steps) == 100:
                raise KeyboardInterrupt

        return original(*data, progress=report, save_seconds=0.0, **more)

    monkeypatch.setattr(training, "train", counted)
    monkeypatch.setattr("diffharness.crosscoder.resuming.SAVE_COST", 0.0)
    with pytest.raises(KeyboardInterrupt):
        again(seed=3, **ONLY_ACCOUNT)
    assert (tmp_path / "run" / "crosscoder" / "model.safetensors").read_bytes() == (
        first / "crosscoder" / "model.safetensors"
    ).read_bytes(), "the old one stands until the new is whole"
    again(seed=3, **ONLY_ACCOUNT)
    assert steps[100] in (100, 101), "what was done is not done again"
    monkeypatch.setattr(training, "train", original)
    diffharness.run(diffharness.RunConfig.make({**small, **ONLY_ACCOUNT, "seed": 3, "output": tmp_path / "whole"}))
    for name in ("model.safetensors", "quality.json"):
        a, b = (tmp_path / run / "crosscoder" / name for run in ("run", "whole"))
        assert a.read_bytes() == b.read_bytes()
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.parametrize(
    "changes",
    [{"sparsity": "topk"}, {"sparsity": "jumprelu"}, {"shared_latents": 4, "dedicated": 3}, {"groups": (8,)}],
    ids=str,
)
def test_each_kind_of_crosscoder_runs_to_the_report(again, ran, changes, tmp_path):
    found = again(**changes, **ONLY_ACCOUNT)
    assert ran == [s for s in FROM_TRAIN if s in WITHOUT_TRIALS]
    config = checkpoint.load(tmp_path / "run" / "crosscoder").config
    assert config.training is not None
    assert config.training.sparsity == changes.get("sparsity", "batch_topk")
    assert (config.n_tied, config.n_dedicated) == ((4, (3, 3)) if "dedicated" in changes else (0, ()))
    assert config.groups == ((8, 32) if "groups" in changes else ())
    assert found.quality[0].sparsity == config.training.sparsity


def test_seeds_say_how_stable_the_latents_are_and_the_first_is_the_same(again, ran, first, tmp_path):
    found = again(seeds=2, random_sets=0, shapley="none", attribution_documents=12)
    assert ran == [s for s in FROM_TRAIN if s not in ("shapley", "claims")]
    stability = found.quality[0].stability
    assert stability is not None
    assert stability.seeds == (0, 1)
    assert (tmp_path / "run" / "crosscoder" / "seed-1" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "crosscoder" / "model.safetensors").read_bytes() == (
        first / "crosscoder" / "model.safetensors"
    ).read_bytes()
    moved = [task for task in found.tasks if task.components and task.verdict == "improved"]
    assert moved
    for task in moved:
        assert all(len(component.seeds) == 1 for component in task.components)
        sums = [sum(c.contribution for c in task.components), sum(c.seeds[0] for c in task.components)]
        assert sums == pytest.approx([task.surrogate.gap] * 2, abs=1e-2), "the other seed splits the same gap"
        assert any(c.seeds[0] != c.contribution for c in task.components)
    again(**ONLY_ACCOUNT)
    assert not (tmp_path / "run" / "crosscoder" / "seed-1" / "model.safetensors").exists()


def test_a_runs_report_says_what_reconstructions_cost(first):
    (quality,) = Report.load(first).quality
    assert set(quality.splice) == {"baseline", "candidate"}
    assert quality.stability is None
    assert quality.stale is None
    assert (first / "crosscoder" / "log.jsonl").is_file()


def test_first_stage_that_fails_leaves_no_folder(small, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise RunError("no scores")

    monkeypatch.setattr(stages, "evaluate", fails)
    with pytest.raises(RunError):
        diffharness.run(diffharness.RunConfig.make({**small, "output": tmp_path / "new" / "run"}))
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_the_report_is_the_configuration(small, tmp_path, monkeypatch):
    changes = {"controls": False, "limit": 0.5, "cluster": "word", "ablate": ["night", "animals,3"], "shapley": "all"}
    changes |= {"layer": "auto", "depth_documents": 9, "random_sets": 0}
    config = diffharness.RunConfig.make({**small, **changes, "output": tmp_path})
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
    options = {"latents": 24, "k": 4, "device": "cpu", "attribution_documents": 8, "output": tmp_path / "run"}
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


@pytest.mark.parametrize("layers", [(0,), ()], ids=["file says 0", "file says nothing"])
def test_a_loaded_crosscoder_takes_the_layer_it_says_from_recordings(recorded, first, tmp_path, monkeypatch, layers):
    monkeypatch.setattr("diffharness.activations.replay.replay", lambda *_, **__: pytest.fail("read again"))
    one = checkpoint.load(first / "crosscoder")
    one.config = one.config.model_copy(update={"layers": layers})
    checkpoint.save(one, tmp_path / "cc")
    options = {**ONLY_ACCOUNT, "crosscoder": tmp_path / "cc", "device": "cpu", "output": tmp_path / "run"}
    options["attribution_documents"] = 6
    options |= {f"{side}_results": folder for side, folder in recorded.items()}
    monkeypatch.setattr("diffharness.stages.dictionary._splice", lambda *_: None)
    assert diffharness.run(diffharness.RunConfig.make(options)).run.layer == (layers[0] if layers else 1)


def test_recordings_of_some_layers_refuse_auto(recorded, tmp_path):
    options = {"layer": "auto", "device": "cpu", "output": tmp_path / "run"}
    options |= {f"{side}_results": folder for side, folder in recorded.items()}
    with pytest.raises(
        UsageError, match=r"--layer auto chooses among all layers, but --baseline-results .* leave --layer"
    ):
        diffharness.run(diffharness.RunConfig.make(options))
    assert list(tmp_path.iterdir()) == []


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
    again(train_tokens=1400, **ONLY_ACCOUNT)
    ran.clear()
    shards = sorted((tmp_path / "run" / "activations").glob("shard_*"))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in shards}
    assert len(shards) >= 2
    body = before[shards[1]][0]
    shards[1].unlink()
    if damage != "absent":
        shards[1].write_bytes(body[:-1] if damage == "cut off" else body[:-1] + bytes([body[-1] ^ 1]))
    again(train_tokens=1400, **ONLY_ACCOUNT)
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
