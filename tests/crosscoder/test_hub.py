"""What is uploaded, and how the Hub's refusals read; nothing here reaches a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from diffharness.crosscoder import checkpoint, hub
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import RunError, UsageError


class Stub:
    """Stands in for `HfApi`: keeps what it is asked, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **more: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.made = {"repo_id": repo_id, **more}

    def upload_folder(self, *, repo_id: str, folder_path: Path, **more: Any) -> None:
        del repo_id, more
        self.files = {file.name: file.read_bytes() for file in folder_path.iterdir()}


def crosscoder() -> Crosscoder:
    config = CrosscoderConfig(
        sides=("baseline", "candidate"), layers=(2,), d_model=8, n_latents=16, models=("/home/me/a", "org/b")
    )
    made = Crosscoder(config).requires_grad_(False)
    made.W_dec_LMD.copy_(torch.randn(made.W_dec_LMD.shape, generator=torch.Generator().manual_seed(0)))
    return made


def test_a_folder_is_prepared_that_loads_again_and_names_no_folder(tmp_path):
    one = crosscoder()
    files = hub.prepare(one, {"l0": 4.0, "stale": "see /home/me/run"}, "me/cc", tmp_path / "up")
    assert [file.name for file in files] == ["README.md", "config.json", "model.safetensors", "quality.json"]
    again = checkpoint.load(tmp_path / "up")
    assert torch.equal(again.W_dec_LMD, one.W_dec_LMD)
    assert again.config.models == ("a", "org/b")
    assert one.config.models == ("/home/me/a", "org/b"), "what is in memory stays as it is"
    for file in files:
        assert b"/home/me" not in file.read_bytes(), file.name
    assert json.loads((tmp_path / "up" / "quality.json").read_text()) == {"l0": 4.0, "stale": "see run"}


def test_a_push_makes_a_private_repository_and_uploads_the_folder(tmp_path):
    hub.prepare(crosscoder(), None, "me/cc", tmp_path / "up")
    api = Stub()
    assert hub.push(tmp_path / "up", "me/cc", api=api) == "https://huggingface.co/me/cc"
    assert api.made["private"] is True
    assert api.made["repo_id"] == "me/cc"
    assert set(api.files) == {"README.md", "config.json", "model.safetensors"}


def test_a_folder_with_other_things_is_not_uploaded(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and all of a folder is uploaded; choose a new one"):
        hub.prepare(crosscoder(), None, "me/cc", tmp_path)


@pytest.mark.parametrize("name", ["cc", "me/", "me/c c", "a/b/c", "../x", "me/a--b"])
def test_names_that_the_hub_has_not_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="is no repository of the Hub; give owner/name"):
        hub.prepare(crosscoder(), None, name, tmp_path / "up")
    assert not (tmp_path / "up").exists()


def refused() -> HfHubHTTPError:
    request = httpx.Request("POST", "https://huggingface.co/api/repos/create")
    return HfHubHTTPError("403 Forbidden: no rights", response=httpx.Response(403, request=request))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (LocalTokenNotFoundError("x"), "no token of the Hub is here; run `hf auth login`"),
        (refused(), r"the Hub refused \(403: "),
        (httpx.ConnectError("no route"), r"the Hub is out of reach \(no route\); try again"),
    ],
)
def test_what_the_hub_refuses_is_one_line(tmp_path, failure, message):
    hub.prepare(crosscoder(), None, "me/cc", tmp_path / "up")
    with pytest.raises(RunError, match=message) as error:
        hub.push(tmp_path / "up", "me/cc", api=Stub(failure))
    assert "\n" not in str(error.value)
