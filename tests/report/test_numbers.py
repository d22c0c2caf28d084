from __future__ import annotations

import pytest

from diffharness.report import numbers
from diffharness.report.schema import Interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.21, "+0.210"), (-0.032, "−0.032"), (-0.0001, "0.000"), (0.0, "0.000"), (None, "–"), (1234.5, "+1,234.500")],
)
def test_signed_numbers(value: float | None, shown: str) -> None:
    assert numbers.signed(value) == shown


def test_shares_intervals_and_p_values() -> None:
    assert numbers.percent(0.46) == "46\u00a0%"
    assert numbers.percent(-0.05) == "−5\u00a0%"
    assert numbers.interval(Interval(low=-0.1, high=0.25)) == "[−0.100, +0.250]"
    assert numbers.p_value(0.0002) == "<\u00a00.001"
    assert numbers.p_value(0.0124) == "0.012"
    assert numbers.p_words(0.0002) == "p <\u00a00.001"
    assert numbers.p_words(0.0124) == "p = 0.012"
    assert numbers.small(3.1e-5) == "3.1e−05"


@pytest.mark.parametrize(("value", "shown"), [(12.4, "12 s"), (312, "5 min 12 s"), (7380, "2 h 03 min")])
def test_durations(value: float, shown: str) -> None:
    assert numbers.seconds(value) == shown
