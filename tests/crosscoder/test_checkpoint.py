"""The native format: what is saved comes back, and what is broken is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffharness.crosscoder.checkpoint import CONFIG_NAME, WEIGHTS_NAME, load, save
from diffharness.errors import RunError, UsageError
from tests.crosscoder.test_model import random_crosscoder


def test_a_crosscoder_comes_back_with_the_same_code_and_configuration(tmp_path: Path) -> None:
    crosscoder, x_NMD = random_crosscoder()
    (tmp_path / "quality.json").write_text("{}")
    save(crosscoder, tmp_path)
    again = load(tmp_path)
    assert again.config == crosscoder.config
    assert torch.equal(again.encode(x_NMD), crosscoder.encode(x_NMD))
    assert torch.equal(again(x_NMD), crosscoder(x_NMD))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME, "quality.json"]


def test_broken_checkpoints_are_refused_by_name_and_in_one_line(tmp_path: Path) -> None:
    def refuses(pattern: str) -> None:
        with pytest.raises(UsageError, match=pattern) as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)

    refuses("config.json")
    crosscoder, _ = random_crosscoder()
    save(crosscoder, tmp_path)
    weights, config = (tmp_path / WEIGHTS_NAME).read_bytes(), (tmp_path / CONFIG_NAME).read_text()
    (tmp_path / WEIGHTS_NAME).write_bytes(weights[:200])
    refuses("no crosscoder weights")
    (tmp_path / WEIGHTS_NAME).unlink()
    refuses("no crosscoder weights")
    (tmp_path / WEIGHTS_NAME).write_bytes(weights)
    (tmp_path / CONFIG_NAME).write_text(config.replace('"n_latents": 15', '"n_latents": 16'))
    refuses("two different saves")
    (tmp_path / CONFIG_NAME).write_text(config.replace('"n_latents"', '"n_widgets"'))
    refuses("not a crosscoder configuration")
    crosscoder.W_dec_LMD[0, 0, 0] = torch.nan
    save(crosscoder, tmp_path)
    refuses("W_dec_LMD holds values that are not finite")


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        save(random_crosscoder()[0], tmp_path / "file")
