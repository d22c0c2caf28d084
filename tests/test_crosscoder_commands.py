"""Crosscoders without a benchmark, from the command line: trained, measured, converted, got ready for the Hub."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from diffharness import cli
from diffharness.activations.store import ActivationStore
from diffharness.crosscoder import checkpoint, training
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.recording import record_command_line
from diffharness.standalone.sources import StoreSource
from tests.crosscoder.planted import plant
from tests.tiny import save_model

SIZES = ["--latents", 32, "--k", 4, "--steps", 60, "--device", "cpu"]
RESULT = {"config.json", "model.safetensors", "quality.json", "log.jsonl", "manifest.json"}


def call(*arguments: object, **more: Any) -> Result:
    return CliRunner().invoke(cli.main, ["crosscoder", *(str(a) for a in arguments)], **more)


def texts(result: Result) -> str:
    return " ".join(result.stdout.split())


def models(tiny, *sides: str) -> list[object]:
    return [word for side in sides for word in (f"--{side}", getattr(tiny, side))]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """The folder of a crosscoder over the tiny pair, its activations harvested first, with a second seed."""
    output = tmp_path_factory.mktemp("trained") / "cc"
    done = call(
        "train", *models(tiny, "baseline", "candidate"), "--corpus", tiny.corpus, "--layer", 1, "--train-tokens", 1500,
        *SIZES, "--seeds", 2, "--output", output,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "explained variance" in texts(done)
    assert "stable across seeds" in texts(done)
    return output


@pytest.fixture(scope="module")
def planted_file(tmp_path_factory) -> Path:
    """Activations of a planted dictionary in one file."""
    file = tmp_path_factory.mktemp("planted") / "x.safetensors"
    save_file({"x": plant(3000, d_model=16, n_shared=12, n_only=(2, 2)).x_NMD.contiguous()}, file)
    return file


def test_training_leaves_the_native_files_the_quality_and_the_log(trained, tiny):
    assert {file.name for file in trained.iterdir()} == RESULT | {"activations", "seed-1"}
    first, second = checkpoint.load(trained), checkpoint.load(trained / "seed-1")
    assert first.config.sides == ("baseline", "candidate")
    assert first.config.layers == (1,)
    assert first.config.models == ("baseline", "candidate"), "folders are called by their own names"
    assert [c.config.training and c.config.training.seed for c in (first, second)] == [0, 1]
    row = json.loads((trained / "quality.json").read_text())
    assert set(row["explained_variance"]) == set(row["splice"]) == {"baseline", "candidate"}
    assert 0 <= row["stability"]["share"] <= 1
    steps = [json.loads(line)["step"] for line in (trained / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60


def test_the_same_command_again_only_prints(trained, tiny):
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()}
    done = call(
        "train", *models(tiny, "baseline", "candidate"), "--corpus", tiny.corpus, "--layer", 1, "--train-tokens", 1500,
        *SIZES, "--seeds", 2, "--output", trained,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "explained variance" in texts(done)
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()} == before


def test_a_store_a_run_left_trains_the_same_crosscoder_as_its_models(trained, tmp_path):
    done = call("train", "--activations", trained, *SIZES, "--output", tmp_path / "cc")
    assert done.exit_code == 0, done.output
    again, first = checkpoint.load(tmp_path / "cc"), checkpoint.load(trained)
    assert torch.equal(again.W_dec_LMD, first.W_dec_LMD)


def test_what_is_streamed_is_not_kept_and_trains_too(tiny, tmp_path):
    arguments = ["train", *models(tiny, "baseline", "candidate"), "--corpus", tiny.corpus, "--layer", 1,
                 "--train-tokens", 600, *SIZES, "--stream", "--output", tmp_path / "cc"]  # fmt: skip
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "cc").rglob("shard_*"))
    again = call("train", "--activations", tmp_path / "cc", *SIZES, "--output", tmp_path / "other")
    assert (again.exit_code, "they were streamed; run without --stream" in again.stderr) == (2, True)


def test_three_models_are_one_crosscoder_in_the_documented_order(tiny, tmp_path):
    done = call(
        "train", *models(tiny, "baseline", "candidate", "ancestor"), "--corpus", tiny.corpus, "--layer", "1+2",
        "--train-tokens", 600, *SIZES, "--output", tmp_path / "cc",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    config = checkpoint.load(tmp_path / "cc").config
    assert config.sides == ("baseline", "candidate", "ancestor")
    assert config.columns[:3] == ("baseline@1", "baseline@2", "candidate@1")
    row = json.loads((tmp_path / "cc" / "quality.json").read_text())
    assert tuple(row["explained_variance"]) == config.columns
    assert set(row["splice"]) == set(config.columns)
    store = ActivationStore.open(tmp_path / "cc" / "activations")
    opened = StoreSource((tmp_path / "cc",)).open()
    x_NMD = opened.all_NMD[0:3]
    for m, column in enumerate(config.columns):
        side, layer = column.split("@")
        own = store.text(0, int(layer))[1:4, store.spec.sides.index(side)]
        assert torch.equal(x_NMD[:, m], own)
    one = call("train", "--activations", tmp_path / "cc", "--layer", 2, "--sides", "candidate,ancestor", *SIZES,
               "--output", tmp_path / "one")  # fmt: skip
    assert one.exit_code == 0, one.output
    assert checkpoint.load(tmp_path / "one").config.columns == ("candidate", "ancestor")


def record(model: Path, folder: Path, tiny: Any, tasks: str, layer: str) -> None:
    """Leave what lm-eval's own door makes a model read, with its activations."""
    record_command_line(
        ["run", "--model", "diffharness", "--model_args", f"pretrained={model},record_to={folder},layer={layer}",
         "--tasks", tasks, "--include_path", str(tiny.tasks), "--batch_size", "4", "--device", "cpu"]
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(quick_door, tiny, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recorded")
    for side, tasks in (("baseline", "tiny_choice,tiny_word"), ("candidate", "tiny_word,tiny_choice")):
        record(getattr(tiny, side), folder / side, tiny, tasks, "1+0")
    return [folder / "baseline", folder / "candidate"]


def test_recordings_of_one_model_each_are_paired_by_what_was_read(recorded, tmp_path):
    source = StoreSource(tuple(recorded), wanted=(1,))
    x_NMD = source.open().all_NMD
    stores = [ActivationStore.open(folder / "activations") for folder in recorded]
    places = [{text.ids: i for i, text in enumerate(store.texts)} for store in stores]
    expected = [
        torch.stack([store.text(place[text.ids], 1)[1:, 0] for store, place in zip(stores, places, strict=True)], dim=1)
        for text in stores[0].texts
    ]
    assert torch.equal(x_NMD[:], torch.cat(expected))
    places_N = torch.tensor([0, 5, 17, len(x_NMD) - 1])
    out_NMD = torch.empty((4, *x_NMD.shape[1:]))
    x_NMD.read_into(places_N, out_NMD)
    assert torch.equal(out_NMD, torch.cat(expected)[places_N])
    done = call("train", *(w for f in recorded for w in ("--activations", f)), *SIZES, "--output", tmp_path / "cc")
    assert done.exit_code == 0, done.output
    config = checkpoint.load(tmp_path / "cc").config
    assert config.layers == (0, 1)
    assert config.models == ("baseline", "candidate")


def test_models_of_different_widths_are_read_together(recorded, quick_door, tiny, tmp_path):
    save_model(tmp_path / "wide", seed=3, hidden_size=32)
    record(tmp_path / "wide", tmp_path / "recorded", tiny, "tiny_word", "1")
    both = ["--activations", recorded[0], "--activations", tmp_path / "recorded"]
    done = call("train", *both, *SIZES, "--output", tmp_path / "cc")
    assert done.exit_code == 0, done.output
    found = checkpoint.load(tmp_path / "cc")
    assert (found.config.layers, found.config.widths) == ((1,), (16, 32))
    assert not found.W_dec_LMD[:, 0, 16:].any()
    assert call("quality", tmp_path / "cc", *both).exit_code == 0
    refused = call("quality", tmp_path / "cc", *(w for f in recorded for w in ("--activations", f)))
    assert "reads width 16, 32, the models have 16; give a crosscoder of these models" in refused.stderr


def test_one_recording_is_a_dictionary_of_one_model(recorded, tmp_path):
    done = call("train", "--activations", recorded[0], "--layer", 1, "--sides", "mine", *SIZES, "--output",
                tmp_path / "cc")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert checkpoint.load(tmp_path / "cc").config.columns == ("mine",)
    assert "mine" in texts(done)


def test_the_folder_of_a_run_is_not_written_into(tiny_run, trained):
    before = sorted(tiny_run.rglob("*"))
    done = call("train", "--activations", trained, *SIZES, "--output", tiny_run)
    assert (done.exit_code, "is the folder of a run; choose another" in done.stderr) == (2, True)
    assert sorted(tiny_run.rglob("*")) == before


def test_a_run_s_activations_train_over_all_its_models(tiny_run, tiny, tmp_path):
    done = call("train", "--activations", tiny_run, *SIZES, "--output", tmp_path / "cc")
    assert done.exit_code == 0, done.output
    config = checkpoint.load(tmp_path / "cc").config
    assert config.sides == ("baseline", "candidate", "ancestor")
    assert config.models[0] == tiny.baseline.name


def test_a_file_of_activations_trains_too(planted_file, tmp_path):
    done = call("train", "--activations", planted_file, "--latents", 32, "--k", 3, "--device", "cpu", "--sides", "a,b",
                "--layer", 3, "--output", tmp_path / "cc")  # fmt: skip
    assert done.exit_code == 0, done.output
    found = checkpoint.load(tmp_path / "cc")
    assert (found.config.sides, found.config.layers) == (("a", "b"), (3,))
    row = json.loads((tmp_path / "cc" / "quality.json").read_text())
    assert min(row["explained_variance"].values()) > 0.8
    assert row["n_measured_tokens"] == 300


def test_what_training_shows_goes_to_other_logs_too_when_asked(planted_file, tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(
        "import pathlib, json\n"
        f"_file = pathlib.Path({str(tmp_path / 'sent.jsonl')!r})\n"
        "class Run:\n"
        "    def log(self, record, step): _file.open('a').write(json.dumps([step, sorted(record)]) + '\\n')\n"
        "    def finish(self): _file.open('a').write('[]\\n')\n"
        "def init(**given): return Run()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setitem(sys.modules, "wandb", None)  # so that what is imported here is forgotten afterwards
    del sys.modules["wandb"]
    done = call("train", "--activations", planted_file, *SIZES, "--log", "wandb", "--output", tmp_path / "cc")
    assert done.exit_code == 0, done.output
    *sent, closed = [json.loads(line) for line in (tmp_path / "sent.jsonl").read_text().splitlines()]
    assert [step for step, _ in sent] == [
        json.loads(line)["step"] for line in (tmp_path / "cc" / "log.jsonl").read_text().splitlines()
    ]
    assert "unexplained" in sent[0][1]
    assert closed == []


def test_ctrl_c_and_the_same_command_end_in_the_same_weights(planted_file, tmp_path, monkeypatch):
    arguments = ["train", "--activations", planted_file, *SIZES, "--seeds", 2, "--output"]
    whole = call(*arguments, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    original, steps = training.train, []

    def counted(*data: Any, progress: Any, **more: Any) -> Crosscoder:
        def report(done: int, total: int) -> None:
            steps.append(done)
            progress(done, total)
            if len(steps) == 85:
                raise KeyboardInterrupt

        return original(*data, progress=report, save_seconds=0.0, **more)

    monkeypatch.setattr(training, "train", counted)
    monkeypatch.setattr("diffharness.crosscoder.resuming.SAVE_COST", 0.0)
    stopped = call(*arguments, tmp_path / "cc")
    assert stopped.exit_code == 130
    assert "the same command goes on from there" in stopped.stderr
    assert {file.name for file in (tmp_path / "cc").iterdir() if not file.name.startswith(".")} == set()
    assert call(*arguments, tmp_path / "cc").exit_code == 0
    assert steps[85] in (25, 26), "what was done is not done again"
    assert steps[-1] == 60
    for name in (".", "seed-1"):
        a, b = checkpoint.load(tmp_path / "whole" / name), checkpoint.load(tmp_path / "cc" / name)
        assert torch.equal(a.W_enc_LMD, b.W_enc_LMD)
        logs = [
            [json.loads(line)["step"] for line in (tmp_path / run / name / "log.jsonl").read_text().splitlines()]
            for run in ("whole", "cc")
        ]
        assert logs[0] == logs[1]
    assert not list((tmp_path / "cc").rglob(".*"))


def test_quality_of_the_held_out_tenth_is_what_training_wrote(trained, tmp_path):
    done = call("quality", trained, "--activations", trained, "--device", "cpu", "--json", tmp_path / "q.json")
    assert done.exit_code == 0, done.output
    found, wrote = (json.loads(f.read_text()) for f in (tmp_path / "q.json", trained / "quality.json"))
    assert found["explained_variance"] == pytest.approx(wrote["explained_variance"], abs=1e-6)
    assert found["n_measured_tokens"] == wrote["n_measured_tokens"]
    everything = call("quality", trained, "--activations", trained, "--all", "--json", tmp_path / "all.json")
    assert everything.exit_code == 0
    assert json.loads((tmp_path / "all.json").read_text())["n_measured_tokens"] > 5 * wrote["n_measured_tokens"]


def test_quality_with_models_says_what_reconstructions_cost_and_leaves_nothing(trained, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(trained.rglob("*"))
    done = call("quality", trained, *models(tiny, "baseline", "candidate"), "--corpus", tiny.corpus, "--tokens", 500,
                "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "ΔCE" in texts(done)
    assert sorted(trained.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_what_explains_other_activations_badly_is_called_stale(trained, tiny, tmp_path):
    shutil.copytree(trained, tmp_path / "cc")
    one = checkpoint.load(tmp_path / "cc")
    one.W_dec_LMD.mul_(-1)
    checkpoint.save(one, tmp_path / "cc")
    done = call("quality", tmp_path / "cc", "--activations", trained, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "stale: it explains" in texts(done)


def test_conversion_there_and_back_keeps_the_code(trained, tmp_path):
    assert call("convert", trained, tmp_path / "theirs", "--to", "dictionary_learning").exit_code == 0
    back = call("convert", tmp_path / "theirs", tmp_path / "ours", "--to", "native", "--layer", 1, "--sides", "a,b")
    assert back.exit_code == 0, back.output
    first, again = checkpoint.load(trained), checkpoint.load(tmp_path / "ours")
    assert (again.config.sides, again.config.layers) == (("a", "b"), (1,))
    x_NMD = StoreSource((trained,)).open().heldout_NMD[:]
    assert torch.allclose(first.encode(x_NMD), again.encode(x_NMD), atol=1e-5)


def test_conversion_to_a_steering_file(trained, tmp_path):
    done = call("convert", trained, tmp_path / "s.pt", "--to", "steered", "--latents", "3,17", "--coefficient", 2)
    assert done.exit_code == 0, done.output
    (entry,) = torch.load(tmp_path / "s.pt", weights_only=True).values()
    assert torch.equal(entry["steering_vector"], checkpoint.load(trained).raw_decoder()[[3, 17], 1].sum(dim=0))
    assert entry["steering_coefficient"] == 2


def test_dry_run_leaves_the_folder_and_talks_to_nobody(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *_, **__: pytest.fail("talked"))
    done = call("push", trained, "me/cc", "--dry-run", "--folder", tmp_path / "up")
    assert done.exit_code == 0, done.output
    assert {file.name for file in (tmp_path / "up").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "quality.json",
    }  # fmt: skip
    card = (tmp_path / "up" / "README.md").read_text()
    assert "| explained variance, candidate |" in card
    assert "| loss recovered" in card
    assert str(trained.parent) not in card


def test_push_asks_and_no_is_no(trained, monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda _self, repo_id, **_more: sent.append(repo_id))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda _self, **more: sent.append(more["repo_id"]))
    refused = call("push", trained, "me/cc", input="n\n")
    assert refused.exit_code == 2
    assert "upload 4 files" in refused.stderr
    assert "nothing was uploaded" in refused.stderr
    assert sent == []
    assert call("push", trained, "me/cc", "--yes").exit_code == 0
    assert sent == ["me/cc", "me/cc"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory, planted_file) -> Path:
    """A folder of things that can not work."""
    folder = tmp_path_factory.mktemp("odd")
    save_file({"x": torch.zeros(10, 4)}, folder / "rank2.safetensors")
    save_file({"a": torch.zeros(10, 2, 4), "b": torch.zeros(1)}, folder / "two.safetensors")
    save_file({"x": torch.zeros(10, 2, 4, dtype=torch.int64)}, folder / "whole.safetensors")
    (folder / "no.safetensors").write_text("no")
    (folder / "empty").mkdir()
    config = CrosscoderConfig(sides=("ancestor", "candidate"), d_model=16, n_latents=8)
    checkpoint.save(Crosscoder(config), folder / "other_sides")
    checkpoint.save(Crosscoder(config.model_copy(update={"sides": ("baseline",)})), folder / "single")
    sized = CrosscoderConfig(sides=("baseline", "candidate"), d_model=8, n_latents=8)
    checkpoint.save(Crosscoder(sized), folder / "narrow")
    checkpoint.save(Crosscoder(sized.model_copy(update={"d_model": 16, "layers": (2,)})), folder / "layer2")
    return folder


FILE = ["--activations", "{planted}"]
TRAIN = ["train", "--output", "{out}"]
CASES: dict[str, tuple[list[object], str]] = {
    "missing folder": ([*TRAIN, "--activations", "{odd}/none"], "--activations {odd}/none does not exist; give a run"),
    "folder of nothing": ([*TRAIN, "--activations", "{odd}/empty"], "{odd}/empty holds no activations; give a run"),
    "tensor of wrong rank": ([*TRAIN, "--activations", "{odd}/rank2.safetensors"], "x is (10, 4) of float32; a float"),
    "whole numbers": ([*TRAIN, "--activations", "{odd}/whole.safetensors"], "of int64; a float tensor (tokens,"),
    "two tensors": ([*TRAIN, "--activations", "{odd}/two.safetensors"], "holds 2 tensors (a, b); give a file with one"),
    "no safetensors": ([*TRAIN, "--activations", "{odd}/no.safetensors"], "is no safetensors file ("),
    "sides not matching": ([*TRAIN, *FILE, "--sides", "a,b,c"], "--sides a,b,c names 3: the activations are of 2"),
    "same sides": ([*TRAIN, *FILE, "--sides", "a,a"], "give a different name for each"),
    "layer not stored": ([*TRAIN, "--activations", "{cc}", "--layer", "7"], "--layer 7: the activations are of"),
    "layer no number": ([*TRAIN, "--activations", "{cc}", "--layer", "0.5"], "--layer 0.5 is not whole numbers joined"),
    "k above latents": ([*TRAIN, *FILE, "--latents", "8", "--k", "9"], "--k 9 is above the 8 latents that there are"),
    "unknown sparsity": ([*TRAIN, *FILE, "--sparsity", "l2"], "'l2' is not one of"),
    "groups that fall": ([*TRAIN, *FILE, "--groups", "16,8"], "--groups 16,8 must ascend from 1 to at most the 64"),
    "groups that are none": ([*TRAIN, *FILE, "--groups", "a"], "--groups: Input should be a valid integer"),
    "groups with a penalty": ([*TRAIN, *FILE, "--groups", "8", "--sparsity", "l1"], "groups go with batch_topk"),
    "more apart than there are": ([*TRAIN, *FILE, "--dedicated", "40"], "are 80 latents, more than the 64 that there"),
    "corpus with a store": ([*TRAIN, *FILE, "--corpus", "x.jsonl"], "--corpus is for models that read texts, and"),
    "nothing to train on": ([*TRAIN], "baseline is missing; give a folder, a Hub id or lm-eval model_args, or --activ"),
    "models without texts": ([*TRAIN, "--baseline", "a", "--candidate", "b"], "corpus is missing; give texts for the"),
    "benchmark texts": (
        [*TRAIN, "--baseline", "a", "--candidate", "b", "--corpus", "tasks@2"], "corpus tasks needs a benchmark",
    ),
    "two sources of sides": (
        [*TRAIN, "--baseline", "a", "--candidate", "b", "--corpus", "x", "--sides", "a,b"], "--sides names stored",
    ),
    "special tokens of a file": ([*TRAIN, *FILE, "--skip-special"], "which a file does not hold; leave it out"),
    "file among folders": ([*TRAIN, *FILE, "--activations", "{cc}"], "give one file, or only folders"),
    "crosscoder of other settings": (
        ["train", "--activations", "{cc}", "--latents", "48", "--output", "{cc}"],
        "--output {cc} holds a crosscoder of other settings (n_latents 32 there, 48 asked for); choose another folder",
    ),
    "crosscoder from elsewhere": (
        ["train", *FILE, "--output", "{odd}/single"], "holds a crosscoder that was not trained here; choose another",
    ),
    "log that is not installed": ([*TRAIN, *FILE, "--log", "wandb"], "--log wandb needs the package wandb"),
    "no crosscoder": (["quality", "{odd}/empty", *FILE], "{odd}/empty"),
    "no such path": (["quality", "{odd}/none", *FILE], "{odd}/none: no such folder or file, and no Hub id"),
    "Hub id out of reach": (["quality", "owner/nothing-here", *FILE], "nothing-here can not be reached from here"),
    "other models": (
        ["quality", "{odd}/other_sides", *FILE],
        "other_sides was trained on ancestor–candidate, but baseline–candidate are read; give one of those, or",
    ),
    "one model": (["quality", "{odd}/single", *FILE], "single is over one model (baseline), but baseline, "),
    "other width": (["quality", "{odd}/narrow", *FILE], "narrow reads width 8, the models have 16; give a"),
    "other layer": (
        ["quality", "{odd}/layer2", "--activations", "{cc}"], "--layer 2: the activations are of layer 1; name some",
    ),
    "unknown format": (["convert", "{cc}", "{out}", "--to", "gguf"], "'gguf' is not one of"),
    "taken destination": (["convert", "{cc}", "{odd}", "--to", "native"], "{odd} is there already; choose a new one"),
    "steering without latents": (["convert", "{cc}", "{out}.pt", "--to", "steered"], "--latents is missing; name the"),
    "latents that do not steer": (
        ["convert", "{cc}", "{out}", "--to", "native", "--latents", "3"], "are of --to steered, not of native; leave",
    ),
    "latent no number": (
        ["convert", "{cc}", "{out}.pt", "--to", "steered", "--latents", "x"], "--latents x is not whole numbers joined",
    ),
    "other layer than the file's": (
        ["convert", "{cc}", "{out}", "--to", "native", "--layer", "2"], "says that it reads layer 1; leave --layer out",
    ),
    "no repository": (["push", "{cc}", "nothing", "--dry-run"], "'nothing' is no repository of the Hub; give owner"),
    "folder that is not empty": (
        ["push", "{cc}", "me/cc", "--dry-run", "--folder", "{odd}"], "{odd} is not empty, and all of a folder is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_can_not_work_is_one_line_and_leaves_nothing(trained, planted_file, odd, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffharness.stages.training.train_seeds", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("diffharness.standalone.crosscoders.train_seeds", lambda *_, **__: pytest.fail("trained"))
    arguments, expected = CASES[case]
    names = {"planted": planted_file, "odd": odd, "cc": trained, "out": tmp_path / "out"}
    done = call(*(str(a).format(**names) for a in arguments))
    assert done.exit_code == 2, done.output
    line = done.stderr.splitlines()[-1]
    assert [x for x in done.stderr.splitlines() if not x.startswith("✓")] == [line]
    assert line.startswith("diffharness: ")
    assert expected.format(**names) in line
    assert list(tmp_path.iterdir()) == []
