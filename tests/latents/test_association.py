"""Associations of latents with gains and losses: planted truth, null data, and a slow dense reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse, stats

from diffharness.latents.association import Associations, associate
from diffharness.statistics.maxima import centred_labels, permuted_labels, stratified_max_t


def activations(rng: np.random.Generator, n: int, n_latents: int, density: float | np.ndarray = 0.3) -> np.ndarray:
    """Heavy-tailed where a latent fires at all, rounded so that values tie."""
    size = np.round(rng.lognormal(0, 1, (n, n_latents)), 1)
    return np.where(rng.random((n, n_latents)) < density, size, 0.0)


def dense_reference(
    activation_DL: np.ndarray, gains_D: np.ndarray, stratum_D: np.ndarray, seed: int, n_permutations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Van Elteren's statistic, its p and step-down max-T, one latent and one permutation after the other."""
    n, n_latents = activation_DL.shape
    score_DL, variance_L, third_L = np.zeros((n, n_latents)), np.zeros(n_latents), np.zeros(n_latents)
    for s in np.unique(stratum_D):
        rows = np.flatnonzero(stratum_D == s)
        n_s, n_gain = len(rows), gains_D[rows].sum()
        for j in range(n_latents):
            score_DL[rows, j] = stats.rankdata(activation_DL[rows, j]) / (n_s + 1)
            variance_L[j] += n_gain * (n_s - n_gain) / n_s * score_DL[rows, j].var(ddof=1)
            y, c = gains_D[rows] - n_gain / n_s, score_DL[rows, j] - score_DL[rows, j].mean()
            third_L[j] += n_s * (c**3).sum() * (y**3).sum() / ((n_s - 1) * (n_s - 2))
    label_DR = np.concatenate(
        list(permuted_labels(gains_D, stratum_D, np.random.default_rng(seed), n_permutations)), axis=1
    )
    skewness_L1 = (third_L / variance_L**1.5)[:, None]

    def normal(sum_LR: np.ndarray) -> np.ndarray:
        gamma_LR = 1 + skewness_L1 * sum_LR / np.sqrt(variance_L)[:, None] / 2
        return (np.cbrt(gamma_LR) - 1) * 6 / skewness_L1 + skewness_L1 / 6

    z_LR = normal(score_DL.T @ label_DR)
    z_L = normal(score_DL.T @ centred_labels(gains_D, stratum_D)[:, None])[:, 0]
    p_L = [(1 + sum(abs(z) >= abs(z_L[j]) - 1e-8 for z in z_LR[j])) / (1 + n_permutations) for j in range(n_latents)]
    order = np.argsort(-np.abs(z_L))
    adjusted_L, least = np.empty(n_latents), 0.0
    for place, j in enumerate(order):
        largest_R = np.abs(z_LR[order[place:]]).max(axis=0)
        least = max(least, (1 + (largest_R >= abs(z_L[j]) - 1e-8).sum()) / (1 + n_permutations))
        adjusted_L[j] = least
    return z_L, np.array(p_L), adjusted_L


def test_it_agrees_with_a_slow_dense_reference() -> None:
    rng = np.random.default_rng(0)
    stratum_D = np.repeat([0, 1, 2], [25, 40, 15])
    outcome_D = rng.choice([-1.0, 1.0], 80)
    activation_DL = activations(rng, 80, 30)
    activation_DL[:, 0] += 0.5  # never silent
    activation_DL[outcome_D > 0, 1] += 2.0
    found = associate(
        sparse.csr_array(activation_DL), outcome_D, np.random.default_rng(7), strata_D=stratum_D, n_permutations=199
    )
    z_L, p_L, adjusted_L = dense_reference(activation_DL, outcome_D > 0, stratum_D, 7, 199)
    np.testing.assert_allclose(found.statistic_L, z_L, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found.p_L, p_L)
    np.testing.assert_array_equal(found.p_adjusted_L, adjusted_L)
    assert (found.n_gain, found.n_lose) == ((outcome_D > 0).sum(), (outcome_D < 0).sum())


