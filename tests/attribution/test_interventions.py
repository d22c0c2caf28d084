import numpy as np
import pytest
import torch

from diffharness.activations.capture import LayerReader
from diffharness.attribution.interventions import put_back
from diffharness.evaluation import harness
from tests.attribution.test_path import LAYER, random_crosscoder, states_of, with_state


@pytest.fixture(scope="module")
def setting(tiny_models):
    return tiny_models[1], LayerReader(tiny_models[0].hf_model, LAYER), random_crosscoder()


def test_nothing_put_back_reproduces_every_score_to_the_byte(setting, tiny_tasks, tiny_evaluations):
    model, reader, crosscoder = setting
    with put_back(model.hf_model, reader, crosscoder, np.array([], dtype=int)):
        evaluation, _ = harness.evaluate(model, tiny_tasks)
    assert evaluation.documents == tiny_evaluations[1].documents
    assert evaluation.ledger == tiny_evaluations[1].ledger


def test_state_becomes_h_minus_the_latents_difference(setting):
    model, reader, crosscoder = setting
    ids = torch.tensor([[1, 5, 9, 12, 7, 8]])
    chosen = np.array([0, 3, 5, 11, 17])
    x_b, x_c = (
        m(ids, output_hidden_states=True).hidden_states[LAYER + 1].detach() for m in (reader.model, model.hf_model)
    )
    decoder = crosscoder.raw_decoder()
    expected = x_c.clone()
    for t in range(1, ids.shape[1]):
        f = crosscoder.encode(torch.stack([x_b[0, t], x_c[0, t]])[None])[0]
        for j in chosen:
            expected[0, t] -= f[j] * (decoder[j, 1] - decoder[j, 0])
    assert float((expected - x_c).abs().max()) > 1e-3
    with torch.no_grad():
        wanted = with_state(model.hf_model, ids[0].tolist(), expected)
        with put_back(model.hf_model, reader, crosscoder, chosen):
            found = model.hf_model(ids).logits[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_model_is_restored_afterwards(setting):
    model, reader, crosscoder = setting
    ids = torch.tensor([[1, 5, 9, 12]])
    before = model.hf_model(ids).logits
    with put_back(model.hf_model, reader, crosscoder, np.arange(24)):
        changed = model.hf_model(ids).logits
    assert float((changed - before).abs().max()) > 1e-3
    torch.testing.assert_close(model.hf_model(ids).logits, before, rtol=0, atol=0)


def test_generation_step_by_step_agrees_with_reading_the_answer_at_once(setting, tiny_tasks):
    model, reader, crosscoder = setting
    with put_back(model.hf_model, reader, crosscoder, np.arange(24)):
        evaluation, _ = harness.evaluate(model, tiny_tasks, only=["tiny_answer"])
        for reading in evaluation.ledger:
            with torch.no_grad():
                best = model.hf_model(torch.tensor([reading.ids])).logits[0].argmax(-1).tolist()
            assert best[reading.start :] == list(reading.targets)


def test_states_helper_reads_the_layer(tiny_models):
    """The independent reference reads the same layer as the reader."""
    from tests.attribution.test_path import FORMS

    model = tiny_models[0].hf_model
    for span, state in zip(FORMS["text"].spans, states_of(model, FORMS["text"]), strict=True):
        torch.testing.assert_close(LayerReader(model, LAYER).read(torch.tensor([span.ids])), state)
