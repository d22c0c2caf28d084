"""Independent of the recording: what a plain forward pass says of recorded readings."""

from __future__ import annotations

import pytest
import torch

from diffharness.evaluation.ledger import Reading
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.scores import Evaluation


def log_probabilities(model: RecordingModel, reading: Reading) -> torch.Tensor:
    with torch.no_grad():
        return model.hf_model(torch.tensor([reading.ids])).logits[0].float().log_softmax(-1)


def log_likelihood(model: RecordingModel, reading: Reading) -> float:
    log_p_TV = log_probabilities(model, reading)
    return sum(float(log_p_TV[reading.start + i, t]) for i, t in enumerate(reading.targets))


def is_greedy(model: RecordingModel, reading: Reading) -> bool:
    best = log_probabilities(model, reading).argmax(-1).tolist()
    return best[reading.start : reading.start + len(reading.targets)] == list(reading.targets)


def assert_recomputable(model: RecordingModel, evaluation: Evaluation, results: dict) -> None:
    """Every answer that lm-eval returned, from the recorded ids alone; and every reading belongs to an answer."""
    n_used = 0
    for task, samples in results["samples"].items():
        readings = evaluation.ledger.by_document(task)
        for sample in samples:
            if sample["filter"] != samples[0]["filter"]:
                continue
            rows = readings[sample["doc_id"]]
            for index, answers in enumerate(sample["resps"]):
                for repeat, answer in enumerate(answers):
                    own = [r for r in rows if (r.index, r.repeat) == (index, repeat)]
                    n_used += len(own)
                    _assert_answer(model, own, answer)
    assert n_used == len(evaluation.ledger)


def _assert_answer(model: RecordingModel, rows: list[Reading], answer: object) -> None:
    for row in rows:
        assert len(row.ids) >= row.start + len(row.targets) > row.start
        assert row.ids[row.start + 1 :] == row.targets[:-1]
    if isinstance(answer, str):
        (row,) = rows
        assert row.log_likelihood is None
        assert row.greedy is None
        assert is_greedy(model, row)
        assert answer in model.tok_decode(list(row.targets))
        return
    found = [log_likelihood(model, row) for row in rows]
    for row, value in zip(rows, found, strict=True):
        assert row.log_likelihood == pytest.approx(value, abs=1e-4)
        assert row.greedy == is_greedy(model, row)
    total, greedy = answer if isinstance(answer, tuple) else (answer, None)
    assert total == pytest.approx(sum(found), abs=2e-4)
    assert greedy in (None, rows[0].greedy)
