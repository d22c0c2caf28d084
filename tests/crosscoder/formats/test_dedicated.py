"""Dedicated-feature crosscoders: masks, per-token top-k, names of the models."""

from __future__ import annotations

from pathlib import Path

import torch

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

SHAPES = {"W_enc": (2, D, L), "b_enc": (L,), "W_dec": (L, 2, D), "b_dec": (2, D)}
CONFIG = {"activation_dim": D, "dict_size": L, "k": 4, "layer": 13, "model_a": "org/tuned", "model_b": "org/base"}


def test_the_code_is_not_masked_and_the_decoder_is(tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES)
    dec_mask_LM = torch.ones(L, 2)
    dec_mask_LM[:3, 1] = 0
    dec_mask_LM[3:5, 0] = 0
    masks = {"enc_mask": dec_mask_LM.T, "dec_mask": dec_mask_LM}
    crosscoder = load(write_files(tmp_path, "model.pt", tensors | masks, {"config.json": CONFIG}))
    x_NMD = random_input(40, 2, D)
    f_NL = largest(pre_activations(x_NMD, tensors["W_enc"], tensors["b_enc"]).clamp(min=0), 4)
    assert_near(crosscoder.encode(x_NMD), f_NL)
    W_dec_MLD = (tensors["W_dec"] * dec_mask_LM[..., None]).transpose(0, 1)
    assert_near(crosscoder.decode(f_NL.float()), reconstruction(f_NL, W_dec_MLD, tensors["b_dec"]))
    config = crosscoder.config
    assert config.n_dedicated == (3, 2)
    assert config.models == ("org/tuned", "org/base")
    assert config.sides == ("baseline", "candidate")
    assert config.layers == (13,)
    masks["dec_mask"] = dec_mask_LM.flip(0)
    other = load(write_files(tmp_path, "model.pt", tensors | masks, {"config.json": CONFIG}))
    assert other.config.n_dedicated == ()
    assert other.decoder_norm_LM[-3:, 1].tolist() == [0.0] * 3


def test_the_projects_plain_ones_are_told_from_l1_models_by_their_configuration(tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES)
    config = {key: CONFIG[key] for key in ("activation_dim", "k")}
    crosscoder = load(write_files(tmp_path, "model.pt", tensors, {"config.json": config}))
    assert int((crosscoder.encode(random_input(40, 2, D)) > 0).sum()) == 4 * 40
    assert "fine-tuned one first" in crosscoder.config.source
    refuses(write_files(tmp_path, "model.pt", tensors, {"config.json": {"activation_dim": D}}), "says k")
