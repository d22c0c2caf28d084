"""Fixtures that several rooms share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from diffharness.report.schema import Report

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning stalls a busy machine
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
def tiny_moved(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate that learned the documents of `tiny` by heart, below its last layer only: all four gaps are real."""
    from tests.tiny import fine_tune

    rows = [json.loads(line) for line in (tiny.tasks / "tiny_choice.jsonl").read_text().splitlines()]
    texts = [f"{row['prompt']} {row['choices'][row['gold']]}" for row in rows]
    texts += [f"{row['prompt']} {row['word']} <eos>" for row in rows] * 2
    return fine_tune(tmp_path_factory.mktemp("moved") / "moved", tiny.baseline, texts)


@pytest.fixture(scope="session")
def tiny_options(tiny, tiny_moved) -> dict[str, Any]:
    """Options of a run on the tiny models that takes seconds."""
    return {
        "baseline": str(tiny.baseline),
        "candidate": str(tiny_moved),
        "tasks": ["tiny"],
        "include_path": [tiny.tasks],
        "corpus": [tiny.corpus],
        "probes": tiny.probes,
        "taxonomy": tiny.taxonomy,
        "layer": "1",
        "latents": 32,
        "k": 4,
        "train_tokens": 3000,
        "batch_size": 4,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def tiny_run(tiny, tiny_options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with an ancestor, a corpus and probes on tasks of all four output types."""
    import diffharness

    output = tmp_path_factory.mktemp("runs") / "full"
    options = {**tiny_options, "ancestor": str(tiny.ancestor), "output": output}
    diffharness.run(diffharness.RunConfig.make(options))
    return output


@pytest.fixture(scope="module")
def quick_door() -> Iterator[None]:
    """lm-eval's command line without its own fourteen thousand tasks, which take it seconds to read."""
    from lm_eval.tasks import TaskManager

    whole = TaskManager.__init__

    def included_only(self: TaskManager, *args: Any, **kwargs: Any) -> None:
        whole(self, *args, **{**kwargs, "include_defaults": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskManager, "__init__", included_only)
        yield


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real test material."""
    if not REAL.is_dir():
        pytest.skip("the real test material is not here")
    return REAL


@pytest.fixture(scope="session")
def small(tiny_options) -> dict[str, Any]:
    """A run on two tasks."""
    return {**tiny_options, "tasks": ["tiny_choice", "tiny_word"], "train_tokens": 1500, "attribution_documents": 8}


@pytest.fixture(scope="session")
def first(small, tmp_path_factory) -> Path:
    """The folder of a finished small run."""
    import diffharness

    output = tmp_path_factory.mktemp("first") / "run"
    diffharness.run(diffharness.RunConfig.make({**small, "output": output}))
    return output


@pytest.fixture
def again(first, small, tmp_path) -> Callable[..., Report]:
    """Run a copy of the finished run with changed options."""
    import diffharness

    shutil.copytree(first, tmp_path / "run")

    def run(**changes: object) -> Report:
        return diffharness.run(diffharness.RunConfig.make({**small, "output": tmp_path / "run", **changes}))

    return run


@pytest.fixture
def dry(again, first, monkeypatch) -> Callable[..., Report]:
    """`again`, where every stage that runs only leaves what the finished run's left: for what is run, not for how."""
    from diffharness.pipeline import Run

    stages = json.loads((first / "manifest.json").read_text())["stages"]
    whole = Run.stage

    def copied(self: Run, name: str, title: str, made_from: Any, work: object, into: str = "", **more: Any):
        def copy(folder: Path, _report: object) -> None:
            for file in stages.get(name, {"files": []})["files"]:
                target = folder / Path(file).relative_to(into)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(first / file, target)

        return whole(self, name, title, made_from, copy, into, **more)

    monkeypatch.setattr(Run, "stage", copied)
    return again


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The stages that run, in order."""
    from diffharness.artifacts import Workspace

    names: list[str] = []
    whole = Workspace.stage

    def listed(self: Workspace, stage: str, *rest: Any, **more: Any):
        names.append(stage)
        return whole(self, stage, *rest, **more)

    monkeypatch.setattr(Workspace, "stage", listed)
    return names
