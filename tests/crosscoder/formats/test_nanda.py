"""ckkissane's and Nanda's crosscoders, besides what the golden file tells."""

from __future__ import annotations

from pathlib import Path

import torch

from diffharness.crosscoder.loading import fit_scale, load
from tests.crosscoder.formats.plain import (  # fmt: skip
    D,
    L,
    assert_near,
    pre_activations,
    random_input,
    random_tensors,
    reconstruction,
    refuses,
    write_files,
)

SHAPES = {"W_enc": (2, D, L), "b_enc": (L,), "W_dec": (L, 2, D), "b_dec": (2, D)}
CONFIG = {"d_in": D, "dict_size": L, "l1_coeff": 2, "model_name": "toy", "hook_point": "blocks.14.hook_resid_pre"}


def test_input_is_scaled_to_mean_norm_root_of_the_width_once_the_scale_is_fitted(tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES)
    folder = write_files(tmp_path, "0.pt", tensors, {"0_cfg.json": CONFIG})
    crosscoder = load(folder / "0.pt")
    assert crosscoder.config.expects == "mean norm √width"
    assert crosscoder.config.layers == (13,)
    x_NMD = random_input(40, 2, D)
    factor_M1 = D**0.5 / x_NMD.double().norm(dim=-1).mean(dim=0)[:, None]
    f_NL = pre_activations(x_NMD.double() * factor_M1, tensors["W_enc"], tensors["b_enc"]).clamp(min=0)
    fitted = fit_scale(crosscoder, x_NMD)
    assert fitted.config.expects == "raw"
    assert_near(fitted.encode(x_NMD), f_NL)
    assert_near(
        fitted.decode(f_NL.float()),
        reconstruction(f_NL, tensors["W_dec"].transpose(0, 1), tensors["b_dec"]) / factor_M1,
    )
    assert torch.equal(crosscoder.scale_M, torch.ones(2))
    assert fitted.W_dec_LMD is crosscoder.W_dec_LMD


def test_hook_points_are_told_as_the_block_whose_output_they_are(tmp_path: Path) -> None:
    for hook_point, layers in (("blocks.3.hook_resid_post", (3,)), ("blocks.0.hook_resid_pre", ()), ("ln_final", ())):
        config = {**CONFIG, "hook_point": hook_point}
        found = load(write_files(tmp_path, "cc_weights.pt", random_tensors(SHAPES), {"cfg.json": config})).config
        assert found.layers == layers
        assert hook_point in found.source


def test_what_could_be_another_rule_is_refused(tmp_path: Path) -> None:
    folder = write_files(tmp_path, "cc_weights.pt", random_tensors(SHAPES), {})
    refuses(folder, "no cfg.json")
    write_files(tmp_path, "cc_weights.pt", random_tensors(SHAPES), {"cfg.json": {**CONFIG, "topk": 32}})
    refuses(folder, "topk 32")
