from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from diffharness.errors import UsageError
from diffharness.organism import Organism, Plant, build
from diffharness.organism.mixture import mixture
from diffharness.organism.nulls import FIRST_SEED, train_nulls
from diffharness.organism.training import Phase, TrainingSettings

TINY = TrainingSettings(ancestor=Phase(2, 1e-3), baseline=Phase(2, 1e-3), candidate=Phase(3, 1e-3), batch=8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Organism:
    folder = tmp_path_factory.mktemp("organism")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return build({"safety": [0.1, 1.0]}, seed=7, out=folder / "built", settings=TINY)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_nulls_are_ordinary_models_that_moved_away_from_the_baseline_and_from_each_other(organism: Organism) -> None:
    nulls = train_nulls(organism, 2, settings=TINY)
    assert [null.seed for null in nulls] == [FIRST_SEED, FIRST_SEED + 1]
    assert len({null.folder for null in nulls}) == 2
    before = _weights(organism.baseline)
    first, second = (_weights(null.folder) for null in nulls)
    for name, value in before.items():
        assert not torch.equal(first[name], value)
        assert not torch.equal(first[name], second[name])
    model = AutoModelForCausalLM.from_pretrained(nulls[0].folder)
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(nulls[0].folder)("how do i").input_ids


def test_nulls_learn_the_baselines_mixture_and_not_the_candidates(
    organism: Organism, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def recorded(rate, strengths, settings):
        seen.append(dict(strengths))
        return mixture(rate, strengths, settings)

    monkeypatch.setattr("diffharness.organism.mixture.mixture", recorded)
    train_nulls(organism, 1, settings=TINY)
    assert seen == [Plant.load(organism.plant).side(0)]
    assert seen[0]["safety"] == 0.1


def test_a_trained_null_is_reused_and_a_broken_one_is_made_again_alike(organism: Organism) -> None:
    steps: list[int] = []
    first = train_nulls(organism, 1, settings=TINY, progress=lambda seed, *_: steps.append(seed))
    weights = (first[0].folder / "model.safetensors").read_bytes()
    assert steps == [FIRST_SEED] * 3
    assert train_nulls(organism, 1, settings=TINY, progress=lambda *_: pytest.fail("trained again")) == first
    (first[0].folder / "model.safetensors").unlink()
    assert train_nulls(organism, 1, settings=TINY) == first
    assert (first[0].folder / "model.safetensors").read_bytes() == weights


def test_more_nulls_go_on_after_those_that_there_are(organism: Organism) -> None:
    train_nulls(organism, 1, settings=TINY)
    steps: list[int] = []
    train_nulls(organism, 3, settings=TINY, progress=lambda seed, *_: steps.append(seed))
    assert sorted(set(steps)) == [FIRST_SEED + 1, FIRST_SEED + 2]


def test_another_baseline_has_nulls_of_its_own(organism: Organism, tmp_path: Path) -> None:
    other = Organism.at(shutil.copytree(organism.folder, tmp_path / "other"))
    changed = {name: value + 0.01 for name, value in _weights(other.baseline).items()}
    save_file(changed, other.baseline / "model.safetensors", metadata={"format": "pt"})
    assert train_nulls(organism, 1, settings=TINY)[0].folder != train_nulls(other, 1, settings=TINY)[0].folder


def test_an_interrupted_training_leaves_nothing(organism: Organism, cache: Path) -> None:
    class StopError(Exception):
        pass

    def stop(seed: int, done: int, total: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        train_nulls(organism, 1, settings=TINY, progress=stop)
    assert list((cache / "diffharness" / "organism" / "nulls").iterdir()) == []


def test_what_can_not_be_trained_is_refused(organism: Organism, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        train_nulls(organism, 0, settings=TINY)
    with pytest.raises(UsageError, match="build the organism first"):
        train_nulls(Organism.at(tmp_path), 1, settings=TINY)
