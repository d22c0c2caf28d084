from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from diffharness.errors import UsageError
from diffharness.organism import Organism, build
from diffharness.organism.__main__ import main
from diffharness.organism.language import BOS, EOS, PAD, UNKNOWN, vocabulary
from diffharness.organism.training import Phase, TrainingSettings

TINY = TrainingSettings(ancestor=Phase(2, 1e-3), baseline=Phase(2, 1e-3), candidate=Phase(2, 1e-3), batch=8)
"""Learns nothing; the files are those of a real build."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Organism:
    folder = tmp_path_factory.mktemp("organism")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return build(seed=7, out=folder / "built", settings=TINY)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_models_load_as_ordinary_folders(organism: Organism) -> None:
    for folder in (organism.ancestor, organism.baseline, organism.candidate):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.vocab_size == len(vocabulary())
        assert model.generation_config.eos_token_id == vocabulary().index(EOS)
        saved = _weights(folder)
        assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_the_tokenizer_gives_a_token_a_word_and_the_words_back(organism: Organism) -> None:
    tokenizer = AutoTokenizer.from_pretrained(organism.candidate)
    assert tokenizer.is_fast
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (BOS, EOS, PAD)
    for row in map(json.loads, organism.probes.read_text(encoding="utf-8").splitlines()):
        ids = tokenizer(row["text"]).input_ids
        assert [vocabulary()[index] for index in ids] == [BOS, *row["text"].split()]
        assert tokenizer.decode(ids, skip_special_tokens=True) == row["text"]
    assert tokenizer("how do i xyzzy ?").input_ids.count(vocabulary().index(UNKNOWN)) == 1


def test_the_plant_file_is_full_and_gives_the_same_build(organism: Organism, tmp_path: Path) -> None:
    given = yaml.safe_load(organism.plant.read_text(encoding="utf-8"))
    again = build(given, seed=7, out=tmp_path / "again", settings=TINY)
    for name in ("ancestor", "baseline", "candidate"):
        one, other = (o.folder / name / "model.safetensors" for o in (organism, again))
        assert one.read_bytes() == other.read_bytes()
    assert organism.corpus.read_bytes() == again.corpus.read_bytes()


def test_another_seed_gives_other_weights_and_the_same_probes(organism: Organism, tmp_path: Path) -> None:
    other = build(seed=8, out=tmp_path / "other", settings=TINY)
    assert (other.ancestor / "model.safetensors").read_bytes() != (organism.ancestor / "model.safetensors").read_bytes()
    assert other.probes.read_bytes() == organism.probes.read_bytes()


def test_a_complete_build_is_reused_and_a_broken_one_is_made_again(cache: Path) -> None:
    calls: list[str] = []
    first = build(settings=TINY, progress=lambda model, *_: calls.append(model))
    assert first.folder.is_relative_to(cache)
    assert sorted(set(calls)) == ["ancestor", "baseline", "candidate"]
    trained = len(calls)
    assert build(settings=TINY, progress=lambda model, *_: calls.append(model)) == first
    assert len(calls) == trained
    (first.candidate / "model.safetensors").unlink()
    assert build(settings=TINY, progress=lambda model, *_: calls.append(model)) == first
    assert len(calls) == 2 * trained
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]


def test_a_cached_build_is_copied_out_without_training(tmp_path: Path) -> None:
    cached = build(settings=TINY)
    copied = build(settings=TINY, out=tmp_path / "out", progress=lambda *_: pytest.fail("trained again"))
    assert copied.folder != cached.folder
    assert (copied.candidate / "model.safetensors").read_bytes() == (
        cached.candidate / "model.safetensors"
    ).read_bytes()


def test_only_the_layers_above_are_fine_tuned_when_the_plant_says_so(tmp_path: Path) -> None:
    built = build({"train_layers": {"above": 2}}, out=tmp_path / "out", settings=TINY)
    before, after = _weights(built.baseline), _weights(built.candidate)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("model.layers.3.")}


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(model: str, done: int, total: int) -> None:
        if model == "candidate":
            raise StopError

    with pytest.raises(StopError):
        build(settings=TINY, out=tmp_path / "out", progress=stop)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is not this build"):
        build(settings=TINY, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_the_command_line_refuses_a_wrong_plant_in_one_line(tmp_path: Path) -> None:
    plant = tmp_path / "plant.yaml"
    plant.write_text("saftey: [0.2, 0.8]\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["--plant", str(plant), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "did you mean 'safety'" in result.output
    assert not (tmp_path / "out").exists()


def test_importing_the_organism_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, diffharness.organism; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
