import json

import pytest

from diffharness.artifacts import (
    Workspace,
    file_hash,
    fingerprint,
    model_fingerprint,
    path_fingerprint,
    write_atomically,
)
from diffharness.errors import UsageError


def do(workspace: Workspace, made_from: str = "x", stage: str = "one", into: str = "", **files: str) -> None:
    with workspace.stage(stage, made_from, into) as folder:
        for name, text in (files or {"a": "1"}).items():
            (folder / name).write_text(text)


def half_done(workspace: Workspace, made_from: str) -> None:
    with workspace.stage("one", made_from) as folder:
        (folder / "a").write_text("half")
        (folder / "none").read_text()


def test_fingerprint_is_of_values_not_of_their_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert len({fingerprint(v) for v in (1, "1", [1], None, {"a": 1}, {"a": 2})}) == 6


def test_path_fingerprint_tells_contents_and_names(tmp_path):
    (tmp_path / "a").write_text("1")
    seen = [path_fingerprint(tmp_path), path_fingerprint(tmp_path / "none")]
    (tmp_path / "a").write_text("2")
    seen.append(path_fingerprint(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.append(path_fingerprint(tmp_path))
    assert len(set(seen)) == 4


def test_model_fingerprint_follows_the_files_of_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("1")
    first = model_fingerprint({"pretrained": str(tmp_path)})
    assert first != model_fingerprint({"pretrained": str(tmp_path), "dtype": "float16"})
    (tmp_path / "model.safetensors").write_text("2")
    assert first != model_fingerprint({"pretrained": str(tmp_path)})


def test_finished_stage_stands_for_the_same_fingerprint_only(tmp_path):
    workspace = Workspace(tmp_path / "run")
    do(workspace, into="sub")
    for opened in (workspace, Workspace(tmp_path / "run")):
        assert opened.is_done("one", "x")
        assert not opened.is_done("one", "y")
        assert not opened.is_done("two", "x")
    assert (tmp_path / "run" / "sub" / "a").read_text() == "1"


@pytest.mark.parametrize("damage", ["deleted", "truncated", "changed"])
def test_damaged_artifact_does_not_stand(tmp_path, damage):
    do(Workspace(tmp_path), a="12")
    file = tmp_path / "a"
    if damage == "deleted":
        file.unlink()
    else:
        file.write_text({"truncated": "1", "changed": "13"}[damage])
    assert not Workspace(tmp_path).is_done("one", "x")


def test_manifest_holds_the_hash_and_fingerprint_of_every_artifact(tmp_path):
    workspace = Workspace(tmp_path)
    do(workspace, a="1", b="2")
    do(workspace, "y", "two", "sub", c="3")
    artifacts = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    assert artifacts == {
        name: {"sha256": file_hash(tmp_path / name), "bytes": 1, "fingerprint": made}
        for name, made in (("a", "x"), ("b", "x"), ("sub/c", "y"))
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"stages": 3, "artifacts": {}}', "\x00"])
def test_damaged_manifest_means_that_nothing_stands(tmp_path, text):
    do(Workspace(tmp_path))
    (tmp_path / "manifest.json").write_text(text)
    workspace = Workspace(tmp_path)
    assert not workspace.is_done("one", "x")
    do(workspace)
    assert Workspace(tmp_path).is_done("one", "x")


def test_failing_stage_leaves_the_old_files_and_nothing_new(tmp_path):
    workspace = Workspace(tmp_path)
    do(workspace, a="old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileNotFoundError):
        half_done(workspace, "y")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "a").read_text() == "old"
    assert workspace.is_done("one", "x")


def test_folder_that_only_a_failing_stage_made_is_removed_again(tmp_path):
    workspace = Workspace(tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError):
        half_done(workspace, "x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_stage_no_longer_writes_is_removed(tmp_path):
    workspace = Workspace(tmp_path)
    do(workspace, a="1", b="2")
    do(workspace, "y", a="1")
    assert not (tmp_path / "b").exists()
    assert workspace.is_done("one", "y")


def test_remains_of_a_killed_stage_are_swept(tmp_path):
    (tmp_path / ".one-abc").mkdir()
    (tmp_path / ".one-abc" / "half").write_text("")
    do(Workspace(tmp_path))
    assert not (tmp_path / ".one-abc").exists()


def test_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "x" / "y"):
        with pytest.raises(UsageError, match=r"--output .* can not be written"):
            Workspace(root)


def test_atomic_write_replaces_the_whole_text(tmp_path):
    for text in ("long text", "short"):
        write_atomically(tmp_path / "x", text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "short")]
