"""What a folder holds: found without guessing, and refused in one line where it is broken."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from diffharness.crosscoder.formats import FORMATS, Registry
from diffharness.crosscoder.loading import load
from tests.crosscoder.formats.plain import D, random_input, refuses, write_files
from tests.crosscoder.formats.test_dictionary_learning import assert_reads, tensors_of


class _Module:
    """Something that a pickle would have to be run for."""

    def __reduce__(self) -> tuple:
        return (os.getcwd, ())


def test_a_folder_without_weights_names_what_is_looked_for(tmp_path: Path) -> None:
    refuses(tmp_path, "no file of crosscoder weights", "model.safetensors", "cc_weights.pt")
    write_files(tmp_path, "model.safetensors", {"W": torch.ones(2)}, {})
    refuses(tmp_path, "no known format (its tensors: W)", *(format.name for format in FORMATS))
    refuses(tmp_path / "none", "no such folder or file")
    (tmp_path / "notes.txt").write_text("")
    refuses(tmp_path / "notes.txt", "not a file of weights")


def test_several_files_of_weights_are_not_chosen_from(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    for step in (100, 200):
        write_files(tmp_path, f"checkpoint_{step}.pt", tensors, {})
    refuses(tmp_path, "holds 2 files of weights (checkpoint_100.pt, checkpoint_200.pt)", "name one")
    assert_reads(tmp_path / "checkpoint_200.pt", tensors, "sum")
    for name in ("a", "b"):
        write_files(tmp_path / "runs" / name, "model_final.pt", tensors, {})
    refuses(tmp_path / "runs", "a/model_final.pt, b/model_final.pt")
    assert_reads(tmp_path / "runs" / "a", tensors, "sum")
    (tmp_path / "runs" / "a" / "model_final.pt").unlink()
    assert_reads(tmp_path / "runs", tensors, "sum")


@pytest.mark.parametrize("weights", ["model.safetensors", "model_final.pt"])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, weights: str) -> None:
    file = write_files(tmp_path, weights, tensors_of(3), {"config.json": {}}) / weights
    whole = file.read_bytes()
    for length in (0, 7, 300, len(whole) - 100):
        file.write_bytes(whole[:length])
        refuses(tmp_path, weights, "fetch it again")


def test_pickles_of_anything_but_tensors_are_not_run(tmp_path: Path) -> None:
    torch.save({"encoder.weight": _Module()}, tmp_path / "model_final.pt")
    refuses(tmp_path, "holds more than tensors", "state_dict")
    (tmp_path / "model_final.pt").write_bytes(pickle.dumps({"encoder.weight": _Module()}, protocol=2))
    refuses(tmp_path, "model_final.pt")
    torch.save([torch.ones(2)], tmp_path / "model_final.pt")
    refuses(tmp_path, "holds no tensors by name")


def test_files_of_old_torch_are_read(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    torch.save(tensors, tmp_path / "model_final.pt", _use_new_zipfile_serialization=False)
    assert_reads(tmp_path, tensors, "sum")


def test_tensors_of_wrong_shape_missing_or_not_finite_are_named(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    broken = {
        "decoder.weight has shape (2, 19, 6)": {"decoder.weight": tensors["decoder.weight"][:, 1:]},
        "encoder.bias has shape (1,)": {"encoder.bias": torch.ones(1)},
        "threshold has shape (2,)": {"threshold": torch.ones(2)},
        "W_enc_LMD holds values that are not finite": {"encoder.weight": tensors["encoder.weight"] / 0.0},
        "threshold holds values that are not finite": {"threshold": torch.tensor(torch.nan)},
    }
    for words, change in broken.items():
        refuses(write_files(tmp_path, "model.safetensors", tensors | change, {"config.json": {}}), words)
    assert "not finite" not in load(write_files(tmp_path, "model.safetensors", tensors, {})).config.source


def test_broken_configurations_are_named(tmp_path: Path) -> None:
    folder = write_files(tmp_path, "model.safetensors", tensors_of(3), {"config.json": "{"})
    refuses(folder, "config.json", "no configuration can be read")
    (folder / "config.json").write_text("[]")
    refuses(folder, "config.json", "holds no configuration, but list")


def test_half_precision_is_read_in_single_and_told(tmp_path: Path) -> None:
    tensors = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors_of(3).items()}
    crosscoder = load(write_files(tmp_path, "model.safetensors", tensors, {}))
    assert crosscoder.encode(random_input(3, 2, D)).dtype == torch.float32
    assert "weights kept in bfloat16" in crosscoder.config.source


def test_a_registry_refuses_a_second_format_of_the_same_name() -> None:
    (first, *_) = FORMATS
    with pytest.raises(ValueError, match="dictionary_learning"):
        Registry(first, first)
