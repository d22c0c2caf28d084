"""Models of different widths, and a linear map of both models' activations end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffharness.crosscoder.loading import load
from diffharness.crosscoder.model import pad
from diffharness.errors import UsageError
from tests.crosscoder.formats.plain import L, assert_near, largest, random_input, random_tensors, refuses, write_files

WIDTHS = (6, 4, 5)


def heterogeneous(*, normalised: bool, norm_id: int, l1: bool = False) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"encoder.bias": (L,)}
    for m, width in enumerate(WIDTHS):
        shapes |= {f"encoder.projections.{m}.weight": (L, width), f"decoder.projections.{m}.weight": (width, L)}
        shapes |= {f"decoder.projections.{m}.bias": (width,), f"normalizer.mean_{m}": (width,)}
    tensors = random_tensors(shapes)
    for m, width in enumerate(WIDTHS):
        if not normalised:
            tensors[f"normalizer.mean_{m}"] = torch.full((width,), torch.nan)
        tensors[f"normalizer.std_{m}"] = torch.ones(width)
        tensors[f"normalizer.scale_{m}"] = torch.tensor(0.5 + m if normalised else 1.0)
    tensors["normalizer.target_rms"] = torch.tensor(1.0)
    tensors["activation_dims_tensor"] = torch.tensor(WIDTHS)
    tensors["code_normalization_id"] = torch.tensor(norm_id)
    return tensors if l1 else tensors | {"k": torch.tensor(4), "threshold": torch.tensor(2.0)}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("norm_id", [1, 2, 3, 4])
def test_models_of_different_widths_are_read_from_one_tensor_each(
    tmp_path: Path, norm_id: int, normalised: bool
) -> None:
    for l1 in (False, True):
        t = heterogeneous(normalised=normalised, norm_id=norm_id, l1=l1)
        config = {"code_normalization_alpha_sae": 0.7, "code_normalization_alpha_cc": 0.3}
        crosscoder = load(write_files(tmp_path / str(l1), "model_final.pt", t, {"config.json": config}))
        x = [random_input(40, 1, width, seed=m)[:, 0] for m, width in enumerate(WIDTHS)]
        t = {name: tensor.double() for name, tensor in t.items()}
        z = [(x[m].double() - t[f"normalizer.mean_{m}"]) * t[f"normalizer.scale_{m}"] if normalised else x[m].double()
             for m in range(3)]  # fmt: skip
        f_NL = sum(z[m] @ t[f"encoder.projections.{m}.weight"].T for m in range(3)) + t["encoder.bias"]
        f_NL = torch.as_tensor(f_NL).clamp(min=0)
        norms_ML = torch.stack([t[f"decoder.projections.{m}.weight"].norm(dim=0) for m in range(3)])
        summed_L, joint_L = norms_ML.sum(dim=0), norms_ML.square().sum(dim=0).sqrt()
        norm_L = {1: summed_L, 2: joint_L, 3: 0.7 * joint_L + 0.3 * summed_L, 4: torch.ones(L)}[norm_id]
        f_NL = f_NL if l1 else f_NL * (f_NL * norm_L > 2.0)
        assert_near(crosscoder.encode(x), f_NL)
        assert_near(crosscoder.encode(pad(x)), f_NL)
        assert_near(crosscoder.scaled(crosscoder.encode(x)), f_NL * norm_L)
        x_hat_NMD = crosscoder.decode(f_NL.float())
        for m, width in enumerate(WIDTHS):
            expected = f_NL @ t[f"decoder.projections.{m}.weight"].T + t[f"decoder.projections.{m}.bias"]
            if normalised:
                expected = expected / (t[f"normalizer.scale_{m}"] + 1e-8) + t[f"normalizer.mean_{m}"]
            assert_near(x_hat_NMD[:, m, :width], expected)
            assert not x_hat_NMD[:, m, width:].any()
        assert crosscoder.config.widths == WIDTHS
        assert crosscoder.config.sides == ("ancestor", "baseline", "candidate")


def test_activations_of_other_widths_are_refused(tmp_path: Path) -> None:
    crosscoder = load(write_files(tmp_path, "model_final.pt", heterogeneous(normalised=False, norm_id=1), {}))
    with pytest.raises(UsageError, match=r"widths \[6, 6, 5\], but the crosscoder reads \[6, 4, 5\]"):
        crosscoder.encode([torch.zeros(2, 6), torch.zeros(2, 6), torch.zeros(2, 5)])


def test_padding_puts_zeros_behind_the_narrower() -> None:
    assert pad([torch.ones(1, 3), torch.ones(1, 1)]).tolist() == [[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]]


def test_a_mixture_without_weights_and_unknown_code_norms_are_refused(tmp_path: Path) -> None:
    folder = write_files(tmp_path, "model_final.pt", heterogeneous(normalised=False, norm_id=3), {})
    refuses(folder, "mixed:1.0,0.1")
    assert load(folder, code_norm="mixed:0.7,0.3").config.code_norm_weights == (0.7, 0.3)
    write_files(tmp_path, "model_final.pt", heterogeneous(normalised=False, norm_id=5), {})
    refuses(folder, "code_normalization_id 5")


@pytest.mark.parametrize("k", [None, 4])
def test_a_linear_map_of_both_models_end_to_end_is_split_between_them(tmp_path: Path, k: int | None) -> None:
    shapes = {"encoder.weight": (L, 10), "encoder.bias": (L,), "decoder_a.weight": (6, L), "decoder_a.bias": (6,)}
    tensors = random_tensors({**shapes, "decoder_b.weight": (4, L), "decoder_b.bias": (4,)})
    config: dict[str, Any] = {"top_k": k, "model_a": "base", "model_b": "tuned", "layer": "layer_16"}
    torch.save({"step": 3, "config": config, "metrics": {}, "model_state_dict": tensors}, tmp_path / "final.pt")
    crosscoder = load(tmp_path)
    x = [random_input(40, 1, width, seed=m)[:, 0] for m, width in enumerate((6, 4))]
    pre_NL = torch.cat(x, dim=1).double() @ tensors["encoder.weight"].double().T + tensors["encoder.bias"]
    f_NL = pre_NL.clamp(min=0)
    f_NL = f_NL if k is None else largest(f_NL, k)
    assert_near(crosscoder.encode(x), f_NL)
    x_hat_NMD = crosscoder.decode(f_NL.float())
    assert_near(x_hat_NMD[:, 1, :4], f_NL @ tensors["decoder_b.weight"].double().T + tensors["decoder_b.bias"])
    assert crosscoder.config.models == ("base", "tuned")
    config["input_norm"] = "rms"
    torch.save({"config": config, "model_state_dict": tensors}, tmp_path / "final.pt")
    refuses(tmp_path, "token by token (input_norm: rms)")
    torch.save({"model_state_dict": tensors}, tmp_path / "final.pt")
    refuses(tmp_path, "put its config.json beside it")
