"""What could have been seen, against the reference's table and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from diffharness.statistics.discordant import mcnemar_mid_p, tango_interval
from diffharness.statistics.paired import paired_difference, verdict
from diffharness.statistics.power import documents_to_settle, smallest_detectable


@pytest.mark.parametrize(("n", "points"), [(164, 9.8), (1000, 4.0), (5000, 1.8), (14042, 1.1)])
def test_the_references_table_for_a_fifth_of_documents_that_differ(n: int, points: float) -> None:
    assert 100 * smallest_detectable((0.2 / n) ** 0.5) == pytest.approx(points, abs=0.06)


def test_mcnemars_test_finds_the_smallest_detectable_gap_in_four_of_five() -> None:
    n, share = 400, 0.2
    gap = smallest_detectable((share / n) ** 0.5)
    rng = np.random.default_rng(0)
    up, down, _ = rng.multinomial(n, [(share + gap) / 2, (share - gap) / 2, 1 - share], size=1500).T
    found = np.mean([mcnemar_mid_p(int(b), int(c)) < 0.05 for b, c in zip(up, down, strict=True)])
    assert found == pytest.approx(0.8, abs=0.04)


def test_students_test_finds_the_smallest_detectable_mean_in_four_of_five() -> None:
    n, rng = 25, np.random.default_rng(1)
    values = rng.normal(smallest_detectable(n**-0.5, freedom=n - 1), 1.0, size=(4000, n))
    t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / n**0.5)
    assert np.mean(np.abs(t) > 2.0639) == pytest.approx(0.8, abs=0.025)


def test_the_detectable_gap_of_a_row_is_that_of_its_documents_or_clusters() -> None:
    rng = np.random.default_rng(2)
    difference = rng.normal(size=300)
    alone = paired_difference(np.zeros(300), difference, rng)
    assert alone.detectable == pytest.approx(2.8 * difference.std(ddof=1) / 300**0.5, rel=0.02)
    effects = rng.normal(size=60)
    names = np.repeat(np.arange(60), 5)
    grouped = paired_difference(np.zeros(300), np.repeat(effects, 5), rng, clusters=names)
    assert grouped.detectable == pytest.approx(2.8 * effects.std(ddof=1) / 60**0.5, rel=0.04)
    assert grouped.n_clusters == 60
    binary = paired_difference([0.0] * 100, [1.0] * 10 + [0.0] * 90, rng)
    assert binary.detectable == pytest.approx(2.8016 * (0.1 / 100) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(("n_up", "n_down", "n"), [(9, 3, 100), (30, 22, 150), (6, 6, 200), (12, 10, 400)])
def test_so_many_documents_settle_a_row_of_right_and_wrong(n_up: int, n_down: int, n: int) -> None:
    base, cand = np.zeros(n), np.zeros(n)
    cand[:n_up] = 1
    base[n_up : n_up + n_down] = 1
    row = paired_difference(base, cand, np.random.default_rng(0))
    assert verdict(row.gap, row.low, row.high, 0.02) == "inconclusive"
    wanted = documents_to_settle(row.gap, row.low, row.high, n, 0.02, standard_error=row.standard_error)
    assert wanted is not None
    times = wanted / n
    later = tango_interval(round(n_up * times), round(n_down * times), wanted)
    earlier = tango_interval(round(n_up * times * 0.8), round(n_down * times * 0.8), round(0.8 * wanted))
    slack = 0.05 * abs(later[1] - later[0])
    assert verdict(row.gap, later[0] + np.sign(row.gap) * slack, later[1] - slack, 0.02) != "inconclusive"
    assert verdict(row.gap, *earlier, 0.02) == "inconclusive"


def test_documents_without_a_difference_are_settled_by_their_number() -> None:
    wanted = documents_to_settle(0.0, *tango_interval(0, 0, 60), 60, 0.02, standard_error=0.0)
    assert wanted is not None
    assert tango_interval(0, 0, wanted)[1] <= 0.02 < tango_interval(0, 0, wanted - 1)[1]


def test_no_number_where_nothing_tells() -> None:
    assert documents_to_settle(0.0, 0.0, 0.0, 50, 0.02, standard_error=None) is None
    assert documents_to_settle(0.0, -0.1, 0.1, 50, 0.0, standard_error=0.01) is None
