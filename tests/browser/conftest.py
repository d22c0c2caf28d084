"""Pages on disk, each made once for all workers, and a browser for each file of tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from filelock import FileLock
from playwright.sync_api import Browser

from diffharness.assembly.compare import comparison
from diffharness.assembly.matrix import matrix
from diffharness.report import matrix as matrix_views
from diffharness.report.charts import Figure, figures
from diffharness.report.compare.page import render_html as comparison_page
from diffharness.report.compare.runs import read_runs
from diffharness.report.html import render_html
from diffharness.report.schema import Report
from tests.browser.large import LIMIT_LATENTS, LIMIT_TASKS, MANY_LATENTS, MANY_TASKS, large_page
from tests.browser.watch import PICTURES, browsing
from tests.report.compared import planted_run
from tests.report.example import HOSTILE, example_report, hostile_report

ROOT = Path(__file__).resolve().parents[2]
_FEW_LATENTS = 6


def kept_report() -> Report:
    """The report of the kept example."""
    return Report.model_validate_json((ROOT / "reports" / "example" / "report.json").read_text(encoding="utf-8"))


@cache
def _drawn() -> tuple[Figure, ...]:
    return figures(kept_report())


def _short() -> Report:
    """The kept report with few cards: axe-core takes minutes for a hundred of them, which are all of one kind."""
    report = kept_report()
    return report.model_copy(update={"latents": report.latents[:_FEW_LATENTS]})


def _matrix(reports: dict[str, Report]) -> str:
    quality = {"n_latents": 64, "l0": 8.0, "explained_variance": {"baseline": 0.9, "candidate-c0": 0.8}}
    found = matrix(reports, Path("nowhere"), quality=quality, names_from="the names", command="diffharness matrix")
    return matrix_views.render_html(found)


def _comparison() -> str:
    """Three runs of tasks and models with long names."""
    rng = np.random.default_rng(0)
    names = [f"organism_{name}_hallucination_management" for name in ("safety", "multilingual")]
    runs = [{name: rng.normal(i, size=(40, 3)) for name in names} for i in range(3)]
    with TemporaryDirectory() as folder:
        made = [
            planted_run(Path(folder, f"run{i}"), values, candidate=f"an-organisation/a-fine-tune-v{i}-dpo-long-name")
            for i, values in enumerate(runs)
        ]
        return comparison_page(comparison(read_runs(made), "diffharness compare"))


MADE: dict[str, Callable[[], str]] = {
    "kept": lambda: render_html(kept_report(), _drawn()),
    "short": lambda: render_html(_short(), _drawn()),
    "plain": lambda: render_html(example_report(n_tasks=len(HOSTILE), n_latents=len(HOSTILE)), drawn=()),
    "hostile": lambda: render_html(hostile_report()),
    "matrix": lambda: _matrix({f"c{i}": example_report(seed=i) for i in range(3)}),
    "hostile matrix": lambda: _matrix({f"c{i}": hostile_report() for i in range(2)}),
    "comparison": _comparison,
    "limit": lambda: large_page(LIMIT_TASKS, LIMIT_LATENTS),
    "many": lambda: large_page(MANY_TASKS, MANY_LATENTS, is_drawn=False),
}
"""What each page is made of."""


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a page by its name; drawing takes seconds, so workers that run side by side share it."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base if alone else base.parent) / "pages"
    folder.mkdir(exist_ok=True)

    def made(name: str) -> Path:
        file = folder / f"{name.replace(' ', '-')}.html"
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                file.write_text(MADE[name](), encoding="utf-8")
        return file

    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser a file of tests: Playwright's event loop must not outlive them into tests that start their own."""
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept: the folder that DIFFHARNESS_PICTURES names, or pytest's own."""
    named = os.environ.get(PICTURES)
    folder = Path(named) if named else tmp_path_factory.getbasetemp() / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
