"""Each model's own use of latents: direct sums, coverage over repeated draws, and the words for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from diffharness.latents.documents import DocumentActivations, DocumentSums
from diffharness.latents.use import LatentUse, UseSums, changed_sentence, most_changed
from tests.latents.planted_codes import codes_of


def texts_of(rng: np.random.Generator, n: int, n_latents: int, rates_L: np.ndarray) -> list[np.ndarray]:
    return [
        rng.lognormal(size=(length, n_latents)) * (rng.random((length, n_latents)) < rates_L)
        for length in rng.integers(0, 30, n)
    ]


def own_texts(seed: int, n: int = 40, n_latents: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The candidate drops half of latent 0 and doubles latent 1; latent 5 never fires."""
    rng = np.random.default_rng(seed)
    rates_L = np.array([0.4, 0.2, 0.1, 0.02, 0.3, 0.0])[:n_latents]
    baseline = texts_of(rng, n, n_latents, rates_L)
    candidate = [text.copy() for text in baseline]
    for text in candidate:
        text[:, 0] *= rng.random(len(text)) < 0.5
        text[:, 1] *= 2
        text[:, 2] *= rng.lognormal(0, 0.3, len(text))
    return baseline, candidate


def gathered(baseline: list[np.ndarray], candidate: list[np.ndarray], n_latents: int = 6, batch: int = 7) -> LatentUse:
    sums = UseSums(n_latents)
    for start in range(0, len(baseline), batch):
        part = slice(start, start + batch)
        sums.update((codes_of(baseline[part], n_latents), codes_of(candidate[part], n_latents)))
    return sums.finish()


