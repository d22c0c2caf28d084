"""Ids of the Hugging Face Hub: what is in this machine's cache is read, and no more than a crosscoder is asked for."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from diffharness.crosscoder.formats import hub
from diffharness.crosscoder.loading import load
from diffharness.errors import UsageError
from tests.crosscoder.formats.plain import refuses, write_files
from tests.crosscoder.formats.test_dictionary_learning import assert_reads, tensors_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of the newest snapshot of org/crosscoder-SAELoss."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "models--org--crosscoder-SAELoss"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return repository / "snapshots" / "abc"


def test_a_cached_crosscoder_is_read_by_its_id_with_a_folder_or_a_file_behind_it(cache: Path) -> None:
    tensors = tensors_of(3)
    write_files(cache, "model.safetensors", tensors, {"config.json": {}})
    write_files(cache / "runs" / "two", "model_final.pt", tensors, {"config.json": {"trainer": {"layer": 5}}})
    assert_reads(Path("org/crosscoder-SAELoss"), tensors, "sum")
    for below in ("runs/two", "runs/two/", "runs/two/model_final.pt"):
        assert load(f"org/crosscoder-SAELoss/{below}").config.layers == (5,)
    assert "as org/crosscoder-SAELoss" in load("org/crosscoder-SAELoss").config.source


def test_a_repositorys_name_hints_at_what_its_files_leave_out(cache: Path) -> None:
    write_files(cache, "model.safetensors", tensors_of(2), {})
    refuses(Path("org/crosscoder-SAELoss"), "suggests --code-norm concatenated")


def test_what_is_not_here_and_can_not_be_reached_is_refused(cache: Path) -> None:
    refuses(Path("org/other"), "no folder or file here", "org/other can not be reached")
    cache.mkdir(parents=True)
    refuses(Path("org/crosscoder-SAELoss/below"), "no crosscoder at below")
    refuses(Path("org/crosscoder-SAELoss"), "no crosscoder at its top")
    for name in ("nothing", "../up/there", "./here/there", "a/b/../c"):
        with pytest.raises(UsageError, match="no such folder or file, and no Hub id"):
            load(name)


def test_refusals_of_the_hub_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    kinds = {
        errors.RepositoryNotFoundError: "there is no org/name that you may read",
        errors.GatedRepoError: "ask for access",
        errors.RevisionNotFoundError: "no revision v9",
        errors.HFValidationError: "can not be fetched (first)",
        OSError: "can not be fetched (first)",
    }
    for kind, words in kinds.items():

        def fail(*args: object, kind: type[Exception] = kind, **kwargs: object) -> str:
            error = kind.__new__(kind)
            error.args = ("first\nsecond",)
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        refuses(Path("org/name"), words, revision="v9")


def test_only_files_of_one_crosscoder_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, list[str]] = {}

    def note(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked[repo_id] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", note)
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "x.pt").write_text("")
    repository = ["config.json", "model.safetensors", "optimizer.pt", "one/two/x.pt", "one/two/x_cfg.json"]
    repository += ["one/two/config.json", "one/two/y.pt", "data/part.parquet", "blocks.14.hook_resid_pre/cc_weights.pt"]

    def fetched(name: str) -> list[str]:
        hub.fetch(name)
        (patterns,) = asked.values()
        asked.clear()
        return [file for file in repository if any(fnmatch(file, pattern) for pattern in patterns)]

    assert fetched("org/name/one/two/x.pt") == ["one/two/x.pt", "one/two/x_cfg.json", "one/two/config.json"]
    assert fetched("org/name/one/two") == ["one/two/x_cfg.json", "one/two/config.json"]
    assert fetched("org/name")[:2] == ["config.json", "model.safetensors"]
    assert "optimizer.pt" not in fetched("org/name")
