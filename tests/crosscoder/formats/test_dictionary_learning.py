"""dictionary_learning's crosscoders of eras 3 to 5, and what no era is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.loading import load
from tests.crosscoder.formats.plain import (
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

IDS = {"sum": 1, "concatenated": 2, "mixed": 3, "none": 4, "per_model": 5}
MIXTURE = {"code_normalization_alpha_sae": 0.7, "code_normalization_alpha_cc": 0.3}


def tensors_of(era: int, norm: str = "sum", *, n_models: int = 2, l1: bool = False) -> dict[str, Tensor]:
    """As their `save_pretrained` leaves them."""
    M = n_models
    tensors = random_tensors(
        {"encoder.weight": (M, D, L), "encoder.bias": (L,), "decoder.weight": (M, L, D), "decoder.bias": (M, D)}
    )
    tensors["decoder.weight"] *= torch.linspace(0.3, 2.0, L)[:, None]
    if era >= 2 and not l1:
        tensors["k"] = torch.tensor(4, dtype=torch.int)
        tensors["threshold"] = torch.tensor([1.5, 2.5, 2.0][:M]) if norm == "per_model" else torch.tensor(2.0)
    if era >= 3:
        tensors["code_normalization_id"] = torch.tensor(IDS[norm])
    if era >= 4:
        tensors |= random_tensors({"activation_mean": (M, D)}, seed=3)
        tensors["activation_std"] = random_tensors({"activation_std": (M, D)}, seed=4)["activation_std"].abs() + 1.0
        tensors["target_rms"] = torch.tensor(3.0)
        variance_M = tensors["activation_std"].square().sum(dim=-1)
        total = variance_M.sum() if era == 4 else variance_M
        tensors["activation_global_scale"] = 3.0 / (total + 1e-8).sqrt()
    return tensors


def expected(tensors: dict[str, Tensor], norm: str, x_NMD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Their encode, get_activations and decode, written out."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    z_NMD, mean_MD, scale_M1 = x_NMD.double(), 0.0, None
    if "activation_mean" in t and not t["activation_mean"].isnan().any():
        mean_MD, scale_M1 = t["activation_mean"], t["activation_global_scale"].expand(x_NMD.shape[1])[:, None]
        z_NMD = (z_NMD - mean_MD) * scale_M1
        if norm == "per_model" and "threshold" in t:
            z_NMD = (z_NMD - mean_MD) * scale_M1
    f_NL = pre_activations(z_NMD, t["encoder.weight"], t["encoder.bias"]).clamp(min=0)
    norm_ML = t["decoder.weight"].pow(2).sum(dim=2).sqrt()
    concatenated_L = t["decoder.weight"].pow(2).sum(dim=(0, 2)).sqrt()
    norms: dict[str, Any] = {
        "sum": norm_ML.sum(dim=0),
        "concatenated": concatenated_L,
        "mixed": 0.7 * concatenated_L + 0.3 * norm_ML.sum(dim=0),
        "none": torch.ones(L, dtype=torch.float64),
        "per_model": norm_ML.sum(dim=0),
    }
    if "threshold" not in t:
        f = f_NL
        scaled_NL = f_NL * norms[norm]
    elif norm == "per_model":
        scaled_NML = f_NL[:, None] * norm_ML
        kept_NML = scaled_NML > t["threshold"][:, None]
        f, scaled_NL = f_NL[:, None] * kept_NML, (scaled_NML * kept_NML).sum(dim=1)
    else:
        f = f_NL * (f_NL * norms[norm] > t["threshold"])
        scaled_NL = f * norms[norm]
    x_hat_NMD = reconstruction(f, t["decoder.weight"], t["decoder.bias"])
    return f, scaled_NL, x_hat_NMD if scale_M1 is None else x_hat_NMD / (scale_M1 + 1e-8) + mean_MD


def assert_reads(folder: Path, tensors: dict[str, Tensor], norm: str, **options: Any) -> None:
    crosscoder = load(folder, **options)
    x_NMD = random_input(40, tensors["decoder.bias"].shape[0], D)
    f, scaled_NL, x_hat_NMD = expected(tensors, norm, x_NMD)
    found = crosscoder.encode(x_NMD)
    found_scaled = crosscoder.scaled(found)
    assert_near(found, f)
    assert_near(found_scaled.sum(dim=1) if found_scaled.ndim == 3 else found_scaled, scaled_NL)
    assert_near(crosscoder.decode(found), x_hat_NMD)
    assert not any(parameter.requires_grad for parameter in crosscoder.parameters())


@pytest.mark.parametrize("norm", IDS)
@pytest.mark.parametrize("era", [3, 4, 5])
def test_every_code_norm_of_the_later_eras_is_read_as_their_code_computes_it(
    tmp_path: Path, era: int, norm: str
) -> None:
    for n_models in (2, 3):
        tensors = tensors_of(era, norm, n_models=n_models)
        folder = write_files(
            tmp_path / f"{n_models}", "model.safetensors", tensors, {"config.json": {**MIXTURE, "k": 9}}
        )
        assert_reads(folder, tensors, norm)


@pytest.mark.parametrize("norm", IDS)
def test_l1_models_keep_every_positive_activation_and_share_their_code(tmp_path: Path, norm: str) -> None:
    tensors = tensors_of(5, norm, l1=True)
    assert_reads(write_files(tmp_path, "model.safetensors", tensors, {"config.json": MIXTURE}), tensors, norm)


def test_a_local_runs_weights_are_read_with_the_prefix_of_compiling_and_the_runs_settings(tmp_path: Path) -> None:
    tensors = tensors_of(2)
    trainer = {"sparsity_loss_type": "LossType.MIXED", "layer": 13, "lm_name": "it-pt"}
    trainer |= {"sparsity_loss_alpha_sae": 0.7, "sparsity_loss_alpha_cc": 0.3}
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
    folder = write_files(tmp_path, "model_final.pt", compiled, {"config.json": {"trainer": trainer}})
    write_files(tmp_path, "checkpoint_100.pt", compiled, {})
    for path in (folder, folder / "model_final.pt", folder / "checkpoint_100.pt"):
        assert_reads(path, tensors, "mixed")
    config = load(folder).config
    assert config.layers == (13,)
    assert "it-pt" in config.source
    assert config.k == 4


def test_a_normaliser_of_nan_is_none_and_one_a_dimension_is_refused(tmp_path: Path) -> None:
    tensors = tensors_of(5)
    tensors["activation_std"].fill_(torch.nan)
    assert_reads(write_files(tmp_path / "none", "model.safetensors", tensors, {"config.json": {}}), tensors | {
        "activation_mean": torch.full((2, D), torch.nan)
    }, "sum")  # fmt: skip
    tensors = tensors_of(5)
    tensors["activation_global_scale"].fill_(1.0)
    refuses(write_files(tmp_path / "each", "model.safetensors", tensors, {}), "every dimension by its own deviation")


def test_a_threshold_that_training_never_set_keeps_every_positive_activation_and_is_told(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    tensors["threshold"].fill_(-1.0)
    crosscoder = load(write_files(tmp_path, "model.safetensors", tensors, {"config.json": {}}))
    x_NMD = random_input(40, 2, D)
    pre_NL = pre_activations(x_NMD, tensors["encoder.weight"], tensors["encoder.bias"])
    assert_near(crosscoder.encode(x_NMD), pre_NL.clamp(min=0))
    assert "below 0" in crosscoder.config.source


def test_an_encoder_that_reads_some_models_only_is_zero_for_the_others(tmp_path: Path) -> None:
    tensors = tensors_of(1)
    tensors["encoder.weight"] = tensors["encoder.weight"][1:]
    folder = write_files(tmp_path, "model.safetensors", tensors, {"config.json": {"encoder_layers": [1]}})
    whole = tensors | {"encoder.weight": torch.stack([torch.zeros(D, L), tensors["encoder.weight"][0]])}
    assert_reads(folder, whole, "sum")
    (folder / "config.json").write_text('{"encoder_layers": [2]}')
    refuses(folder, "encoder_layers [2]")
    (folder / "config.json").unlink()
    refuses(folder, "encoder.weight has shape (1, 6, 20)")


def test_weights_of_a_mixture_are_never_guessed(tmp_path: Path) -> None:
    tensors = tensors_of(3, "mixed")
    folder = write_files(tmp_path, "model.safetensors", tensors, {"config.json": {}})
    refuses(folder, "mixed:1.0,0.1")
    assert_reads(folder, tensors, "mixed", code_norm="mixed:0.7,0.3")
    write_files(tmp_path, "model.safetensors", tensors, {"config.json": MIXTURE})
    refuses(folder, "0.7 and 0.3", code_norm="mixed:1,0.1")


def test_what_the_user_says_may_fill_a_gap_but_not_contradict_the_file(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "three", "model.safetensors", tensors_of(3, "concatenated"), {})
    assert load(folder, code_norm="SAE").config.code_norm == "concatenated"
    refuses(folder, "says code norm concatenated, not sum", code_norm="sum")
    refuses(folder, "--code-norm widest is not known", code_norm="widest")
    refuses(folder, "--code-norm sum:1,2 is not known", code_norm="sum:1,2")
    tensors = tensors_of(2, "per_model")
    folder = write_files(tmp_path / "L13-Decoupled", "model.safetensors", tensors, {"config.json": {"k": 100}})
    refuses(folder, "--code-norm per_model")
    assert_reads(folder, tensors, "per_model", code_norm="decoupled")
    refuses(folder, "threshold has shape (2,)", code_norm="sum")


def test_unknown_eras_ids_and_names_are_refused(tmp_path: Path) -> None:
    tensors = tensors_of(3)
    refuses(write_files(tmp_path / "a", "model.safetensors", tensors | {"gate": torch.ones(2)}, {}), "no era", "gate")
    tensors["code_normalization_id"] = torch.tensor(6)
    refuses(write_files(tmp_path / "b", "model.safetensors", tensors, {}), "code_normalization_id 6")
    del tensors["code_normalization_id"], tensors["k"]
    refuses(write_files(tmp_path / "c", "model.safetensors", tensors, {}), "no era")
    settings = {"trainer": {"sparsity_loss_type": "LossType.HOYER"}}
    refuses(write_files(tmp_path / "d", "model.safetensors", tensors_of(2), {"trainer_config.json": settings}), "HOYER")
