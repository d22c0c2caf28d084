"""What probes say: names are tried on texts that had no part in choosing them; of tags that mean nothing, at chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from diffharness.latents.annotation import annotate_by_probes
from diffharness.latents.probe_evidence import Columns, Design, held_out_auroc
from tests.latents.planted import CATEGORIES, NAMES, PAIRS, WITH_CONTRASTS, N, noise, planted


def test_pairs_that_do_not_fit_are_refused() -> None:
    activation = np.eye(4)
    with pytest.raises(ValueError, match="4 probe texts with 1 pairs"):
        annotate_by_probes(activation, ["a", "b", None, None], pairs=[None])
    for pairs in ([1, None, None, None], [None, None, 3, None], [None, None, None, 4]):
        with pytest.raises(ValueError, match="is no contrast of row"):
            annotate_by_probes(activation, ["a", "b", None, None], pairs=pairs)


def test_the_score_is_the_mean_of_each_halfs_auroc_of_the_name_that_the_other_half_gave() -> None:
    """Half A (even places of each category) says facts and half B safety: each is held to its own choice."""
    categories = ["safety"] * 8 + ["facts"] * 8
    activation = np.array([0, 3, 0, 3, 0, 3, 0, 1, 0, 2, 0, 2, 0, 2, 2, 0], dtype=float)[:, None]
    design = Design.of(16, categories, None, None)
    half = design.halves(None)
    best, directions = [], []
    for chosen, tried in ((half, ~half), (~half, half)):
        aurocs = {}
        for name in ("safety", "facts"):
            is_member = np.array([tag == name for tag in categories])
            for label, side in (("chosen", chosen), ("tried", tried)):
                members, others = activation[side & is_member, 0], activation[side & ~is_member, 0]
                u = stats.mannwhitneyu(members, others).statistic
                aurocs[name, label] = u / (len(members) * len(others))
        best.append(max(("safety", "facts"), key=lambda name, a=aurocs: a[name, "chosen"]))
        directions.append(aurocs[best[-1], "tried"])
    assert set(best) == {"safety", "facts"}
    assert held_out_auroc(Columns.of(activation), design, None)[0] == pytest.approx(np.mean(directions))


@pytest.mark.parametrize("density", [0.03, 0.3, 1.0])
def test_shuffled_tags_are_found_again_at_chance(density: float) -> None:
    """Each category's latents are strong; only what the tags say is taken away, contrasts going with their texts."""
    rng = np.random.default_rng(9)
    scores = []
    for seed in range(20):
        plants = np.vstack([planted(5, seed)[0], 0.5 * noise(20, 100 + seed)])
        activation = np.hstack([plants, np.vstack([noise(40, seed, density), noise(40, 50 + seed, density)])])
        flip = rng.random(N) < 0.5
        activation[:N][flip], activation[N:][flip] = activation[N:][flip], activation[:N][flip].copy()
        tags = [*rng.permutation(CATEGORIES).tolist(), *[None] * N]
        design = Design.of(2 * N, tags, PAIRS, None)
        scores.append(held_out_auroc(Columns.of(activation), design, rng))
    mean_of_seed = np.array(scores).mean(axis=1)
    assert abs(mean_of_seed.mean() - 0.5) < 4 * mean_of_seed.std(ddof=1) / np.sqrt(20)
    assert abs(mean_of_seed.mean() - 0.5) < 0.01


def test_a_contrast_is_held_out_with_its_text_and_categories_are_halved() -> None:
    design = Design.of(2 * N, WITH_CONTRASTS, PAIRS, None)
    for rng in (None, np.random.default_rng(11)):
        half = design.halves(rng)
        np.testing.assert_array_equal(half[:N], half[N:])
        counts = [half[np.flatnonzero(name == CATEGORIES)].sum() for name in NAMES]
        assert set(counts) <= {12, 13}
    np.testing.assert_array_equal(design.halves(None), design.halves(None))
