"""Shares of acquired mass by hand, the test on sides drawn by lot, and planted shifts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from diffharness.latents import mass as room
from diffharness.latents.mass import MassShift, mass_shift

NAMES = ("safety", "facts", "code")
SHARES = (0.3, 0.2, 0.5)


@dataclass(frozen=True)
class Side:
    categories: list[str]
    acquired: NDArray[np.float64]


def side(*latents: tuple[str, float]) -> Side:
    return Side([name for name, _ in latents], np.array([mass for _, mass in latents], dtype=np.float64))


def compare(baseline: Side, candidate: Side, *names: str, seed: int = 0, **more) -> dict[str, MassShift]:
    names = names or NAMES
    found = mass_shift(baseline, candidate, names, np.random.default_rng(seed), **more)
    return dict(zip(names, found, strict=True))


def dealt(mass_I2: NDArray[np.float64], categories: NDArray, one_dictionary: bool) -> tuple[Side, Side]:
    """Masses on both sides as sides: of one dictionary, or of two, where every latent has mass on one side only."""
    if one_dictionary:
        return Side(categories.tolist(), mass_I2[:, 0]), Side(categories.tolist(), mass_I2[:, 1])
    first_I = mass_I2[:, 0] > 0
    return (
        Side(categories[first_I].tolist(), mass_I2[first_I, 0]),
        Side(categories[~first_I].tolist(), mass_I2[~first_I, 1]),
    )


def test_shares_are_those_of_a_sides_own_mass() -> None:
    baseline = side(("safety", 1.0), ("facts", 2.0), ("safety", 1.0))
    candidate = side(("safety", 6.0), ("facts", 3.0), ("code", 1.0), ("code", 0.0))
    found = compare(baseline, candidate)
    assert [(f.baseline, f.candidate) for f in found.values()] == [(0.5, 0.6), (0.5, 0.3), (0.0, 0.1)]
    assert sum(f.baseline for f in found.values()) == pytest.approx(1)
    assert sum(f.candidate for f in found.values()) == pytest.approx(1)


def test_in_one_dictionary_a_latent_has_a_mass_on_either_side() -> None:
    baseline = side(("safety", 1.0), ("facts", 3.0), ("code", 0.0))
    candidate = side(("safety", 8.0), ("facts", 0.0), ("code", 2.0))
    found = compare(baseline, candidate, one_dictionary=True)
    assert [(f.baseline, f.candidate) for f in found.values()] == [(0.25, 0.8), (0.75, 0.0), (0.0, 0.2)]


def test_categories_that_were_not_asked_for_count_in_the_whole_all_the_same() -> None:
    found = compare(side(("safety", 1.0), ("other", 3.0)), side(("safety", 2.0), ("other", 2.0)), "safety")
    assert (found["safety"].baseline, found["safety"].candidate) == (0.25, 0.5)


@pytest.mark.parametrize("one_dictionary", [True, False])
def test_p_values_are_those_of_all_ways_to_deal_out_the_categories(one_dictionary: bool) -> None:
    """Eight latents have 40,320 orders; the drawn ones tell their share to within Monte-Carlo error."""
    rng = np.random.default_rng(5)
    categories, mass_I2 = rng.choice(NAMES, 8), rng.lognormal(size=(8, 2))
    if not one_dictionary:
        mass_I2[np.arange(8), rng.permutation(np.repeat([0, 1], 4))] = 0
    baseline, candidate = dealt(mass_I2, categories, one_dictionary)
    found = compare(baseline, candidate, one_dictionary=one_dictionary, n_draws=8000)
    totals = mass_I2.sum(axis=0)
    orders = np.array(list(itertools.permutations(range(8))))
    for name in NAMES:
        own_I = categories == name
        share_R2 = mass_I2[orders][:, own_I].sum(axis=1) / totals
        changes = share_R2[:, 1] - share_R2[:, 0]
        assert changes[0] == pytest.approx(found[name].candidate - found[name].baseline)
        exact = np.mean(np.abs(changes) >= abs(changes[0]) - 1e-9)
        assert found[name].p_value == pytest.approx(exact, abs=0.025)


def false_calls(
    one_dictionary: bool, spread: float, n_repeats: int = 400, n: int = 80, odds: float = 0.5
) -> NDArray[np.int64]:
    """How often p ≤ 0.05 by category, where sides are drawn by lot.

    In two dictionaries a latent is the candidate's with the chance `odds`; in one, its two masses are exchanged so.
    """
    calls = np.zeros(len(NAMES), dtype=np.int64)
    for seed in range(n_repeats):
        rng = np.random.default_rng(seed)
        categories, mass_I2 = rng.choice(NAMES, n, p=SHARES), rng.lognormal(0, spread, (n, 2))
        if not one_dictionary:
            mass_I2[:, 1] = 0
        swap_I = rng.random(n) < odds
        mass_I2[swap_I] = mass_I2[swap_I, ::-1]
        baseline, candidate = dealt(mass_I2, categories, one_dictionary)
        found = compare(baseline, candidate, seed=seed + 10_000, one_dictionary=one_dictionary, n_draws=99)
        calls += [f.p_value is not None and f.p_value <= 0.05 for f in found.values()]
    return calls


def highest(n_repeats: int) -> int:
    """As many false calls of a test at 5 % as come about once in a thousand times."""
    return int(stats.binom.ppf(0.999, n_repeats, 0.05))


@pytest.mark.parametrize("spread", [0.5, 3.0], ids=["masses alike", "a few latents have nearly all"])
@pytest.mark.parametrize("one_dictionary", [True, False])
def test_where_sides_are_drawn_by_lot_one_test_of_twenty_is_below_one_in_twenty(
    one_dictionary: bool, spread: float
) -> None:
    calls = false_calls(one_dictionary, spread)
    assert (calls <= highest(400)).all(), calls
    assert (calls >= 5).any(), calls  # the test is not merely silent


def test_where_one_side_has_many_more_latents_the_test_keeps_its_level() -> None:
    calls = false_calls(one_dictionary=False, spread=0.5, n=220, odds=0.09, n_repeats=200)
    assert (calls <= highest(200)).all(), calls


def test_where_one_model_acquired_ten_times_as_much_a_planted_shift_is_still_seen() -> None:
    baseline, candidate = planted(one_dictionary=True)
    found = compare(baseline, Side(candidate.categories, 10 * candidate.acquired), one_dictionary=True)
    assert found["safety"].conclusion.startswith("up: ")


def planted(one_dictionary: bool, seed: int = 0, n: int = 200) -> tuple[Side, Side]:
    """Of the first category the candidate acquired three times as much as the baseline, of the others the same."""
    rng = np.random.default_rng(seed)
    categories = rng.choice(NAMES, n, p=SHARES)
    other = categories if one_dictionary else rng.choice(NAMES, n, p=SHARES)
    base_I, candidate_I = rng.lognormal(0, 0.5, (2, n))
    candidate_I[other == NAMES[0]] *= 3
    return Side(categories.tolist(), base_I), Side(other.tolist(), candidate_I)


@pytest.mark.parametrize("one_dictionary", [True, False])
def test_a_planted_shift_is_called_in_its_direction(one_dictionary: bool) -> None:
    baseline, candidate = planted(one_dictionary)
    there = compare(baseline, candidate, one_dictionary=one_dictionary)
    assert there["safety"].conclusion.startswith("up: ")
    assert there["code"].conclusion.startswith("down: ")
    assert there["safety"].low > 0
    back = compare(candidate, baseline, one_dictionary=one_dictionary)
    assert back["safety"].conclusion.startswith("down: ")
    assert back["safety"].high < 0


def test_a_conclusion_tells_the_shares_and_q() -> None:
    safety = compare(*planted(one_dictionary=True), one_dictionary=True)["safety"]
    assert safety.q_value is not None
    assert safety.conclusion == (
        f"up: {100 * safety.candidate:.1f} % of what the candidate acquired against "
        f"{100 * safety.baseline:.1f} % of what the baseline did (q = {safety.q_value:.2g})"
    )
    alike = compare(side(("safety", 1.0), ("facts", 1.0)), side(("safety", 1.0), ("facts", 1.0)))["safety"]
    assert alike.conclusion == (
        "too few to tell: 50.0 % of what the candidate acquired against 50.0 % of what the baseline did (p = 1, q = 1)"
    )


def test_latents_told_apart_in_one_dictionary_show_what_two_dictionaries_can_not() -> None:
    """A little more of every latent of a category: beside each other it shows, as two piles of unequal latents not."""
    rng = np.random.default_rng(3)
    categories = rng.choice(NAMES, 120, p=SHARES)
    base_I = rng.lognormal(0, 1.5, 120)
    candidate_I = base_I * np.where(categories == "safety", 1.5, 1.0)
    sides = Side(categories.tolist(), base_I), Side(categories.tolist(), candidate_I)
    one, two = compare(*sides, one_dictionary=True), compare(*sides)
    assert one["safety"].candidate == two["safety"].candidate
    assert one["safety"].p_value is not None
    assert two["safety"].p_value is not None
    assert one["safety"].p_value < 0.05 < two["safety"].p_value
    widths = [found["safety"].high - found["safety"].low for found in (one, two)]
    assert widths[0] < widths[1] / 2


@pytest.mark.parametrize("one_dictionary", [True, False])
def test_intervals_contain_the_change_and_narrow_with_the_number_of_latents(one_dictionary: bool) -> None:
    widths = []
    for n in (50, 200, 800):
        found = compare(*planted(one_dictionary, n=n), one_dictionary=one_dictionary)
        for f in found.values():
            assert f.low < f.candidate - f.baseline < f.high
        widths.append(np.mean([f.high - f.low for f in found.values()]))
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.3)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.3)


@pytest.mark.parametrize("one_dictionary", [True, False])
def test_intervals_cover_the_planted_change_about_as_often_as_they_say(one_dictionary: bool) -> None:
    weight = np.array(SHARES) * (3, 1, 1)
    truth, n_repeats, hits = weight[0] / weight.sum() - SHARES[0], 200, 0
    for seed in range(n_repeats):
        sides = planted(one_dictionary, seed)
        found = compare(*sides, "safety", one_dictionary=one_dictionary, n_draws=200)["safety"]
        hits += found.low <= truth <= found.high
    assert 0.89 * n_repeats <= hits < n_repeats, hits


def test_latents_without_mass_change_nothing() -> None:
    baseline, candidate = planted(one_dictionary=True, n=40)
    more = Side([*baseline.categories, "facts", "code"], np.append(baseline.acquired, [0.0, 0.0]))
    other = Side(more.categories, np.append(candidate.acquired, [0.0, 0.0]))
    assert compare(more, other, one_dictionary=True) == compare(baseline, candidate, one_dictionary=True)


def test_blocks_of_draws_are_the_draws(monkeypatch) -> None:
    sides = planted(one_dictionary=True, n=40)
    monkeypatch.setattr(room, "_BLOCK_VALUES", 40 * 7)
    found = compare(*sides, one_dictionary=True, n_draws=100)
    monkeypatch.setattr(room, "_BLOCK_VALUES", 1)
    again = compare(*sides, one_dictionary=True, n_draws=100)
    for name in NAMES:
        assert found[name].p_value is not None
        assert found[name].p_value == pytest.approx(again[name].p_value, abs=0.1)
        assert found[name].low == pytest.approx(again[name].low, abs=0.1)


def test_the_smallest_p_value_is_one_in_all_draws() -> None:
    baseline, candidate = side(*[("safety", 1.0)] * 60), side(*[("facts", 1.0)] * 60)
    found = compare(baseline, candidate, n_draws=199)
    assert found["safety"].p_value == found["facts"].p_value == pytest.approx(1 / 200)
    assert found["safety"].q_value == pytest.approx(1 / 200)  # a category without mass is no test


def test_a_category_of_which_nobody_acquired_anything_has_no_p_value() -> None:
    found = compare(side(("safety", 1.0), ("code", 0.0)), side(("safety", 2.0), ("code", 0.0)))
    for name in ("facts", "code"):
        assert (found[name].p_value, found[name].q_value) == (None, None)
        assert (found[name].baseline, found[name].candidate, found[name].low, found[name].high) == (0, 0, 0, 0)
        assert found[name].conclusion == "too few to tell: neither model acquired any of it"
    assert found["safety"].p_value == 1


@pytest.mark.parametrize("one_dictionary", [True, False])
@pytest.mark.parametrize("latents", [(), (("safety", 0.0), ("facts", 0.0))], ids=["no latents", "no mass"])
def test_without_any_latent_or_any_mass_nothing_is_told(latents, one_dictionary: bool) -> None:
    for found in compare(side(*latents), side(*latents), one_dictionary=one_dictionary).values():
        assert found == MassShift(0, 0, 0, 0, None, None, "too few to tell: neither model acquired any of it")


@pytest.mark.parametrize("empty", ["no latents", "no mass"])
def test_where_one_model_acquired_nothing_nothing_is_called(empty: str) -> None:
    full = side(*[(name, 1.0) for name in NAMES] * 20)
    none = side() if empty == "no latents" else Side(full.categories, np.zeros(60))
    for sides in ((none, full), (full, none)):
        for found in compare(*sides, one_dictionary=empty == "no mass").values():
            assert found.conclusion.startswith("too few to tell")


def test_no_names_no_rows() -> None:
    sides = planted(one_dictionary=True, n=20)
    assert mass_shift(*sides, (), np.random.default_rng(0), one_dictionary=True) == ()


def test_one_dictionary_with_other_categories_on_either_side_is_refused() -> None:
    one, other = side(("safety", 1.0), ("facts", 1.0)), side(("facts", 1.0), ("safety", 1.0))
    compare(one, other)
    with pytest.raises(ValueError, match="latents of one dictionary have the same categories on both sides"):
        compare(one, other, one_dictionary=True)
