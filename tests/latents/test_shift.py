"""Category shift: the paper's counts, planted shifts, and the words where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.latents.mass import mass_shift
from diffharness.latents.shift import ShiftRow, SideLatents, acquired_mass, category_shift
from diffharness.latents.taxonomy import UNCLEAR, in_order
from diffharness.statistics.multiple import benjamini_hochberg


def _side(counts: dict[str, int], masses: list[float] | None = None) -> SideLatents:
    """Specific latents only, of mass 1 unless said otherwise."""
    categories = [name for name, count in counts.items() for _ in range(count)]
    acquired = np.array(masses if masses else np.ones(len(categories)), dtype=float)
    return SideLatents(categories, np.ones(len(categories), dtype=bool), acquired)


def _rows(baseline: SideLatents, candidate: SideLatents, *names: str, **more) -> dict[str, ShiftRow]:
    more = {"n_draws": 200, **more}
    found = category_shift(baseline, candidate, np.random.default_rng(0), names, **more)
    return {row.category: row for row in found}


def _counted(baseline: dict[str, int], candidate: dict[str, int], *names: str) -> dict[str, ShiftRow]:
    return _rows(_side(baseline), _side(candidate), *names)


def test_the_papers_counts_give_its_changes_and_too_few_to_tell() -> None:
    names = ("instruction following", "safety", "hallucination management")
    rows = _counted(
        {"instruction following": 1, "safety": 18, "hallucination management": 4, UNCLEAR: 89},
        {"instruction following": 2, "safety": 19, "hallucination management": 1, UNCLEAR: 67},
    )
    assert [rows[name].change for name in names] == pytest.approx([151.7, 32.8, -68.5], abs=0.05)
    assert [rows[name].p_value for name in names] == pytest.approx([0.59, 0.36, 0.39], abs=0.006)
    for name in names:
        assert rows[name].conclusion.startswith("too few to tell: ")
        assert "it would take about" in rows[name].conclusion
        low, high = rows[name].low, rows[name].high
        assert low is not None
        assert high is not None
        assert low < 0 < high
    safety = rows["safety"]
    assert (safety.n_candidate, safety.total_candidate) == (19, 89)
    assert (safety.n_baseline, safety.total_baseline) == (18, 112)


def test_only_specific_latents_count_and_all_have_mass() -> None:
    baseline = SideLatents(["safety", "facts", "safety"], np.array([True, True, False]), np.array([1.0, 1.0, 2.0]))
    candidate = SideLatents(["safety", "facts"], np.array([False, True]), np.array([9.0, 1.0]))
    rows = _rows(baseline, candidate)
    assert baseline.specific == ["safety", "facts"]
    assert candidate.specific == ["facts"]
    safety = rows["safety"]
    assert (safety.n_baseline, safety.total_baseline, safety.n_candidate, safety.total_candidate) == (1, 2, 0, 1)
    assert (safety.mass_baseline, safety.mass_candidate) == (0.75, 0.9)
    assert safety.mass_change == pytest.approx(15)


def test_a_planted_shift_is_called_in_its_direction() -> None:
    rows = _counted({"safety": 2, "facts": 40}, {"safety": 30, "facts": 31})
    assert rows["safety"].conclusion.startswith("up: 30 of 61 latents specific to the candidate")
    assert rows["facts"].conclusion.startswith("down: ")
    assert rows["safety"].low is not None
    assert rows["safety"].low > 0


def test_swapping_the_sides_swaps_the_words() -> None:
    one, other = {"safety": 2, "facts": 40}, {"safety": 30, "facts": 31}
    there, back = _counted(one, other), _counted(other, one)
    assert back["safety"].conclusion.startswith("down: ")
    assert there["safety"].p_value == pytest.approx(back["safety"].p_value)
    assert there["safety"].mass_change == pytest.approx(-back["safety"].mass_change)


def test_named_categories_without_latents_keep_their_rows_and_their_reasons() -> None:
    rows = _counted({"facts": 5}, {"facts": 4}, "safety", "own category", "facts")
    assert list(rows) == list(in_order(["safety", "facts", "own category", UNCLEAR]))
    assert list(rows)[-1] == UNCLEAR
    for name in ("safety", "own category", UNCLEAR):
        row = rows[name]
        assert (row.n_baseline, row.n_candidate, row.change, row.p_value, row.q_value) == (0, 0, None, None, None)
        assert (row.total_baseline, row.total_candidate) == (5, 4)
        assert row.change_reason == "no latent of this category is specific to either side"
        assert row.conclusion == f"too few to tell: {row.change_reason}"
        assert (row.mass_baseline, row.mass_candidate, row.mass_p_value) == (0, 0, None)
        assert row.mass_conclusion == "too few to tell: neither model acquired any of it"


def test_a_category_of_shared_latents_alone_has_a_row_and_shares_sum_to_one() -> None:
    half = SideLatents(["safety", "facts"], np.array([True, False]), np.array([1.0, 1.0]))
    rows = _rows(half, half)
    assert "facts" in rows
    assert sum(row.mass_candidate for row in rows.values()) == pytest.approx(1)


def test_a_count_of_zero_has_no_change_but_may_have_a_conclusion() -> None:
    rows = _counted({"facts": 40}, {"facts": 20, "safety": 20})
    assert rows["safety"].change is None
    assert "specific to the baseline" in str(rows["safety"].change_reason)
    assert rows["safety"].conclusion.startswith("up: 20 of 40")
    gone = _counted({"facts": 20, "safety": 20}, {"facts": 40})["safety"]
    assert gone.change is None
    assert "specific to the candidate" in str(gone.change_reason)
    assert gone.conclusion.startswith("down: 0 of 40")


@pytest.mark.parametrize("empty", ["baseline", "candidate"])
def test_a_side_without_specific_latents_settles_nothing(empty: str) -> None:
    sides = _side({}), _side({"safety": 3})
    for row in _rows(*(sides if empty == "baseline" else sides[::-1])).values():
        assert row.change is None
        assert row.q_value is None
        assert row.conclusion == f"too few to tell: no latent at all is specific to the {empty}"


def test_a_side_whose_latents_are_all_shared_settles_nothing_by_counts_but_has_its_mass() -> None:
    shared = SideLatents(["safety", "facts"], np.zeros(2, dtype=bool), np.array([3.0, 1.0]))
    rows = _rows(shared, _side({"safety": 1, "facts": 1}))
    assert rows["safety"].conclusion == "too few to tell: no latent at all is specific to the baseline"
    assert (rows["safety"].mass_baseline, rows["safety"].mass_candidate) == (0.75, 0.5)


def test_no_latents_at_all_is_a_table_all_the_same() -> None:
    rows = _rows(_side({}), _side({}), "safety")
    assert list(rows) == ["safety", UNCLEAR]
    for row in rows.values():
        assert row.conclusion.startswith("too few to tell")
        assert row.mass_conclusion.startswith("too few to tell")
        assert (row.mass_change, row.mass_low, row.mass_high) == (0, 0, 0)


def test_a_small_p_that_correction_undoes_is_said_to_be_so() -> None:
    others = {f"other {i}": 10 for i in range(10)}
    row = _counted({"safety": 1, **others}, {"safety": 9, **others})["safety"]
    assert row.p_value is not None
    assert row.q_value is not None
    assert row.p_value < 0.05 <= row.q_value
    assert "after looking at 11 categories" in row.conclusion


def test_q_values_are_over_the_categories_that_could_be_tested() -> None:
    rows = _counted({"safety": 2, "facts": 40}, {"safety": 30, "facts": 31}, "code", "science").values()
    expected = benjamini_hochberg([row.p_value for row in rows])
    for row, q_value in zip(rows, expected, strict=True):
        assert (row.q_value is None) == np.isnan(q_value)
        assert row.q_value is None or row.q_value == pytest.approx(q_value)


@pytest.mark.parametrize("one_dictionary", [True, False])
def test_masses_are_those_of_the_mass_shift_in_points(one_dictionary: bool) -> None:
    rng = np.random.default_rng(2)
    categories = rng.choice(["safety", "facts", UNCLEAR], 40).tolist()
    baseline, candidate = (SideLatents(categories, rng.random(40) < 0.5, rng.exponential(size=40)) for _ in range(2))
    found = category_shift(baseline, candidate, np.random.default_rng(9), one_dictionary=one_dictionary, n_draws=300)
    masses = mass_shift(
        baseline,
        candidate,
        [row.category for row in found],
        np.random.default_rng(9),
        one_dictionary=one_dictionary,
        n_draws=300,
    )
    for row, mass in zip(found, masses, strict=True):
        assert (row.mass_baseline, row.mass_candidate) == (mass.baseline, mass.candidate)
        assert row.mass_change == pytest.approx(100 * (mass.candidate - mass.baseline))
        assert (row.mass_low, row.mass_high) == pytest.approx((100 * mass.low, 100 * mass.high))
        assert (row.mass_p_value, row.mass_q_value) == (mass.p_value, mass.q_value)
        assert row.mass_conclusion == mass.conclusion


def test_matched_are_the_counted_latents_that_the_other_seeds_have_too() -> None:
    baseline = SideLatents(
        ["safety", "safety", "safety", "facts"],
        np.array([True, True, False, True]),
        np.ones(4),
        np.array([True, False, True, False]),
    )
    candidate = SideLatents(["safety", "facts"], np.array([True, True]), np.ones(2))
    rows = _rows(baseline, candidate, "code")
    assert [rows[name].n_matched_baseline for name in ("safety", "facts", "code", UNCLEAR)] == [1, 0, 0, 0]
    assert rows["safety"].n_baseline == 2
    assert {row.n_matched_candidate for row in rows.values()} == {None}
    assert candidate.n_matched("safety") is None


def test_acquired_mass_is_what_the_tuned_model_holds_beyond_the_other_and_never_less_than_nothing() -> None:
    presence_LM = np.array([[1.0, 4.0], [4.0, 1.0], [0.0, 5.0], [2.0, 2.0], [-1.0, 2.0]])
    np.testing.assert_array_equal(acquired_mass(presence_LM, 1), [3, 0, 5, 0, 3])
    np.testing.assert_array_equal(acquired_mass(presence_LM, 0), [0, 3, 0, 0, 0])
    np.testing.assert_array_equal(acquired_mass(presence_LM[:, ::-1], 0), acquired_mass(presence_LM, 1))


def test_random_names_are_called_shifted_in_at_most_one_table_of_twenty() -> None:
    names = np.array(["safety", "facts", "multilingual", UNCLEAR])
    called = by_mass = 0
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        drawn = rng.choice(names, size=100, p=[0.2, 0.2, 0.1, 0.5])
        sides = (
            SideLatents(part.tolist(), np.ones(len(part), dtype=bool), rng.exponential(size=len(part)))
            for part in (drawn[:45], drawn[45:])
        )
        rows = category_shift(*sides, rng, n_draws=199)
        called += any(not row.conclusion.startswith("too few") for row in rows)
        by_mass += any(not row.mass_conclusion.startswith("too few") for row in rows)
    assert called <= 10
    assert by_mass <= 18  # as many of 200 as come of one in twenty in 99 of 100 such runs


def test_the_same_draws_give_the_same_table() -> None:
    sides = _side({"safety": 4, "facts": 9}), _side({"safety": 7, "facts": 5})
    assert _rows(*sides) == _rows(*sides)


@pytest.mark.parametrize(
    "side",
    [
        SideLatents(["safety"], np.ones(1, dtype=bool), np.ones(2)),
        SideLatents(["safety"], np.ones(2, dtype=bool), np.ones(1)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(side: SideLatents) -> None:
    for sides in ((side, _side({})), (_side({}), side)):
        with pytest.raises(ValueError, match="1 categories with"):
            category_shift(*sides, np.random.default_rng(0))