def test_within_one_task_it_is_mann_whitneys_statistic() -> None:
    rng = np.random.default_rng(1)
    activation_DL, outcome_D = activations(rng, 60, 10), rng.normal(size=60)
    outcome_D[:30], outcome_D[30:] = np.abs(outcome_D[:30]), -np.abs(outcome_D[30:])  # as many: no skewness
    found = associate(sparse.csc_array(activation_DL), outcome_D, rng, n_permutations=9)
    gains_D = outcome_D > 0
    for j in range(10):
        u, p = stats.mannwhitneyu(
            activation_DL[gains_D, j], activation_DL[~gains_D, j], method="asymptotic", use_continuity=False
        )
        assert found.superiority_L[j] == pytest.approx(u / (gains_D.sum() * (~gains_D).sum()))
        assert 2 * stats.norm.sf(abs(found.statistic_L[j])) == pytest.approx(p)


def test_p_values_are_those_of_all_permutations() -> None:
    """Two tasks of 6 documents, half of them gains: 400 permutations in all, enumerated."""
    rng = np.random.default_rng(2)
    label_D, stratum_D = np.tile([True, False], 6), np.repeat([0, 1], 6)
    score_DL = np.round(rng.normal(size=(12, 8)), 1)
    halves = [list(c) for c in itertools.combinations(range(6), 3)]
    label_RD = np.zeros((400, 12))
    for r, (first, second) in enumerate(itertools.product(halves, halves)):
        label_RD[r, first] = label_RD[r, 6 + np.array(second)] = 1
    found = stratified_max_t(sparse.csr_array(score_DL), label_D, stratum_D, rng, 20_000)
    centred_DL = score_DL - np.repeat([score_DL[:6].mean(axis=0), score_DL[6:].mean(axis=0)], 6, axis=0)
    permuted_RL = np.abs(label_RD @ centred_DL)
    observed_L = np.abs(label_D @ centred_DL)
    exact_L = (permuted_RL >= observed_L - 1e-9).mean(axis=0)
    np.testing.assert_allclose(found.p_L, exact_L, atol=4 * np.sqrt(0.25 / 20_000))
    spread_L = np.sqrt((permuted_RL**2).mean(axis=0))
    np.testing.assert_allclose(np.abs(found.standardised_L), observed_L / spread_L)


def test_the_skewness_of_rare_latents_is_that_of_all_permutations() -> None:
    """Three labels among ten documents, enumerated: what is taken out is what is there, and the order is kept."""
    rng = np.random.default_rng(12)
    score_DL = rng.lognormal(size=(10, 6)) * (rng.random((10, 6)) < 0.5)
    label_RD = np.array([np.isin(range(10), c) for c in itertools.combinations(range(10), 3)], dtype=float)
    sum_RL = label_RD @ (score_DL - score_DL.mean(axis=0))
    skewness_L = stats.skew(sum_RL, axis=0)
    found = stratified_max_t(sparse.csr_array(score_DL), label_RD[7] > 0, np.zeros(10, dtype=int), rng, 9)
    expected_L = (np.cbrt(1 + skewness_L * found.standardised_L / 2) - 1) * 6 / skewness_L + skewness_L / 6
    np.testing.assert_allclose(found.statistic_L, expected_L)


def test_few_gains_do_not_let_rare_latents_hide_a_common_one() -> None:
    """15 gains among 415: rare latents' rank sums, standardised, reach 6 by chance in some of a thousand."""
    n_called = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        outcome_D = np.where(np.arange(415) < 15, 1.0, -1.0)
        activation_DL = activations(rng, 415, 1000, 10 ** rng.uniform(-2.3, -0.3, 1000))
        activation_DL[:, 0] = np.where(rng.random(415) < np.where(outcome_D > 0, 0.9, 0.15), rng.lognormal(size=415), 0)
        found = associate(sparse.csr_array(activation_DL), outcome_D, rng, n_permutations=99)
        n_called += bool(found.p_adjusted_L[0] < 0.05)
    assert n_called >= 6


