"""Llamascopium's crosscoders: a code a head."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
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

HOOKS = ["blocks.3.hook_resid_post", "blocks.10.hook_resid_pre"]
SHAPES = {"W_E": (2, D, L), "b_E": (2, L), "W_D": (2, L, D), "b_D": (2, D)}
CONFIG = {"sae_type": "crosscoder", "hook_points": HOOKS, "d_model": D, "top_k": 4, "norm_activation": "dataset-wise"}
LOG_THRESHOLD_L = torch.linspace(-1.0, 0.5, L)
NORMS = {f"dataset_average_activation_norm.{hook}": torch.tensor(norm) for hook, norm in zip(HOOKS, (5.0, 8.0))}


def jumprelu(scaled_NML: Tensor) -> Tensor:
    return scaled_NML * (scaled_NML > LOG_THRESHOLD_L.double().exp())


def batch_topk(scaled_NML: Tensor) -> Tensor:
    return largest(scaled_NML.flatten(), 4 * scaled_NML.shape[0] * scaled_NML.shape[1]).view(scaled_NML.shape)


RULES = {"relu": lambda s: s, "jumprelu": jumprelu, "topk": lambda s: largest(s, 4), "batchtopk": batch_topk}


def tensors_of(rule: str) -> dict[str, Tensor]:
    tensors = random_tensors(SHAPES) | NORMS
    if rule == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = LOG_THRESHOLD_L
    return tensors


@pytest.mark.parametrize("how", ["dataset-wise", "inference"])
@pytest.mark.parametrize("rule", RULES)
def test_each_head_selects_by_its_own_decoder_norm(tmp_path: Path, rule: str, how: str) -> None:
    tensors = tensors_of(rule)
    config = {**CONFIG, "act_fn": rule, "norm_activation": how}
    crosscoder = load(write_files(tmp_path, "sae_weights.safetensors", tensors, {"config.json": config}))
    x_NMD = random_input(40, 2, D)
    scale_M1 = torch.ones(1, 1, dtype=torch.float64)
    if how == "dataset-wise":
        scale_M1 = math.sqrt(D) / torch.tensor([[5.0], [8.0]], dtype=torch.float64)
    pre_NL = pre_activations(x_NMD * scale_M1, tensors["W_E"], tensors["b_E"].sum(dim=0))
    norm_ML = tensors["W_D"].double().norm(dim=-1)
    f_NML = RULES[rule]((pre_NL[:, None] * norm_ML).clamp(min=0)) / norm_ML
    assert_near(crosscoder.encode(x_NMD), f_NML)
    assert_near(crosscoder.decode(f_NML.float()), reconstruction(f_NML, tensors["W_D"], tensors["b_D"]) / scale_M1)
    assert crosscoder.config.columns == ("model@3", "model@9")
    assert crosscoder.config.decoupled
    if rule == "batchtopk":
        assert "others in its batch" in crosscoder.config.source


def test_hook_points_that_are_no_layers_name_models(tmp_path: Path) -> None:
    config = {**CONFIG, "act_fn": "relu", "hook_points": ["step1000", "step2000"], "norm_activation": "inference"}
    folder = write_files(tmp_path, "sae_weights.safetensors", tensors_of("relu"), {"config.json": config})
    assert load(folder).config.columns == ("step1000", "step2000")
    assert load(folder, sides=("baseline@3", "candidate@3")).config.layers == (3,)
    assert load(folder, sides=("a", "b")).config.sides == ("a", "b")


def test_norms_that_the_file_lacks_or_never_measured(tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES)
    folder = write_files(tmp_path, "sae_weights.safetensors", tensors, {"config.json": CONFIG})
    assert load(folder).config.expects == "mean norm √width"
    unset = {name: torch.tensor(0.0) for name in NORMS}
    write_files(tmp_path, "sae_weights.safetensors", tensors | unset, {"config.json": CONFIG})
    refuses(folder, "no mean norms")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"norm_activation": "token-wise"}, "normalised token-wise"),
        ({"act_fn": "layertopk"}, "act_fn layertopk"),
        ({"sparsity_include_decoder_norm": False}, "sparsity_include_decoder_norm"),
        ({"sae_type": "sae"}, "sae_type crosscoder"),
        ({"hook_points": ["one"]}, "W_E has shape"),
        ({"act_fn": "topk", "top_k": None}, "needs k"),
    ],
)
def test_what_can_not_be_held_is_refused(tmp_path: Path, change: dict, named: str) -> None:
    folder = write_files(tmp_path, "sae_weights.safetensors", tensors_of("relu"), {"config.json": {**CONFIG, **change}})
    refuses(folder, named)
