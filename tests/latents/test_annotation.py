"""The probe annotator: planted latents are named, everything else is unclear."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.latents.annotation import NamingRule, annotate_by_probes
from diffharness.latents.taxonomy import UNCLEAR

NAMES = ("safety", "multilingual", "facts", "arithmetic")
CATEGORIES = np.repeat(NAMES, 25)


def _noise(n_latents: int, seed: int = 0, density: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fires = rng.random((len(CATEGORIES), n_latents)) < density
    return fires * rng.exponential(size=(len(CATEGORIES), n_latents))


def _planted(n_each: int = 10, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Latents that fire, a little, anywhere and clearly on four in five texts of one category."""
    rng = np.random.default_rng(seed)
    truth = [name for name in NAMES for _ in range(n_each)]
    activation = _noise(len(truth), seed) * 0.5
    for latent, name in enumerate(truth):
        on = (name == CATEGORIES) & (rng.random(len(CATEGORIES)) < 0.8)
        activation[on, latent] += 1 + rng.exponential(size=on.sum())
    return activation, truth


def test_planted_latents_are_named_and_noise_is_not() -> None:
    activation, truth = _planted()
    rows = annotate_by_probes(np.hstack([activation, _noise(300)]), CATEGORIES.tolist())
    assert [row.category for row in rows[: len(truth)]] == truth
    assert sum(row.category != UNCLEAR for row in rows[len(truth) :]) <= 3


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 1.0])
def test_shuffled_tags_name_at_most_one_latent_in_twenty(density: float) -> None:
    activation = np.hstack([_planted()[0], _noise(200, 2, density)])
    shuffled = np.random.default_rng(3).permutation(CATEGORIES).tolist()
    rows = annotate_by_probes(activation, shuffled)
    assert sum(row.category != UNCLEAR for row in rows) <= 0.05 * len(rows)


def test_the_row_carries_its_evidence() -> None:
    activation = _noise(2)
    activation[CATEGORIES == "facts", 0] += 10
    row = annotate_by_probes(activation, CATEGORIES.tolist())[0]
    assert (row.category, row.best, row.auroc) == ("facts", "facts", 1.0)
    assert row.q_value is not None
    assert row.q_value < 1e-6
    assert row.runner_up in NAMES
    assert row.runner_up != "facts"
    assert "facts" in row.reason


def test_a_latent_of_two_categories_is_unclear_and_says_which() -> None:
    activation = _noise(1)
    for name in ("facts", "safety"):
        activation[name == CATEGORIES, 0] = 10 + np.arange(25)
    row = annotate_by_probes(activation, CATEGORIES.tolist())[0]
    assert row.category == UNCLEAR
    assert "close behind" in row.reason
    assert {row.best, row.runner_up} == {"facts", "safety"}


def test_a_weak_but_significant_latent_is_unclear() -> None:
    activation = np.zeros((len(CATEGORIES), 1))
    activation[np.flatnonzero(CATEGORIES == "facts")[:8], 0] = 1.0
    row = annotate_by_probes(activation, CATEGORIES.tolist())[0]
    assert row.q_value is not None
    assert row.q_value < 0.05
    assert row.category == UNCLEAR
    assert "AUROC of 0.66 is below 0.7" in row.reason
    assert annotate_by_probes(activation, CATEGORIES.tolist(), NamingRule(min_auroc=0.6))[0].category == "facts"


def test_a_silent_latent_is_unclear_and_does_not_count_as_a_test() -> None:
    activation, _ = _planted(2)
    alone = annotate_by_probes(activation, CATEGORIES.tolist())
    among_dead = annotate_by_probes(np.hstack([activation, np.zeros((100, 500))]), CATEGORIES.tolist())
    assert among_dead[: len(alone)] == alone
    assert among_dead[-1].category == UNCLEAR
    assert among_dead[-1].auroc is None
    assert "does not fire" in among_dead[-1].reason


def test_rescaling_a_latent_or_reordering_the_probes_changes_nothing() -> None:
    activation, _ = _planted(3)
    order = np.random.default_rng(4).permutation(len(CATEGORIES))
    there = annotate_by_probes(activation, CATEGORIES.tolist())
    assert there == annotate_by_probes(activation * 17.0, CATEGORIES.tolist())
    back = annotate_by_probes(activation[order], CATEGORIES[order].tolist())
    assert [row.category for row in back] == [row.category for row in there]
    np.testing.assert_allclose([row.auroc or 0 for row in back], [row.auroc or 0 for row in there])


def test_tags_that_do_not_fit_the_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="100 probe texts with 3 categories"):
        annotate_by_probes(_noise(1), ["a", "b", "c"])
