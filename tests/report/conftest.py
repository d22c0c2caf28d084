"""The example reports and their pages, made once."""

from __future__ import annotations

import pytest

from diffharness.report.charts import Figure, figures
from diffharness.report.html import render_html
from diffharness.report.schema import Report
from tests.report.example import example_report, hostile_report


@pytest.fixture(scope="session")
def report() -> Report:
    return example_report()


@pytest.fixture(scope="session")
def hostile() -> Report:
    return hostile_report()


@pytest.fixture(scope="session")
def drawn(report: Report) -> tuple[Figure, ...]:
    return figures(report)


@pytest.fixture(scope="session")
def page(report: Report, drawn: tuple[Figure, ...]) -> str:
    return render_html(report, drawn)


@pytest.fixture(scope="session")
def hostile_page(hostile: Report) -> str:
    return render_html(hostile)
