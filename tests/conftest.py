"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
"""Real small models and tasks; not part of the repository, so tests that use them skip where they are absent."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """Two tiny random models and a task of every output type."""
    from tests.tiny import build

    return build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_tasks(tiny):
    from diffharness.evaluation import harness

    return harness.load_tasks(["tiny"], [tiny.tasks])


@pytest.fixture(scope="session")
def tiny_models(tiny):
    from diffharness.evaluation import harness

    return tuple(harness.load_model(str(m), batch_size=4, device="cpu") for m in (tiny.baseline, tiny.candidate))


@pytest.fixture(scope="session")
def tiny_evaluations(tiny_models, tiny_tasks):
    from diffharness.evaluation import harness

    return tuple(harness.evaluate(model, tiny_tasks)[0] for model in tiny_models)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real test material."""
    if not REAL.is_dir():
        pytest.skip("the real test material is not here")
    return REAL