def test_rates_means_and_differences_are_those_of_all_tokens_together() -> None:
    baseline, candidate = own_texts(0)
    use = gathered(baseline, candidate)
    for side, texts in enumerate((baseline, candidate)):
        tokens_NL = np.concatenate(texts)
        np.testing.assert_allclose(use.rate_LM[:, side], (tokens_NL > 0).mean(axis=0))
        np.testing.assert_allclose(use.mean_LM[:, side], tokens_NL.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(use.rate_change.difference_L, use.rate_LM[:, 1] - use.rate_LM[:, 0], atol=1e-15)
    np.testing.assert_allclose(use.mean_change.difference_L, use.mean_LM[:, 1] - use.mean_LM[:, 0], atol=1e-15)
    assert use.n_tokens == sum(len(text) for text in baseline)
    assert use.n_units == sum(len(text) > 0 for text in baseline)
    assert use.n_fired_L.tolist() == [sum((text[:, j] > 0).any() for text in baseline) for j in range(6)]


def test_intervals_are_those_of_deleting_one_text_at_a_time() -> None:
    """The streamed second order against the jackknife itself, done text by text."""
    baseline, candidate = own_texts(1)
    use = gathered(baseline, candidate)
    kept = [(b, c) for b, c in zip(baseline, candidate) if len(b)]
    n_U = np.array([len(b) for b, _ in kept])
    for change, count in ((use.rate_change, lambda x: x > 0), (use.mean_change, lambda x: x)):
        d_UL = np.array([count(c).sum(axis=0) - 1.0 * count(b).sum(axis=0) for b, c in kept])
        ratio_L = d_UL.sum(axis=0) / n_U.sum()
        deleted_UL = (d_UL.sum(axis=0) - d_UL) / (n_U.sum() - n_U)[:, None]
        error_L = np.sqrt((len(n_U) - 1) / len(n_U) * ((deleted_UL - ratio_L) ** 2).sum(axis=0))
        e_UL = d_UL - ratio_L * n_U[:, None]
        for j in np.flatnonzero((d_UL != 0).sum(axis=0) > 1):
            excess = (e_UL[:, j] ** 4).sum() / (e_UL[:, j] ** 2).sum() ** 2 - 1 / len(n_U)
            freedom = min(2 / excess, (d_UL[:, j] != 0).sum() - 1)
            skewness = (e_UL[:, j] ** 3).sum() / (e_UL[:, j] ** 2).sum() ** 1.5
            unskewed = np.poly1d([skewness**2 / 27, skewness / 3, 1, skewness / 6])
            for end, sign in (
                (change.low_L[j], 1),
                (change.high_L[j], -1),
            ):  # Hall's cubic takes either end to Student's t
                t = (ratio_L[j] - end) / error_L[j]
                assert unskewed(t) == pytest.approx(sign * stats.t.ppf(0.975, freedom), rel=5e-3)
            t = ratio_L[j] / error_L[j]
            p = max(2 * stats.t.sf(abs(x), freedom) for x in (t, unskewed(t)))
            assert change.p_L[j] == pytest.approx(p, rel=5e-2, abs=1e-12)
    assert use.rate_change.high_L[0] < 0 < use.mean_change.low_L[1]


def test_what_is_the_same_in_both_is_no_change_and_what_never_fires_is_no_test() -> None:
    baseline, candidate = own_texts(2)
    use = gathered(baseline, candidate)
    for change in (use.rate_change, use.mean_change):
        assert (change.low_L[4], change.difference_L[4], change.high_L[4], change.p_L[4]) == (0, 0, 0, 1)
        assert change.difference_L[5] == 0
        assert np.isnan(change.p_L[5])
        assert np.isnan(change.q_L[5])
    assert use.rate_change.p_L[1] == 1  # doubled, but it fires where it did
    assert use.mean_change.q_L[1] < 1e-3


def test_one_text_that_differs_shows_nothing_of_how_texts_vary() -> None:
    text = np.zeros((10, 1))
    other = text.copy()
    other[3] = 5.0
    use = gathered([text] * 20, [*[text] * 19, other], 1)
    assert use.mean_change.difference_L[0] == pytest.approx(5 / 200)
    assert np.isnan([use.mean_change.low_L[0], use.mean_change.p_L[0], use.mean_change.q_L[0]]).all()


@pytest.mark.parametrize("n_texts", [0, 1])
def test_fewer_than_two_texts_give_no_interval(n_texts: int) -> None:
    text = np.ones((10, 2))
    with np.errstate(divide="raise"):
        use = gathered([text] * n_texts, [2 * text] * n_texts, 2)
    assert np.isnan(use.mean_change.low_L).all()
    assert np.isnan(use.mean_change.q_L).all()
    assert np.isnan(use.rate_LM).all() == (n_texts == 0)
    assert "could not be compared" in changed_sentence(0, 0, use, [], ["unclear"] * 2)


def test_documents_as_units_are_what_texts_are_where_each_document_is_one_text() -> None:
    baseline, candidate = own_texts(3)
    by_text = gathered(baseline, candidate)
    documents = [[i] for i in range(len(baseline))]
    own = []
    for texts in (baseline, candidate):
        sums = DocumentSums(6)
        sums.update(codes_of(texts, 6), documents)
        own.append(sums.finish(len(texts)))
    by_document = UseSums(6, "document")
    by_document.update_documents((own[0], own[1]))
    found = by_document.finish()
    np.testing.assert_allclose(found.mean_change.high_L, by_text.mean_change.high_L)
    np.testing.assert_allclose(found.rate_change.p_L, by_text.rate_change.p_L, atol=1e-12)
    assert (found.n_units, found.unit) == (by_text.n_units, "document")


def drawn(
    rng: np.random.Generator, n_units: int, n_latents: int, share: float, change: float
) -> tuple[DocumentActivations, DocumentActivations]:
    """Units of heavy-tailed length; a latent fires in a share of them at a rate of the unit, more in longer ones."""
    n_U = np.ceil(rng.lognormal(4, 1, n_units)).astype(np.int64)
    topic_UL = (rng.random((n_units, n_latents)) < share) * rng.beta(1, 3, (n_units, n_latents))
    topic_UL = topic_UL * (1 - np.exp(-n_U / 60))[:, None]
    own = []
    for factor in (1.0, change):
        rate_UL = topic_UL * factor * rng.beta(4, 4, (n_units, n_latents)) * 2 / max(change, 1.0)
        active_UL = rng.binomial(n_U[:, None], rate_UL / 2)
        own.append(
            DocumentActivations(sparse.csr_array(active_UL * 1.5), sparse.csr_array(active_UL.astype(np.int64)), n_U)
        )
    return own[0], own[1]


@pytest.mark.parametrize(
    ("n_units", "share", "change", "least"),
    [(60, 1.0, 1.5, 0.91), (200, 1.0, 1.0, 0.92), (200, 0.1, 1.5, 0.88), (1000, 0.1, 1.5, 0.91)],
)
def test_intervals_cover_the_truth_over_repeated_draws(n_units: int, share: float, change: float, least: float) -> None:
    """Hardest where all differences have one sign and some twenty texts of heavy-tailed length hold them."""
    rng = np.random.default_rng(n_units)
    baseline, candidate = drawn(rng, 20_000, 40, share, change)
    truth = (candidate.mass_DL.sum() - baseline.mass_DL.sum()) / baseline.n_tokens_D.sum() / 40
    covered, n_false = [], []
    for _ in range(20):
        sums = UseSums(100)
        sums.update_documents(drawn(rng, n_units, 100, share, change))
        found = sums.finish().mean_change
        covered.append(((found.low_L <= truth) & (truth <= found.high_L)).mean())
        n_false.append((found.p_L < 0.05).mean())
    assert least < np.mean(covered) < 0.99
    if change == 1.0:
        assert np.mean(n_false) < 0.06


def test_over_null_data_hardly_any_latent_is_called() -> None:
    """Sparse latents are where a normal approximation calls falsely: each fires in about eight texts."""
    rng = np.random.default_rng(4)
    n_called = 0
    for _ in range(20):
        sums = UseSums(300)
        sums.update_documents(drawn(rng, 400, 300, 0.02, 1.0))
        n_called += bool((sums.finish().mean_change.q_L < 0.05).any())
    assert n_called <= 4


def test_codes_of_other_texts_are_refused() -> None:
    sums = UseSums(3)
    with pytest.raises(ValueError, match="lengths differ"):
        sums.update((codes_of([np.ones((2, 3))], 3), codes_of([np.ones((3, 3))], 3)))
    with pytest.raises(ValueError, match="of 4 latents"):
        UseSums(4).update((codes_of([np.ones((2, 3))], 3), codes_of([np.ones((2, 3))], 3)))
    one, other = drawn(np.random.default_rng(0), 5, 3, 1.0, 1.0), drawn(np.random.default_rng(1), 5, 3, 1.0, 1.0)
    with pytest.raises(ValueError, match="tokens differ"):
        sums.update_documents((one[0], other[1]))


def test_most_changed_are_shared_latents_that_differ_by_more_than_texts_vary() -> None:
    use = gathered(*own_texts(5, n=80))
    size_L = np.abs(use.mean_change.difference_L)
    assert sorted(most_changed(use, np.ones(6, dtype=bool))) == [0, 1]
    assert size_L[most_changed(use, np.ones(6, dtype=bool))].tolist() == sorted(size_L[:2], reverse=True)
    assert most_changed(use, np.arange(6) != 0) == [1]
    assert most_changed(use, np.zeros(6, dtype=bool)) == []
    assert len(most_changed(use, np.ones(6, dtype=bool), n=1)) == 1


def test_what_latents_write_takes_turns_with_how_they_are_used() -> None:
    use = gathered(*own_texts(5, n=80))
    by_use = most_changed(use, np.ones(6, dtype=bool))
    written_L = np.array([0.0, 0.0, np.nan, -0.4, 0.1, 0.9])
    found = most_changed(use, np.arange(6) != 5, written_L=written_L)
    assert found == [by_use[0], 3, by_use[1], 4]
    assert most_changed(use, np.arange(6) != 5, written_L=written_L, n=2) == [by_use[0], 3]
    assert most_changed(use, np.ones(6, dtype=bool), written_L=np.zeros(6)) == by_use


CATEGORIES = ["safety", "code", "facts", "logic", "grammar", "unclear"]


def test_words_where_nothing_is_specific_tell_how_shared_latents_are_used() -> None:
    use = gathered(*own_texts(5, n=80))
    chosen = most_changed(use, np.ones(6, dtype=bool))
    said = changed_sentence(0, 0, use, chosen, CATEGORIES)
    assert said.startswith("No latent is specific to either model: what changed is how much shared latents are used")
    assert "Latent 0 (safety) fires on " in said
    rate_b, rate_c = 100 * use.rate_LM[0]
    assert f"{rate_c:.0f}\u00a0% of tokens in the candidate and {rate_b:.0f}\u00a0% in the baseline" in said
    assert (
        "Latent 1 (code) fires on 21.2\u00a0% of tokens in both, with a mean activation a token of 0.74 in the" in said
    )


def test_words_where_few_are_specific_say_how_many() -> None:
    use = gathered(*own_texts(5, n=80))
    chosen = most_changed(use, np.ones(6, dtype=bool))
    assert changed_sentence(1, 3, use, chosen, CATEGORIES).startswith(
        "Only 1 latent is specific to the baseline and 3 to the candidate: what changed besides is how much shared"
    )
    assert changed_sentence(0, 2, use, chosen, CATEGORIES).startswith(
        "Only 2 latents are specific to the candidate and none to the baseline: "
    )
    assert changed_sentence(1000, 2000, use, chosen, CATEGORIES).startswith(
        "1,000 latents are specific to the baseline and 2,000 to the candidate: "
    )


def test_words_where_nothing_differs_beyond_what_texts_vary_claim_nothing() -> None:
    baseline, _ = own_texts(6)
    use = gathered(baseline, baseline)
    assert most_changed(use, np.ones(6, dtype=bool)) == []
    said = changed_sentence(0, 0, use, [], CATEGORIES)
    assert said == (
        "No latent is specific to either model, and the mean activation of no shared latent differs by more than "
        "texts vary (q < 0.05)."
    )
    written = changed_sentence(0, 0, use, [2, 3], CATEGORIES)
    assert written == f"{said} What shared latents write differs most for latent 2 (facts) and latent 3 (logic)."


def test_words_count_the_latents_that_they_do_not_tell_of() -> None:
    rng = np.random.default_rng(7)
    baseline = texts_of(rng, 80, 6, np.full(6, 0.3))
    use = gathered(baseline, [2 * text for text in baseline])
    said = changed_sentence(0, 0, use, most_changed(use, np.ones(6, dtype=bool)), CATEGORIES)
    assert said.count("Latent") == 3
    assert said.endswith("The same is shown of 3 more.")
