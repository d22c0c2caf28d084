"""The benchmark of intervals measures what it says: coverage near the level, and none where an interval is off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.benchmarks.intervals import Case, cases, simulated

BY_NAME = {case.name: case for case in cases()}


@pytest.mark.parametrize("name", ["normal, n 100", "ratio (bits per byte), n 200", "normal, 30 clusters, n 210"])
def test_coverage_is_near_the_level(name: str) -> None:
    coverage, extra = simulated(BY_NAME[name], np.random.default_rng(0), 400)
    assert 0.91 <= coverage <= 0.99
    assert 0 <= extra["called approximate"] <= 1


def test_another_truth_is_not_covered() -> None:
    case = BY_NAME["normal, n 100"]

    def elsewhere(rng: np.random.Generator, n: int, k: int):
        strata, truth = case.draw(rng, n, k)
        return strata, truth + 0.5

    off: Case = dataclasses.replace(case, draw=elsewhere)
    assert simulated(off, np.random.default_rng(0), 200)[0] < 0.05


def test_the_bound_is_asked_for_where_reports_call_nothing_approximate() -> None:
    for case in BY_NAME.values():
        few = case.n < 200 or (case.n_clusters is not None and case.n_clusters < 30)
        assert not (case.bounded and few), case.name
