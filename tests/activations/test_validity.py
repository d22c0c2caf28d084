import dataclasses

import pytest
import torch

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.validity import (
    TOLERANCES,
    Agreement,
    agreement,
    sampled_readings,
    tolerance_of,
    withheld_reason,
)

TASKS = ("tiny_choice", "tiny_word", "tiny_text", "tiny_answer")


def check(model, readings, *, shift: float = 0.0, upper=None, sums=None) -> Agreement:
    reader = LayerReader(model.hf_model, 1)

    def state_of(ids):
        return reader.read(torch.tensor([ids]))[0] * (1 + shift)

    upper = UpperStack((upper or model).hf_model, 1)
    return agreement(upper, state_of, readings, greedy=True, tolerance=TOLERANCES["exact"], sums=sums)


def readings_of(evaluation, task):
    return sampled_readings([r for r in evaluation.ledger if r.task == task], 8)


@pytest.mark.parametrize("task", TASKS)
def test_replay_of_the_scored_weights_gives_lm_evals_answers(tiny_models, tiny_evaluations, task):
    found = check(tiny_models[0], readings_of(tiny_evaluations[0], task))
    assert found.holds
    assert found.n_sequences == 8
    if task == "tiny_answer":
        assert found.maximum is None
        assert found.n_decisions > 8
    else:
        assert found.n_requests >= 8
        assert found.maximum is not None
        assert found.maximum < 1e-4
    assert found.n_changed == 0


@pytest.mark.parametrize("task", TASKS)
def test_other_weights_are_found(tiny_models, tiny_evaluations, task):
    found = check(tiny_models[0], readings_of(tiny_evaluations[0], task), upper=tiny_models[1])
    assert not found.holds


def test_a_rolling_text_is_compared_by_its_sum_where_windows_are_not_known(tiny_models, tiny_evaluations):
    readings = readings_of(tiny_evaluations[0], "tiny_text")
    sums: dict[int, float] = {}
    for reading in readings:
        assert reading.log_likelihood is not None
        sums[reading.doc_id] = sums.get(reading.doc_id, 0.0) + reading.log_likelihood
    unknown = [dataclasses.replace(r, log_likelihood=None, greedy=None) for r in readings]
    assert check(tiny_models[0], unknown).is_empty
    found = check(tiny_models[0], unknown, sums=sums)
    assert found.n_requests == len(sums) == 4, "two windows each"
    assert found.maximum is not None
    assert found.maximum < 1e-4
    assert not check(tiny_models[0], unknown, sums={d: s - 20 for d, s in sums.items()}).holds


def test_damaged_states_are_found(tiny_models, tiny_evaluations):
    assert not check(tiny_models[0], readings_of(tiny_evaluations[0], "tiny_choice"), shift=0.2).holds


def test_sampled_sequences_are_spread_and_distinct(tiny_evaluations):
    readings = [r for r in tiny_evaluations[0].ledger if r.task == "tiny_choice"]
    some = sampled_readings(readings, 5)
    places = sorted({[r.ids for r in readings].index(s.ids) for s in some})
    assert len({r.ids for r in some}) == 5
    assert places[0] == 0
    assert places[-1] >= len(readings) - 2


def test_the_least_precise_dtype_decides():
    assert tolerance_of(["torch.float32", "float32"]) == TOLERANCES["exact"]
    assert tolerance_of(["torch.float32", "bfloat16"]) == TOLERANCES["half"]
    assert tolerance_of(["torch.float32"], quantised=True) == TOLERANCES["half"]


def test_the_reason_names_task_side_and_figures():
    good = Agreement(64, 64, 1e-6, 1e-5, 64, 0, TOLERANCES["exact"])
    bad = dataclasses.replace(good, median=0.3, maximum=2.5, n_changed=20)
    assert withheld_reason({("a", "baseline"): good}) is None
    reason = withheld_reason({("a", "baseline"): good, ("b", "candidate"): bad})
    assert reason is not None
    assert "the candidate's weights" in reason
    assert "on b, log-probabilities differ by 2.5 nats" in reason
    assert "20 of 64" in reason
    assert "1 of 2 comparisons fail" in reason
