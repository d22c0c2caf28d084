"""The probe annotator: planted latents are named, everything else is unclear."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse, stats

from diffharness.latents import probe_evidence
from diffharness.latents.annotation import NamingRule, annotate_by_probes
from diffharness.latents.probe_evidence import CHANCE
from diffharness.latents.taxonomy import UNCLEAR, Category, Taxonomy
from tests.latents.planted import CATEGORIES, NAMES, PAIRS, WITH_CONTRASTS, N, noise, planted


def test_planted_latents_are_named_and_noise_is_not() -> None:
    activation, truth = planted()
    rows = annotate_by_probes(np.hstack([activation, noise(300)]), CATEGORIES.tolist())
    assert [row.category for row in rows[: len(truth)]] == truth
    assert sum(row.category != UNCLEAR for row in rows[len(truth) :]) <= 3


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 1.0])
def test_shuffled_tags_name_at_most_one_latent_in_twenty(density: float) -> None:
    activation = np.hstack([planted()[0], noise(200, 2, density)])
    shuffled = np.random.default_rng(3).permutation(CATEGORIES).tolist()
    rows = annotate_by_probes(activation, shuffled)
    assert sum(row.category != UNCLEAR for row in rows) <= 0.05 * len(rows)


def test_the_row_carries_its_evidence() -> None:
    activation = noise(2)
    activation[CATEGORIES == "facts", 0] += 10
    row = annotate_by_probes(activation, CATEGORIES.tolist())[0]
    assert (row.category, row.best, row.auroc) == ("facts", "facts", 1.0)
    assert row.q_value is not None
    assert row.q_value < 1e-6
    assert row.runner_up in NAMES
    assert row.runner_up != "facts"
    assert "facts" in row.reason


def test_a_latent_of_two_categories_is_unclear_and_says_which() -> None:
    activation = noise(1)
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
    assert annotate_by_probes(activation, CATEGORIES.tolist(), rule=NamingRule(min_auroc=0.6))[0].category == "facts"


def test_a_silent_latent_is_unclear_and_does_not_count_as_a_test() -> None:
    activation, _ = planted(2)
    alone = annotate_by_probes(activation, CATEGORIES.tolist())
    among_dead = annotate_by_probes(np.hstack([activation, np.zeros((100, 500))]), CATEGORIES.tolist())
    assert among_dead[: len(alone)] == alone
    assert among_dead[-1].category == UNCLEAR
    assert among_dead[-1].auroc is None
    assert "does not fire" in among_dead[-1].reason


def test_rescaling_a_latent_or_reordering_the_probes_changes_nothing() -> None:
    activation, _ = planted(3)
    order = np.random.default_rng(4).permutation(len(CATEGORIES))
    there = annotate_by_probes(activation, CATEGORIES.tolist())
    assert there == annotate_by_probes(activation * 17.0, CATEGORIES.tolist())
    back = annotate_by_probes(activation[order], CATEGORIES[order].tolist())
    assert [row.category for row in back] == [row.category for row in there]
    np.testing.assert_allclose([row.auroc or 0 for row in back], [row.auroc or 0 for row in there])


def test_tags_that_do_not_fit_the_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="100 probe texts with 3 categories"):
        annotate_by_probes(noise(1), ["a", "b", "c"])


def test_order_of_names_follows_the_taxonomy_given() -> None:
    activation = noise(1)
    for name in ("facts", "safety"):
        activation[name == CATEGORIES, 0] = 10 + np.arange(25)
    own = Taxonomy((Category("facts", "Knowing."), Category("safety", "Care.")))
    assert annotate_by_probes(activation, CATEGORIES.tolist())[0].best == "safety"
    assert annotate_by_probes(activation, CATEGORIES.tolist(), taxonomy=own)[0].best == "facts"


def test_one_category_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="one category can not be compared: facts"):
        annotate_by_probes(np.eye(4), ["facts", "facts", None, None])


# contrasts


def _contrasts(n_latents: int, seed: int = 5) -> np.ndarray:
    """Texts, then their contrasts: noise that fires a little anywhere."""
    return 0.5 * np.vstack([noise(n_latents, seed), noise(n_latents, seed + 1)])


def test_a_latent_of_the_capability_is_named_and_one_of_its_topic_is_not() -> None:
    activation = _contrasts(2)
    of_safety = np.flatnonzero(CATEGORIES == "safety")
    activation[of_safety, 0] += 10
    activation[of_safety, 1] += 10
    activation[N + of_safety, 1] += 10
    capability, topic = annotate_by_probes(activation, WITH_CONTRASTS, pairs=PAIRS)
    assert (capability.category, capability.contrast_share) == ("safety", 1.0)
    assert "more than on the matched text without it in 100 % of 25 pairs" in capability.reason
    assert (topic.category, topic.best) == (UNCLEAR, "safety")
    assert topic.auroc is not None
    assert topic.auroc > 0.8, "against all other rows alone it would have passed"
    assert topic.contrast_share is not None
    assert topic.reason.startswith("most active on safety, but as much on matched texts without it (")
    assert topic.reason.endswith(" % of 25 pairs)")


@pytest.mark.parametrize(
    ("wins", "losses", "share", "says"),
    [
        (25, 0, 1.0, None),
        (18, 7, 0.72, None),
        (16, 9, 0.64, "its lead over matched texts without it may be chance (64 % of 25 pairs, p = 0.11)"),
        (13, 12, 0.52, "as much on matched texts without it (52 % of 25 pairs)"),
        (7, 2, 0.60, "its lead over matched texts without it may be chance (60 % of 25 pairs, p = 0.09)"),
        (0, 0, 0.5, "as much on matched texts without it (50 % of 25 pairs)"),
        (2, 20, 0.14, "more on matched texts without it (it leads in 14 % of 25 pairs)"),
    ],
)
def test_the_pairs_are_counted_and_tested_by_their_signs(
    wins: int, losses: int, share: float, says: str | None
) -> None:
    activation = np.zeros((2 * N, 1))
    of_safety = np.flatnonzero(CATEGORIES == "safety")
    activation[of_safety] = activation[N + of_safety] = 10.0
    activation[of_safety[:wins]] += 1
    activation[N + of_safety[wins : wins + losses]] += 1
    row = annotate_by_probes(activation, WITH_CONTRASTS, pairs=PAIRS)[0]
    assert row.best == "safety"
    assert row.contrast_share == pytest.approx(share)
    p_value = stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert (row.category == "safety") == (p_value < 0.05 and share >= 0.6)
    assert says is None or row.reason == f"most active on safety, but {says}"


def test_contrasts_count_as_other_texts_whether_they_are_paired_or_not() -> None:
    activation = _contrasts(3)
    activation[np.flatnonzero(CATEGORIES == "facts")] += 1
    row = annotate_by_probes(activation, WITH_CONTRASTS)[0]
    assert row.contrast_share is None
    others = [i for i, tag in enumerate(WITH_CONTRASTS) if tag != "facts"]
    members = [i for i, tag in enumerate(WITH_CONTRASTS) if tag == "facts"]
    u = stats.mannwhitneyu(activation[members, 0], activation[others, 0]).statistic
    assert row.auroc == pytest.approx(u / (len(members) * len(others)))


# sparse input and blocks


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.coo_array, sparse.csc_array])
def test_sparse_and_dense_maxima_give_the_same_in_blocks_of_any_size(make, monkeypatch: pytest.MonkeyPatch) -> None:
    activation = np.vstack([planted(3)[0], noise(12, 7) * 0.3])
    activation = np.hstack([activation, np.zeros((2 * N, 3)), _contrasts(20)])
    dense = annotate_by_probes(activation, WITH_CONTRASTS, pairs=PAIRS)
    assert {row.category for row in dense} >= {*NAMES, UNCLEAR}
    monkeypatch.setattr(probe_evidence, "_BLOCK_CELLS", 2 * N * 7)
    assert annotate_by_probes(make(activation), WITH_CONTRASTS, pairs=PAIRS) == dense


def test_sparse_maxima_are_never_dense_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    n_latents = 8_000
    monkeypatch.setattr(probe_evidence, "_BLOCK_CELLS", 2 * N * 100)
    maxima = sparse.random_array((2 * N, n_latents), density=0.005, rng=np.random.default_rng(8), format="csr")
    tracemalloc.start()
    rows = annotate_by_probes(maxima, WITH_CONTRASTS, pairs=PAIRS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == n_latents
    assert peak_bytes < 0.7 * maxima.shape[0] * n_latents * 8


# names tried on held-out texts


def test_a_named_latent_is_found_again_on_held_out_texts() -> None:
    activation, truth = planted()
    rows = annotate_by_probes(np.hstack([activation, noise(50)]), CATEGORIES.tolist(), rng=np.random.default_rng(0))
    scores = [row.detection.score for row in rows[: len(truth)] if row.detection is not None]
    assert len(scores) == len(truth)
    assert np.mean(scores) > 0.8
    assert all(row.detection is None for row in rows if row.category == UNCLEAR)
    detection = rows[0].detection
    assert detection is not None
    assert (detection.chance, detection.n) == (CHANCE, N)
    assert "the other half" in detection.method


def test_shuffled_tags_are_found_again_at_chance_where_every_latent_is_named() -> None:
    """The rule lets everything through, so that nothing is selected by what it scored."""
    rng = np.random.default_rng(10)
    lax = NamingRule(level=1.1, min_auroc=0.0, min_lead=-1.0)
    found = [
        row.detection.score
        for seed in range(10)
        for row in annotate_by_probes(noise(60, seed), rng.permutation(CATEGORIES).tolist(), rule=lax, rng=rng)
        if row.detection is not None
    ]
    assert len(found) == 600
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)


def test_too_few_texts_to_hold_some_out_leave_the_name_without_a_score() -> None:
    activation = np.zeros((41, 1))
    activation[40] = 1.0
    lax = NamingRule(level=1.1, min_auroc=0.0, min_lead=-1.0)
    row = annotate_by_probes(activation, [*["facts"] * 40, "safety"], rule=lax)[0]
    assert (row.category, row.detection) == ("safety", None)
