"""One door for crosscoders of every format; names of their models, and the scale of their input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import diffharness.crosscoder
from diffharness.crosscoder.checkpoint import save
from diffharness.crosscoder.loading import complete, fit_scale, fit_threshold, load
from diffharness.errors import UsageError
from tests.crosscoder.formats.plain import assert_near, refuses, write_files
from tests.crosscoder.formats.test_dictionary_learning import tensors_of
from tests.crosscoder.test_model import random_crosscoder


def test_one_of_ours_is_loaded_from_its_folder_or_its_weights(tmp_path: Path) -> None:
    crosscoder, x_NMD = random_crosscoder()
    save(crosscoder, tmp_path)
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        again = diffharness.crosscoder.load(path)
        assert again.config == crosscoder.config
        assert torch.equal(again.encode(x_NMD), crosscoder.encode(x_NMD))
    assert load(tmp_path, sides=("one", "two")).config.columns == ("one", "two")
    assert load(tmp_path, code_norm="sum").config == crosscoder.config
    refuses(tmp_path, "says code norm sum", code_norm="sae")
    refuses(tmp_path, "over 2 models", sides=("one", "two", "three"))
    (tmp_path / "model.safetensors").write_bytes(b"")
    refuses(tmp_path, "no crosscoder weights")
    (tmp_path / "config.json").write_text('{"format": "diffharness-crosscoder", "version": 7}')
    refuses(tmp_path, "not a crosscoder configuration of this version")


def test_models_are_named_by_the_fields_order_unless_told(tmp_path: Path) -> None:
    known = {2: ("baseline", "candidate"), 3: ("ancestor", "baseline", "candidate")}
    for n_models, sides in known.items():
        folder = write_files(tmp_path / str(n_models), "model.safetensors", tensors_of(3, n_models=n_models), {})
        assert load(folder).config.sides == sides
    two = tmp_path / "2"
    assert load(two, sides=("pt", "it")).config.sides == ("pt", "it")
    assert load(two, sides=("pt@13", "it@13")).config.layers == (13,)
    assert load(two, sides=("it@3", "it@13")).config.columns == ("it@3", "it@13")
    refuses(two, "reads 2 activations of a token, but --sides names 3", sides=("a", "b", "c"))
    refuses(two, "sides must differ", sides=("a", "a"))
    refuses(
        write_files(tmp_path / "4", "model.safetensors", tensors_of(3, n_models=4), {}), "--sides one,two,three,four"
    )
    settings = {"config.json": {"trainer": {"layer": 5}}}
    told = write_files(tmp_path / "told", "model_final.pt", tensors_of(3), settings)
    assert load(told, sides=("pt", "it")).config.layers == (5,)
    refuses(told, "reads layer 5, but --sides says 13", sides=("pt@13", "it@13"))


def test_a_fitted_scale_gives_every_model_mean_norm_root_of_its_width() -> None:
    crosscoder, x_NMD = random_crosscoder()
    x_NMD[:, 1, 4:] = 0.0
    update = {"expects": "mean norm √width", "source": "there", "widths": (6, 4)}
    crosscoder.config = crosscoder.config.model_copy(update=update)
    factor_M1 = torch.tensor([6.0, 4.0], dtype=torch.float64).sqrt()[:, None] / x_NMD.norm(dim=-1).mean(dim=0)[:, None]
    fitted = fit_scale(crosscoder, x_NMD)
    assert_near(fitted.encode(x_NMD), crosscoder.encode(x_NMD * factor_M1))
    f_NL = fitted.encode(x_NMD)
    assert_near(fitted.decode(f_NL), crosscoder.decode(f_NL) / factor_M1)
    assert torch.equal(fitted.threshold, crosscoder.threshold)
    assert fitted.config.expects == "raw"
    assert "factors of 40 tokens" in fitted.config.source
    with pytest.raises(UsageError, match="raw activations already"):
        fit_scale(fitted, x_NMD)
    with pytest.raises(UsageError, match="no scale can be fitted"):
        fit_scale(crosscoder, torch.zeros_like(x_NMD))
    with pytest.raises(UsageError, match="no scale can be fitted"):
        fit_scale(crosscoder, x_NMD[:0])


def test_what_is_loaded_can_be_saved_as_ours(tmp_path: Path) -> None:
    crosscoder = load(write_files(tmp_path / "theirs", "model.safetensors", tensors_of(5, "per_model"), {}))
    save(crosscoder, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.config == crosscoder.config
    x_NMD = torch.ones(3, 2, 6)
    assert torch.equal(again.encode(x_NMD), crosscoder.encode(x_NMD))


def test_a_missing_threshold_is_calibrated_to_the_files_k_and_no_longer_depends_on_the_batch() -> None:
    crosscoder, x_NMD = random_crosscoder(n_tokens=500)
    crosscoder.config = crosscoder.config.model_copy(
        update={"activation": "batch_topk", "code_norm": "none", "relu": False, "k": 3}
    )
    fitted = fit_threshold(crosscoder, x_NMD)
    whole_NL = fitted.encode(x_NMD)
    assert int((whole_NL > 0).sum()) == 3 * 500
    torch.testing.assert_close(torch.cat([fitted.encode(piece) for piece in x_NMD.split(7)]), whole_NL)
    torch.testing.assert_close(whole_NL, crosscoder.encode(x_NMD))
    assert "calibrated to k 3 on 500 tokens" in fitted.config.source
    assert torch.equal(complete(crosscoder, x_NMD).encode(x_NMD), whole_NL)
    assert complete(fitted, x_NMD) is fitted
    with pytest.raises(UsageError, match="leave the crosscoder as it is"):
        fit_threshold(fitted, x_NMD)
