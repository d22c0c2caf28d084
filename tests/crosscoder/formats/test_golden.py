"""Small checkpoints written by other projects' own code, with what that code makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffharness.crosscoder.loading import load
from tests.crosscoder.formats.plain import assert_near, refuses

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"
CASES = {
    "era1_l1": ".",
    "era2_ccloss": ".",
    "era5_crosscoder_norm": ".",
    "era5_sae": ".",
    "ckkissane": "blocks.14.hook_resid_pre",
}

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden checkpoints are not here")


@pytest.mark.parametrize("case", CASES)
def test_code_scaled_code_and_reconstruction_are_those_of_the_projects_own_code(case: str) -> None:
    crosscoder = load(GOLDEN / case / CASES[case])
    reference = load_file(GOLDEN / case / "reference.safetensors")
    f_NL = crosscoder.encode(reference["x"])
    assert_near(f_NL, reference["encode"])
    assert_near(crosscoder.decode(f_NL), reference["decode"])
    if "get_activations" in reference:
        assert_near(crosscoder.scaled(f_NL), reference["get_activations"])
    else:
        penalty = crosscoder.scaled(f_NL).sum(dim=1).mean()
        assert float(penalty) == pytest.approx(float(reference["l1_loss"]), rel=1e-5)


def test_a_repository_stands_for_the_only_crosscoder_in_its_folders() -> None:
    whole, inner = load(GOLDEN / "ckkissane"), load(GOLDEN / "ckkissane" / CASES["ckkissane"])
    assert whole.config.model_copy(update={"source": inner.config.source}) == inner.config
    assert torch.equal(whole.W_dec_LMD, inner.W_dec_LMD)


def test_what_was_assumed_is_said() -> None:
    told = {case: load(GOLDEN / case / below).config for case, below in CASES.items()}
    assert "era 1" in told["era1_l1"].source
    assert "assumed" in told["era1_l1"].source
    assert "trainer's settings" in told["era2_ccloss"].source
    assert told["era2_ccloss"].layer == 3
    assert told["era2_ccloss"].k == 4
    assert told["era5_sae"].code_norm == "concatenated"
    assert "no normaliser" in told["era5_sae"].source
    assert told["era5_crosscoder_norm"].scale_epsilon == 1e-8
    assert told["ckkissane"].layer == 13
    assert told["ckkissane"].expects == "mean norm √width"


def test_era_2_without_its_trainers_settings_is_refused_and_read_as_the_user_says(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-L13-k100-CCLoss"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((GOLDEN / "era2_ccloss" / name).read_bytes())
    refuses(folder, "code norm", "--code-norm sum", "gemma-L13-k100-CCLoss")
    reference = load_file(GOLDEN / "era2_ccloss" / "reference.safetensors")
    assert_near(load(folder, code_norm="sum").encode(reference["x"]), reference["encode"])