def planted(rng: np.random.Generator, n: int = 400, n_latents: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latent 3 fires more where the candidate gains, latent 8 where it loses; a third of the scores are equal."""
    outcome_D, task_D = rng.choice([-1.0, 0.0, 1.0], n), rng.choice(["a", "b", "c"], n)
    activation_DL = activations(rng, n, n_latents)
    activation_DL[:, 3] = np.where(rng.random(n) < 0.25 + 0.35 * (outcome_D > 0), rng.lognormal(0, 1, n), 0)
    activation_DL[:, 8] = np.where(rng.random(n) < 0.25 + 0.35 * (outcome_D < 0), rng.lognormal(0, 1, n), 0)
    return activation_DL, outcome_D, task_D


def test_planted_latents_are_called_and_point_the_right_way() -> None:
    rng = np.random.default_rng(3)
    activation_DL, outcome_D, task_D = planted(rng)
    found = associate(sparse.csr_array(activation_DL.astype(np.float32)), outcome_D, rng, strata_D=task_D)
    assert np.flatnonzero(found.p_adjusted_L < 0.05).tolist() == [3, 8]
    assert found.statistic_L[3] > 0 > found.statistic_L[8]
    assert found.superiority_L[3] > 0.6 > 0.4 > found.superiority_L[8]
    assert found.n_gain + found.n_lose == (outcome_D != 0).sum()
    assert found.n_tested == 500
    assert "500 latents, 999 permutations" in found.method


def test_the_unit_of_a_latent_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    activation_DL, outcome_D, task_D = planted(rng, n_latents=40)
    scale_L = 10 ** rng.uniform(-4, 4, 40)

    def found(values_DL: np.ndarray) -> Associations:
        return associate(
            sparse.csr_array(values_DL), outcome_D, np.random.default_rng(0), strata_D=task_D, n_permutations=99
        )

    one, other = found(activation_DL), found(activation_DL * scale_L)
    for name in ("statistic_L", "p_L", "p_adjusted_L", "superiority_L"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_over_null_data_any_call_at_all_is_as_rare_as_the_level_says() -> None:
    """Correlated latents, three tasks with their own share of gains and their own latents."""
    n_calls, share_T = 0, np.array([0.3, 0.5, 0.8])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        task_D = rng.integers(0, 3, 90)
        outcome_D = np.where(rng.random(90) < share_T[task_D], 1.0, -1.0)
        activation_DL = activations(rng, 90, 40) * (1 + rng.lognormal(0, 1, (90, 1)))
        activation_DL[:, :10] *= task_D[:, None] == 1
        found = associate(sparse.csr_array(activation_DL), outcome_D, rng, strata_D=task_D, n_permutations=99)
        n_calls += bool(np.nanmin(found.p_adjusted_L) <= 0.05)
    assert stats.binomtest(n_calls, 200, 0.05, alternative="greater").pvalue > 0.01
    assert n_calls >= 2  # and not because nothing is ever called: level 0.05 gives 0 or 1 with probability 0.0004


def test_a_latent_that_only_marks_a_task_with_mostly_gains_is_not_called() -> None:
    rng = np.random.default_rng(5)
    task_D = np.repeat([0, 1], 150)
    outcome_D = np.where(rng.random(300) < np.where(task_D == 1, 0.85, 0.15), 1.0, -1.0)
    activation_DL = activations(rng, 300, 20)
    activation_DL[:, 0] = np.where(task_D == 1, rng.lognormal(0, 0.5, 300), 0)
    activation_DL[:, 1] = (task_D == 1) * 1.0  # constant in either task
    values_DL = sparse.csr_array(activation_DL)
    assert associate(values_DL, outcome_D, rng).p_adjusted_L[0] == pytest.approx(0.001)
    found = associate(values_DL, outcome_D, rng, strata_D=task_D)
    assert found.p_adjusted_L[0] > 0.05
    assert np.isnan(found.p_adjusted_L[1])


def test_a_task_where_all_documents_go_one_way_says_nothing() -> None:
    rng = np.random.default_rng(6)
    task_D = np.repeat(["mixed", "gains"], [60, 30])
    outcome_D = np.concatenate([rng.choice([-1.0, 1.0], 60), np.ones(30)])
    activation_DL = activations(rng, 90, 10)
    found = associate(
        sparse.csr_array(activation_DL), outcome_D, np.random.default_rng(1), strata_D=task_D, n_permutations=99
    )
    alone = associate(sparse.csr_array(activation_DL[:60]), outcome_D[:60], np.random.default_rng(1), n_permutations=99)
    np.testing.assert_array_equal(found.p_adjusted_L, alone.p_adjusted_L)
    assert (found.n_gain, found.n_lose, found.n_one_way) == (alone.n_gain, alone.n_lose, 30)


def test_constant_silent_and_rare_latents_are_not_tested() -> None:
    rng = np.random.default_rng(7)
    activation_DL, outcome_D = activations(rng, 60, 6), rng.choice([-1.0, 1.0], 60)
    activation_DL[:, 0], activation_DL[:, 1], activation_DL[:, 2] = 0.3, 0.0, np.arange(60) < 4
    with np.errstate(all="raise"):
        found = associate(sparse.csr_array(activation_DL), outcome_D, rng, n_permutations=99)
    for values_L in (found.statistic_L, found.superiority_L, found.p_L, found.p_adjusted_L):
        assert np.flatnonzero(np.isnan(values_L)).tolist() == [0, 1, 2]
    assert found.n_tested == 3
    assert found.n_active_L[:3].tolist() == [60, 0, 4]
    assert found.reason is None


def test_stored_zeros_are_silent_documents() -> None:
    rng = np.random.default_rng(8)
    activation_DL, outcome_D = activations(rng, 60, 5), rng.choice([-1.0, 1.0], 60)
    stored_DL = sparse.csr_array(np.ones_like(activation_DL))
    stored_DL.data[:] = activation_DL.ravel()
    found, expected = (
        associate(values_DL, outcome_D, np.random.default_rng(0), n_permutations=19)
        for values_DL in (stored_DL, sparse.csr_array(activation_DL))
    )
    np.testing.assert_array_equal(found.statistic_L, expected.statistic_L)
    assert stored_DL.nnz == 300


def test_too_few_documents_are_a_reason_and_no_numbers() -> None:
    rng = np.random.default_rng(9)
    values_DL = sparse.csr_array(activations(rng, 40, 5))
    outcome_D = np.concatenate([np.ones(9), np.zeros(11), -np.ones(20)])
    found = associate(values_DL, outcome_D, rng)
    assert found.reason is not None
    assert "gains on 9 and loses on 20" in found.reason
    assert np.isnan(found.p_adjusted_L).all()
    one_way = associate(values_DL, outcome_D, rng, strata_D=np.arange(40) < 9)
    assert one_way.reason is not None
    assert "29 more are of tasks where all go one way" in one_way.reason
    silent = associate(sparse.csr_array((40, 5)), np.tile([1.0, -1.0], 20), rng)
    assert silent.reason is not None
    assert "no latent fires" in silent.reason
    assert associate(sparse.csr_array((0, 5)), np.zeros(0), rng).reason is not None


@pytest.mark.parametrize(
    ("value", "outcome", "n", "words"),
    [(-1.0, 1.0, 20, "negative"), (1.0, np.nan, 20, "finite"), (1.0, 1.0, 19, "19"), (np.nan, 1.0, 20, "finite")],
)
def test_what_can_not_be_compared_is_refused(value: float, outcome: float, n: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        associate(sparse.csr_array(np.full((20, 3), value)), np.full(n, outcome), np.random.default_rng(0))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    activation_DL, outcome_D, task_D = planted(rng, n=120, n_latents=30)
    values_DL = sparse.csr_array(activation_DL)
    whole = associate(values_DL, outcome_D, np.random.default_rng(0), strata_D=task_D, n_permutations=50)
    monkeypatch.setattr("diffharness.statistics.maxima._STATISTIC_CELLS", 300)
    monkeypatch.setattr("diffharness.latents.association._RANKED_ENTRIES", 50)
    pieces = associate(values_DL, outcome_D, np.random.default_rng(0), strata_D=task_D, n_permutations=50)
    np.testing.assert_array_equal(whole.p_L, pieces.p_L)
    np.testing.assert_array_equal(whole.p_adjusted_L, pieces.p_adjusted_L)
