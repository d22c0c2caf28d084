"""What is written in their layout says the same when it is read again, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.formats.dictionary_learning import write
from diffharness.crosscoder.loading import load
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import RunError, UsageError
from tests.crosscoder.formats.plain import assert_near, random_input, write_files
from tests.crosscoder.formats.test_dictionary_learning import IDS, MIXTURE, tensors_of
from tests.crosscoder.test_model import random_crosscoder


def trained(**fields: object) -> Crosscoder:
    """A random one of ours, in float32."""
    random, _ = random_crosscoder()
    config = CrosscoderConfig.model_validate(random.config.model_dump() | fields)
    crosscoder = Crosscoder(config).requires_grad_(False)
    for name, tensor in random.state_dict().items():
        if name != "threshold":
            crosscoder.state_dict()[name].copy_(tensor)
    crosscoder.threshold.fill_(2.0)
    return crosscoder


def test_one_of_ours_comes_back_with_the_same_code_and_reconstruction(tmp_path: Path) -> None:
    crosscoder = trained(layers=(7,), models=("pt", "it"))
    write(crosscoder, tmp_path)
    again = load(tmp_path)
    x_NMD = random_input(40, 2, 6)
    f_NL = crosscoder.encode(x_NMD)
    assert_near(again.encode(x_NMD), f_NL)
    assert_near(again.scaled(f_NL), crosscoder.scaled(f_NL))
    assert_near(again.decode(f_NL), crosscoder.decode(f_NL))
    assert (again.config.layers, again.config.k) == ((7,), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "trainer_config.json",
    ]


def test_their_deviation_gives_our_scale_by_their_formula(tmp_path: Path) -> None:
    crosscoder = trained()
    crosscoder.scale_M.copy_(torch.tensor([1e-3, 40.0]))
    write(crosscoder, tmp_path)
    tensors = {name: tensor.double() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    variance_M = tensors["activation_std"].square().sum(dim=-1)
    torch.testing.assert_close(tensors["target_rms"] / (variance_M + 1e-8).sqrt(), crosscoder.scale_M.double())
    assert torch.equal(tensors["activation_global_scale"].float(), crosscoder.scale_M)


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("norm", IDS)
def test_a_file_of_theirs_is_written_back_tensor_for_tensor(tmp_path: Path, norm: str, l1: bool) -> None:
    tensors = tensors_of(5, norm, l1=l1)
    write(load(write_files(tmp_path / "a", "model.safetensors", tensors, {"config.json": MIXTURE})), tmp_path / "b")
    again = load_file(tmp_path / "b" / "model.safetensors")
    assert again.keys() == tensors.keys()
    for name in tensors.keys() - {"target_rms", "activation_std", "code_normalization_id"}:
        assert torch.equal(again[name], tensors[name]), name
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["dict_class"] == ("CrossCoder" if l1 else "BatchTopKCrossCoder")
    assert ("k" in config) is not l1
    if norm == "mixed":
        assert config.items() >= MIXTURE.items()


def test_without_a_normaliser_it_is_nan_as_theirs_is(tmp_path: Path) -> None:
    crosscoder = trained()
    crosscoder.mean_MD.zero_()
    crosscoder.scale_M.fill_(1.0)
    write(crosscoder, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["activation_mean"].isnan().all()
    assert tensors["activation_std"].isnan().all()
    assert "no normaliser" in load(tmp_path).config.source


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"activation": "topk"}, "rule topk"),
        ({"activation": "groupmax", "k": 3}, "rule groupmax"),
        ({"threshold_shape": (15,)}, "thresholds of shape (15,)"),
        ({"widths": (6, 4)}, "different widths [6, 4]"),
        ({"expects": "mean norm √width"}, "fit_scale"),
        ({"relu": False}, "negative activations"),
        ({"n_normalisations": 2}, "normalised twice"),
        ({"code_norm": "per_model", "threshold_shape": (2, 1)}, "normalised once"),
        ({"code_norm": "per_model", "activation": "relu"}, "without thresholds"),
        ({"k": None}, "k (it is not known)"),
    ],
)
def test_what_the_layout_can_not_say_is_refused_by_name(tmp_path: Path, fields: dict, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        write(trained(**fields), tmp_path / "out")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        write(trained(), tmp_path / "file")
