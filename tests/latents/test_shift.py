"""Category shift: the paper's counts, planted shifts, and the words where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.latents.shift import ShiftRow, SpecificLatents, category_shift
from diffharness.latents.taxonomy import UNCLEAR


def _side(counts: dict[str, int], masses: list[float] | None = None) -> SpecificLatents:
    categories = [name for name, count in counts.items() for _ in range(count)]
    return SpecificLatents(categories, np.array(masses if masses else np.ones(len(categories)), dtype=float))


def _rows(baseline: dict[str, int], candidate: dict[str, int], *names: str) -> dict[str, ShiftRow]:
    return {row.category: row for row in category_shift(_side(baseline), _side(candidate), names)}


def test_the_papers_counts_give_its_changes_and_too_few_to_tell() -> None:
    rows = _rows(
        {"instruction following": 1, "safety": 18, "hallucination management": 4, UNCLEAR: 89},
        {"instruction following": 2, "safety": 19, "hallucination management": 1, UNCLEAR: 67},
    )
    changes = [rows[n].change for n in ("instruction following", "safety", "hallucination management")]
    assert changes == pytest.approx([151.7, 32.8, -68.5], abs=0.05)
    for name in ("instruction following", "safety", "hallucination management"):
        assert rows[name].conclusion.startswith("too few to tell: ")
        assert "it would take about" in rows[name].conclusion
    safety = rows["safety"]
    assert (safety.n_candidate, safety.total_candidate) == (19, 89)
    assert safety.low is not None
    assert safety.high is not None
    assert safety.low < 0 < safety.high


def test_a_planted_shift_is_called_in_its_direction() -> None:
    rows = _rows({"safety": 2, "facts": 40}, {"safety": 30, "facts": 31})
    assert rows["safety"].conclusion.startswith("up: 30 of 61 latents specific to the candidate")
    assert rows["facts"].conclusion.startswith("down: ")


def test_swapping_the_sides_swaps_the_words() -> None:
    one, other = {"safety": 2, "facts": 40}, {"safety": 30, "facts": 31}
    there, back = _rows(one, other), _rows(other, one)
    assert back["safety"].conclusion.startswith("down: ")
    assert there["safety"].p_value == pytest.approx(back["safety"].p_value)


def test_a_category_without_latents_keeps_its_row_and_its_reason() -> None:
    row = _rows({"facts": 5}, {"facts": 4}, "safety")["safety"]
    assert (row.n_baseline, row.n_candidate, row.change, row.p_value) == (0, 0, None, None)
    assert row.change_reason == "no latent of this category is specific to either side"
    assert row.conclusion.startswith("too few to tell")


def test_a_count_of_zero_has_no_change_but_may_have_a_conclusion() -> None:
    rows = _rows({"facts": 40}, {"facts": 20, "safety": 20})
    assert rows["safety"].change is None
    assert "specific to the baseline" in str(rows["safety"].change_reason)
    assert rows["safety"].conclusion.startswith("up: 20 of 40")
    gone = _rows({"facts": 20, "safety": 20}, {"facts": 40})["safety"]
    assert gone.change is None
    assert "specific to the candidate" in str(gone.change_reason)
    assert gone.conclusion.startswith("down: 0 of 40")


def test_a_side_without_specific_latents_settles_nothing() -> None:
    for row in _rows({}, {"safety": 3}).values():
        assert row.change is None
        assert row.q_value is None
        assert row.mass_baseline == 0.0
        assert row.conclusion == "too few to tell: no latent at all is specific to the baseline"


def test_a_small_p_that_correction_undoes_is_said_to_be_so() -> None:
    others = {f"other {i}": 10 for i in range(10)}
    row = _rows({"safety": 1, **others}, {"safety": 9, **others})["safety"]
    assert row.p_value is not None
    assert row.q_value is not None
    assert row.p_value < 0.05 <= row.q_value
    assert "after looking at 11 categories" in row.conclusion


def test_mass_is_the_share_of_a_sides_activation() -> None:
    baseline = _side({"safety": 1, "facts": 1}, [1.0, 3.0])
    candidate = _side({"safety": 1, "facts": 1}, [8.0, 2.0])
    rows = {row.category: row for row in category_shift(baseline, candidate)}
    assert (rows["safety"].mass_baseline, rows["safety"].mass_candidate) == (0.25, 0.8)


def test_random_names_are_called_shifted_in_at_most_one_table_of_twenty() -> None:
    names = np.array(["safety", "facts", "multilingual", UNCLEAR])
    called = 0
    for repeat in range(200):
        drawn = np.random.default_rng(repeat).choice(names, size=100, p=[0.2, 0.2, 0.1, 0.5])
        sides = SpecificLatents(drawn[:45].tolist(), np.ones(45)), SpecificLatents(drawn[45:].tolist(), np.ones(55))
        called += any(not row.conclusion.startswith("too few") for row in category_shift(*sides))
    assert called / 200 <= 0.05


def test_masses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 categories with 2 masses"):
        category_shift(SpecificLatents(["safety"], np.ones(2)), _side({}))
