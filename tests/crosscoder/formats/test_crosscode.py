"""crosscode's activation functions, scaling factors, and models × hook points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from diffharness.crosscoder.loading import load
from tests.crosscoder.formats.plain import (  # fmt: skip
    D,
    L,
    assert_near,
    largest,
    pre_activations,
    random_input,
    random_tensors,
    reconstruction,
    refuses,
    write_files,
)

LOG_THRESHOLD_L = torch.linspace(-1.0, 0.5, L)
FOUR = ("baseline@3", "baseline@9", "candidate@3", "candidate@9")


def relu(pre_NL: Tensor) -> Tensor:
    return pre_NL.clamp(min=0)


def jumprelu(pre_NL: Tensor) -> Tensor:
    return pre_NL * (pre_NL > LOG_THRESHOLD_L.double().exp())


def topk(pre_NL: Tensor) -> Tensor:
    return largest(pre_NL, 15)


def batch_topk(pre_NL: Tensor) -> Tensor:
    return largest(pre_NL.flatten(), 15 * len(pre_NL)).view(pre_NL.shape)


def groupmax(pre_NL: Tensor) -> Tensor:
    return largest(pre_NL.view(-1, 4, L // 4), 1).view(pre_NL.shape)


ACTIVATIONS = {
    "ReLUActivation": (relu, {}),
    "AnthropicSTEJumpReLUActivation": (jumprelu, {"size": L, "bandwidth": 0.1}),
    "TopkActivation": (topk, {"k": 15}),
    "BatchTopkActivation": (batch_topk, {"k_per_example": 15}),
    "GroupMaxActivation": (groupmax, {"k_groups": 4, "latents_size": L}),
}


def write(
    folder: Path, name: str, n_layers: int, folded: Tensor | None = None, **settings: object
) -> dict[str, Tensor]:
    """A checkpoint of the activation function; its tensors before any folding."""
    P = n_layers
    shapes = {"_W_enc_XiDiL": (2, P, D, L), "b_enc_L": (L,), "_W_dec_LXoDo": (L, 2, P, D), "_b_dec_XoDo": (2, P, D)}
    tensors = random_tensors(shapes)
    stored = dict(tensors)
    if folded is not None:
        stored["_W_enc_XiDiL"] = tensors["_W_enc_XiDiL"] * folded[..., None, None]
        stored["_W_dec_LXoDo"] = tensors["_W_dec_LXoDo"] / folded[..., None]
        stored["_b_dec_XoDo"] = tensors["_b_dec_XoDo"] / folded[..., None]
    stored["is_folded"] = torch.tensor(folded is not None)
    for side in ("in_Xi", "out_Xo"):
        stored[f"folded_scaling_factors_{side}"] = torch.zeros(2, P) if folded is None else folded
    if "JumpReLU" in name:
        stored["_activation_fn.log_threshold_L"] = LOG_THRESHOLD_L
    config = {"n_models": 2, "n_hookpoints": P, "d_model": D, "n_latents": L}
    config |= {"activation_fn": {"classname": name, "cfg": {**ACTIVATIONS.get(name, (None, {}))[1], **settings}}}
    write_files(folder, "model.pt", stored, {"model_cfg.yaml": yaml.dump(config)})
    return tensors


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_function_is_kept_with_and_without_folded_scaling(tmp_path: Path, name: str) -> None:
    for n_layers, folded_in in ((1, False), (1, True), (2, True)):
        scale_MP = torch.tensor([[0.5, 2.0], [0.25, 3.0]])[:, :n_layers]
        folder = tmp_path / f"{n_layers}{folded_in}"
        tensors = write(folder, name, n_layers, scale_MP if folded_in else None)
        crosscoder = load(folder, sides=FOUR if n_layers == 2 else None)
        x_NXD = random_input(40, 2, n_layers, D).flatten(1, 2)
        scale_X1 = scale_MP.flatten()[:, None].double() if folded_in else torch.ones(1, dtype=torch.float64)
        W_enc_XDL, W_dec_XLD = (
            tensors["_W_enc_XiDiL"].flatten(0, 1),
            tensors["_W_dec_LXoDo"].flatten(1, 2).transpose(0, 1),
        )
        f_NL = ACTIVATIONS[name][0](pre_activations(x_NXD.double() * scale_X1, W_enc_XDL, tensors["b_enc_L"]))
        assert_near(crosscoder.encode(x_NXD), f_NL)
        expected_NXD = reconstruction(f_NL, W_dec_XLD, tensors["_b_dec_XoDo"].flatten(0, 1)) / scale_X1
        assert_near(crosscoder.decode(f_NL.float()), expected_NXD)
        assert crosscoder.config.expects == ("raw" if folded_in else "mean norm √width")
        torch.testing.assert_close(crosscoder.W_dec_LMD, W_dec_XLD.transpose(0, 1))
    assert crosscoder.config.columns == FOUR


def test_layers_that_the_file_does_not_name_have_to_be_told(tmp_path: Path) -> None:
    write(tmp_path, "ReLUActivation", 2)
    refuses(tmp_path, "reads 2 layers of each model", "--sides")
    refuses(tmp_path, "reads 4 activations", sides=("baseline", "candidate"))
    refuses(tmp_path, "all layers of the first model", sides=("a@3", "b@3", "a@9", "b@9"))
    refuses(tmp_path, "name all columns", sides=("a@3", "a@9", "b@3", "b"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "GroupMaxActivation", 1, k_groups=3)
    refuses(tmp_path, "k_groups 3")
    write(tmp_path, "SoftmaxActivation", 1)
    refuses(tmp_path, "SoftmaxActivation is not known")
    (tmp_path / "model_cfg.yaml").write_text("!!python/object/apply:os.getcwd []")
    refuses(tmp_path, "model_cfg.yaml", "no configuration can be read")
    (tmp_path / "model_cfg.yaml").unlink()
    refuses(tmp_path, "no model_cfg.yaml")
