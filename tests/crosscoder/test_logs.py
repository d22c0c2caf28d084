"""Training records reach their files and services, and a resumed training leaves no step twice."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from diffharness.crosscoder.logs import JsonLines, TensorBoard, WeightsAndBiases, describe, several
from diffharness.errors import UsageError

RECORD = {"step": 50, "n_steps": 200, "unexplained": 0.25, "l0": 31.5, "dead_share": 0.031, "tokens_per_second": 5321.0}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path, steps, **values):
    with JsonLines(path) as log:
        for step in steps:
            log({"step": step, **values})


def test_json_lines_hold_every_record_as_soon_as_it_is_written(tmp_path):
    log = JsonLines(tmp_path / "new folder" / "training.jsonl")
    log(RECORD)
    assert _lines(log.path) == [RECORD]
    log.close()
    log.close()


def test_json_lines_write_null_for_what_is_not_finite(tmp_path):
    _write(tmp_path / "log.jsonl", [1], nan=float("nan"), infinite=float("inf"), tensor=torch.tensor(0.5))
    assert _lines(tmp_path / "log.jsonl") == [{"step": 1, "nan": None, "infinite": None, "tensor": 0.5}]
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()


def test_a_resumed_training_replaces_the_lines_of_the_steps_it_repeats(tmp_path):
    path = tmp_path / "log.jsonl"
    _write(path, [10, 20, 30, 40], which=1)
    _write(path, [30, 40, 50], which=2)
    assert [(line["step"], line["which"]) for line in _lines(path)] == [(10, 1), (20, 1), (30, 2), (40, 2), (50, 2)]


def test_a_training_that_goes_on_after_the_last_line_keeps_them_all(tmp_path):
    path = tmp_path / "log.jsonl"
    _write(path, [10, 20])
    _write(path, [30])
    assert [line["step"] for line in _lines(path)] == [10, 20, 30]


@pytest.mark.parametrize("rest", ['{"step": 20, "l0": 3', "not JSON\n", "[1]\n", "{}\n"])
def test_a_line_that_was_cut_short_is_dropped(tmp_path, rest):
    path = tmp_path / "log.jsonl"
    _write(path, [10])
    path.write_text(path.read_text() + rest)
    _write(path, [30])
    assert [line["step"] for line in _lines(path)] == [10, 30]


def test_opening_a_log_alone_changes_nothing(tmp_path):
    path = tmp_path / "log.jsonl"
    _write(path, [10, 20])
    JsonLines(path).close()
    assert [line["step"] for line in _lines(path)] == [10, 20]


def test_a_log_that_can_not_be_written_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/log\.jsonl can not be written"):
        JsonLines(tmp_path / "file" / "log.jsonl")


class _Called:
    """Remembers what is called on it, in order."""

    def __init__(self, calls=None, name="", fails=False):
        self.calls = [] if calls is None else calls
        self.fails = fails

    def __getattr__(self, name):
        def call(*args, **options):
            self.calls.append((name, args, options))
            if self.fails:
                raise RuntimeError(name)
            return self

        return call

    def __call__(self, record):
        self.calls.append(("record", record, {}))


def test_tensorboard_gets_a_scalar_a_number_and_hides_repeated_steps(tmp_path, monkeypatch):
    writer = _Called()
    made = []
    stub = ModuleType("torch.utils.tensorboard")
    stub.__dict__["SummaryWriter"] = lambda **options: made.append(options) or writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stub)
    with TensorBoard(tmp_path) as log:
        log({"step": 50, "l0": 31.5, "penalty": float("nan")})
        log({"step": 100, "l0": 31.0})
    assert made == [{"log_dir": str(tmp_path), "purge_step": 50}]
    assert writer.calls == [
        ("add_scalar", ("l0", 31.5), {"global_step": 50}),
        ("add_scalar", ("l0", 31.0), {"global_step": 100}),
        ("close", (), {}),
    ]


def test_weights_and_biases_gets_records_at_their_steps_in_the_run_asked_for(monkeypatch):
    run = _Called()
    made = []
    stub = SimpleNamespace(init=lambda **options: made.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    with WeightsAndBiases("crosscoders", "seed 0", {"k": 32}, run_id="abc") as log:
        log({"step": 50, "l0": 31.5})
    log.close()
    assert made == [{"project": "crosscoders", "name": "seed 0", "config": {"k": 32}, "id": "abc", "resume": "allow"}]
    assert run.calls == [("log", ({"l0": 31.5},), {"step": 50}), ("finish", (), {})]


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        WeightsAndBiases("project", "name", {})
    with pytest.raises(UsageError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_several_logs_get_every_record_and_are_all_closed_even_where_one_fails():
    calls = []
    with pytest.raises(RuntimeError, match="close"), several(_Called(calls), _Called(calls, fails=True)) as log:
        log(RECORD)
    assert [name for name, *_ in calls] == ["record", "record", "close", "close"]


def test_a_record_in_a_few_words_leaves_out_what_it_does_not_hold():
    assert describe(RECORD) == "explained 0.750 · L0 31.5 · dead 3.1 % · 5,321 tokens/s"
    assert describe({"step": 1, "heldout_explained_variance": 0.8123}) == "held-out 0.812"
    assert describe({"step": 1, "unexplained": float("nan")}) == ""
