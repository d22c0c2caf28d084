"""A crosscoder that is loaded in place of training: what it gives, what is said of it, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import diffharness
from diffharness.activations.store import ActivationStore
from diffharness.crosscoder import checkpoint
from diffharness.crosscoder.formats.dictionary_learning_writer import write
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError
from diffharness.evaluation import harness
from diffharness.report.schema import Report
from tests.test_pipeline import FROM_TRAIN, WITHOUT_TRIALS
from tests.tiny import ONLY_ACCOUNT


@pytest.fixture
def loading(first, small, tmp_path) -> Callable[..., Report]:
    """Run with a crosscoder that is loaded."""

    def run(crosscoder: Path, output: str = "loaded", **changes: object) -> Report:
        options = {key: value for key, value in small.items() if key not in ("latents", "k")}
        options |= {"crosscoder": crosscoder, "output": tmp_path / output, **changes}
        return diffharness.run(diffharness.RunConfig.make(options))

    return run


def copied(first: Path, folder: Path, change: Callable[[Crosscoder], None]) -> Path:
    """The finished run's crosscoder with something changed."""
    one = checkpoint.load(first / "crosscoder")
    change(one)
    checkpoint.save(one, folder)
    return folder


def configured(**changes: object) -> Callable[[Crosscoder], None]:
    def change(one: Crosscoder) -> None:
        one.config = one.config.model_copy(update=changes)

    return change


def shifted(one: Crosscoder) -> None:
    one.b_dec_MD.add_(0.01)


def turned(one: Crosscoder) -> None:
    one.W_dec_LMD.mul_(-1)


def test_a_loaded_crosscoder_gives_the_account_of_the_one_that_was_trained(first, loading, ran, tmp_path):
    found, before = loading(first / "crosscoder"), Report.load(first)
    assert found.tasks == before.tasks
    assert found.latents == before.latents
    assert found.quality[0].source == "loaded from crosscoder"
    assert found.quality[0].stale is None
    assert found.claims == before.claims
    assert "train baseline-candidate" in ran
    ran.clear()
    loading(first / "crosscoder")
    assert ran == []


def test_beside_an_ancestor_the_pair_is_loaded_and_the_others_are_trained(first, loading, ran, tiny):
    found = loading(first / "crosscoder", ancestor=str(tiny.ancestor), **ONLY_ACCOUNT)
    assert [q.name for q in found.quality] == [
        "baseline–candidate", "ancestor–baseline", "ancestor–candidate", "ancestor–baseline–candidate",
    ]  # fmt: skip
    assert [bool(q.source) for q in found.quality] == [True, False, False, False]


def test_a_streamed_run_takes_a_loaded_crosscoder(first, loading):
    found = loading(first / "crosscoder", stream=True, **ONLY_ACCOUNT)
    before = Report.load(first).quality[0]
    assert found.quality[0].explained_variance == pytest.approx(before.explained_variance, abs=1e-5)
    assert set(found.quality[0].splice) == {"baseline", "candidate"}


def test_a_loaded_crosscoder_that_changed_is_loaded_again(first, loading, ran, tmp_path):
    folder = copied(first, tmp_path / "cc", configured())
    loading(folder, **ONLY_ACCOUNT)
    ran.clear()
    copied(first, folder, shifted)
    loading(folder, **ONLY_ACCOUNT)
    assert ran == [stage for stage in FROM_TRAIN if stage in WITHOUT_TRIALS]


def test_a_loaded_crosscoder_says_the_layer_where_the_user_does_not(first, loading, tmp_path):
    folder = copied(first, tmp_path / "cc", configured(layers=(0,)))
    assert loading(folder, layer=None, **ONLY_ACCOUNT).run.layer == 0


def test_what_explains_the_runs_activations_badly_is_called_stale(first, loading, tmp_path):
    folder = copied(first, tmp_path / "cc", turned)
    (quality,) = loading(folder, **ONLY_ACCOUNT).quality
    assert quality.stale is not None
    assert "it explains" in quality.stale


def test_a_crosscoder_of_another_project_is_loaded_and_what_was_assumed_is_said(first, loading, tmp_path):
    write(checkpoint.load(first / "crosscoder"), tmp_path / "theirs")
    found, before = loading(tmp_path / "theirs", **ONLY_ACCOUNT), Report.load(first)
    (quality,) = found.quality
    assert quality.source.startswith("loaded from theirs; its models are taken in order; dictionary_learning, ")
    for mine, theirs in zip(found.tasks, before.tasks, strict=True):
        for a, b in zip(mine.components, theirs.components, strict=True):
            assert a.contribution == pytest.approx(b.contribution, abs=1e-4)


def test_a_missing_scale_is_fitted_to_the_runs_activations(first, loading, tmp_path):
    """In units of mean norm √width, as Kissane et al.'s files are."""
    trained = checkpoint.load(first / "crosscoder")
    x_NMD = ActivationStore.open(first / "activations").rows(("baseline", "candidate"), 1)[:]
    factor_M = 4.0 / x_NMD.double().norm(dim=-1).mean(dim=0)

    def unscaled(one: Crosscoder) -> None:
        one.scale_M.copy_(trained.scale_M / factor_M)
        one.mean_MD.copy_(trained.mean_MD * factor_M[:, None])
        one.config = one.config.model_copy(update={"expects": "mean norm √width"})

    (quality,) = loading(copied(first, tmp_path / "cc", unscaled), **ONLY_ACCOUNT).quality
    assert "does not hold the scale of its input" in quality.source
    before = Report.load(first).quality[0].explained_variance
    assert quality.explained_variance == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sides": ("candidate",)},
            r"is over one model \(candidate\), but baseline, candidate are read; give one that",
        ),
        ({"d_model": 24}, "reads width 24, the models have 16; give"),
        ({"sides": ("ancestor", "candidate")}, "was trained on ancestor–candidate, but baseline–candidate are read"),
        ({"sides": ("candidate", "baseline")}, "was trained on candidate–baseline, but baseline–candidate are read"),
        ({"layers": (2,)}, r"reads layer 2, but --layer 1 means 1; leave --layer out, or give"),
        ({"code_norm": "per_model"}, "has a code of its own for every model, and an account needs one"),
        ({"layers": (0, 1)}, "reads layers 0, 1, but an account is at one layer"),
        ({"layers": (13,), "no layer": True}, "reads layer 13, the models have layers 0 to 2; give one of these"),
    ],
)
def test_a_crosscoder_that_does_not_fit_is_refused_before_any_work(
    first, loading, tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(harness, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    options = {"layer": None} if change.pop("no layer", False) else {}
    one = checkpoint.load(first / "crosscoder").config.model_copy(update=change)
    checkpoint.save(Crosscoder(one).requires_grad_(False), tmp_path / "cc")
    with pytest.raises(UsageError, match=message) as error:
        loading(tmp_path / "cc", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "loaded").exists()


def test_a_crosscoder_that_was_trained_on_special_tokens_refuses_to_skip_them(first, loading):
    with pytest.raises(UsageError, match="positions of special tokens too; leave --skip-special out"):
        loading(first / "crosscoder", skip_special=True)


def test_a_crosscoder_that_skips_tokens_is_taken_at_its_word(first, loading, tmp_path):
    loading(copied(first, tmp_path / "cc", configured(skipped_ids=(7,))), **ONLY_ACCOUNT)
    assert checkpoint.load(tmp_path / "loaded" / "crosscoder").config.skipped_ids == (7,)
