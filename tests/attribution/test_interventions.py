"""Every arm against an independent reference: rows one by one without padding or cache, float64, forward hooks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffharness.activations.capture import LayerReader
from diffharness.activations.layers import decoder_layers
from diffharness.attribution.interventions import BASELINE, CANDIDATE, Arm, intervene
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError
from diffharness.evaluation import harness

LAYER = 1
CHOSEN = (0, 3, 5, 11, 17)
SKIPPED = (9,)
ARMS = [
    (CANDIDATE, Arm("put_back", CHOSEN)),
    (BASELINE, Arm("put_in", CHOSEN)),
    (CANDIDATE, Arm("remove", CHOSEN)),
    (BASELINE, Arm("remove", CHOSEN)),
    (CANDIDATE, Arm("reconstruct")),
    (BASELINE, Arm("reconstruct")),
    (CANDIDATE, Arm("swap")),
    (BASELINE, Arm("swap")),
    (CANDIDATE, Arm("swap", CHOSEN)),
    (BASELINE, Arm("swap", CHOSEN)),
    (CANDIDATE, Arm("mean_difference")),
    (BASELINE, Arm("mean_difference")),
]
IDS = [arm.mode + ("" if not arm.latents else "+latents") + f" {target}" for target, arm in ARMS]


def random_crosscoder(d_model: int = 16, n_latents: int = 24, **changes) -> Crosscoder:
    generator = torch.Generator().manual_seed(3)
    config = CrosscoderConfig(
        sides=("baseline", "candidate"), d_model=d_model, n_latents=n_latents, k=4, skipped_ids=SKIPPED, **changes
    )
    crosscoder = Crosscoder(config).requires_grad_(False)
    for tensor in (crosscoder.W_enc_MDL, crosscoder.W_dec_LMD, crosscoder.b_enc_L, crosscoder.b_dec_MD):
        tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    crosscoder.mean_MD.copy_(0.1 * torch.randn(2, d_model, generator=generator))
    crosscoder.scale_M.copy_(torch.tensor([0.8, 1.3]))
    crosscoder.threshold.fill_(0.4)
    return crosscoder


@pytest.fixture(scope="module")
def readers(tiny_models):
    return tuple(LayerReader(m.hf_model, LAYER) for m in tiny_models)


@pytest.fixture(scope="module")
def crosscoder():
    return random_crosscoder()


def states(readers, ids):
    """Both models' states of one sequence (T, D), without padding or cache, in float64."""
    found = []
    for reader in readers:
        with torch.no_grad():
            out = reader.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        found.append(out.hidden_states[LAYER + 1][0].double())
    return found


def expected_state(readers, crosscoder, target, arm, ids):
    """What the arm's definition says, token by token and latent by latent."""
    x = states(readers, ids)
    own, other = x[target], x[1 - target]
    new = other.clone() if arm.mode == "swap" else own.clone()
    decoder, mean = crosscoder.raw_decoder().double(), crosscoder.mean_MD.double()
    bias = crosscoder.raw_bias().double()
    for t in range(1, len(ids)):
        if ids[t] in SKIPPED:
            continue
        code = crosscoder.encode(torch.stack([x[0][t], x[1][t]])[None].float())[0].double()
        f = code if code.ndim == 2 else torch.stack([code, code])
        if arm.mode == "reconstruct":
            new[t] = bias[target] + sum(f[target, j] * decoder[j, target] for j in range(crosscoder.n_latents))
        elif arm.mode == "mean_difference":
            new[t] += mean[1 - target] - mean[target]
        for j in arm.latents:
            if arm.mode == "swap":
                new[t] -= f[1 - target, j] * decoder[j, 1 - target]
                continue
            new[t] -= f[target, j] * decoder[j, target]
            if arm.mode in ("put_back", "put_in"):
                new[t] += f[1 - target, j] * decoder[j, 1 - target]
    return new


def logits_with(model, ids, state):
    """Logits when the layer's output is replaced, by a forward hook on the whole model."""
    handle = decoder_layers(model)[1][LAYER].register_forward_hook(lambda *_: state[None].to(torch.float32))
    try:
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def expected_logits(readers, crosscoder, target, arm, ids):
    return logits_with(readers[target].model, ids, expected_state(readers, crosscoder, target, arm, ids))


RAGGED = [[1, 5, 9, 12, 7, 8, 10], [1, 6, 11, 4], [1, 9, 9, 14, 20]]


def padded(rows, side):
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids, mask


@pytest.mark.parametrize(("target", "arm"), ARMS, ids=IDS)
def test_logits_of_every_arm_equal_the_reference_on_ragged_batches(readers, crosscoder, target, arm):
    model = readers[target].model
    right, _ = padded(RAGGED, "right")
    left, mask = padded(RAGGED, "left")
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), intervene(readers, crosscoder, target, arm):
        scored = model(right).logits
        prompted = model(left, attention_mask=mask, position_ids=positions).logits
    own = model(torch.tensor([RAGGED[0]])).logits[0]
    for i, ids in enumerate(RAGGED):
        wanted = expected_logits(readers, crosscoder, target, arm, ids)
        torch.testing.assert_close(scored[i, : len(ids)], wanted, rtol=0, atol=2e-5)
        torch.testing.assert_close(prompted[i, -len(ids) :], wanted, rtol=0, atol=2e-5)
    assert float((scored[0] - own).detach().abs().max()) > 1e-3


@pytest.mark.parametrize(("target", "arm"), ARMS, ids=IDS)
def test_generation_of_every_arm_equals_reading_again_at_every_step(readers, crosscoder, target, arm):
    left, mask = padded(RAGGED, "left")
    model = readers[target].model
    with torch.no_grad(), intervene(readers, crosscoder, target, arm):
        found = model.generate(left, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=None)
    for i, row in enumerate(RAGGED):
        ids = list(row)
        for _ in range(6):
            ids.append(int(expected_logits(readers, crosscoder, target, arm, ids)[-1].argmax()))
        assert found[i, -6:].tolist() == ids[-6:]


def test_beams_are_read_along(readers, crosscoder):
    """A beam that takes another's place takes the place of what the other model has read, too."""
    arm, model = Arm("put_back", tuple(range(24))), readers[1].model
    ids = torch.tensor([RAGGED[0]])
    asked = {"max_new_tokens": 5, "do_sample": False, "num_beams": 3, "eos_token_id": None}
    with torch.no_grad(), intervene(readers, crosscoder, CANDIDATE, arm):
        with_cache = model.generate(ids, attention_mask=torch.ones_like(ids), **asked)
        without = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **asked)
    assert with_cache.tolist() == without.tolist()


@pytest.mark.parametrize("target", [BASELINE, CANDIDATE])
@pytest.mark.parametrize("arm", [Arm("nothing"), Arm("remove"), None], ids=["nothing", "remove none", "put none"])
def test_nothing_changed_reproduces_every_score_to_the_byte(
    readers, crosscoder, tiny_models, tiny_tasks, tiny_evaluations, target, arm
):
    """Choices, targets, rolling texts and generated answers (left-padded batches of 4)."""
    if arm is None:
        arm = Arm("put_back" if target == CANDIDATE else "put_in")
    with intervene(readers, crosscoder, target, arm):
        evaluation, _ = harness.evaluate(tiny_models[target], tiny_tasks)
    assert {t.output_type for t in evaluation.tasks} >= {"multiple_choice", "loglikelihood_rolling", "generate_until"}
    assert evaluation.documents == tiny_evaluations[target].documents
    assert evaluation.ledger == tiny_evaluations[target].ledger


@pytest.mark.parametrize(("target", "arm"), ARMS, ids=IDS)
def test_scores_of_lm_eval_follow_from_the_arm(readers, crosscoder, tiny_models, tiny_tasks, target, arm):
    """Every log-likelihood and greedy answer of the ledger, from the reference."""
    with intervene(readers, crosscoder, target, arm):
        evaluation, _ = harness.evaluate(tiny_models[target], tiny_tasks, limit=3)
    for reading in evaluation.ledger:
        log_p = expected_logits(readers, crosscoder, target, arm, list(reading.ids)).log_softmax(-1)
        predicting = log_p[reading.start : reading.start + len(reading.targets)]
        if reading.log_likelihood is None:
            assert predicting.argmax(-1).tolist() == list(reading.targets)
        else:
            total = sum(float(row[t]) for row, t in zip(predicting, reading.targets, strict=True))
            assert reading.log_likelihood == pytest.approx(total, abs=2e-4)


@pytest.mark.parametrize(("target", "arm"), ARMS[:4] + ARMS[8:10], ids=IDS[:4] + IDS[8:10])
def test_codes_of_each_model_are_its_own_where_they_are_decoupled(readers, target, arm):
    decoupled = random_crosscoder(code_norm="per_model")
    ids = RAGGED[0]
    x = torch.stack([s[1].float() for s in states(readers, ids)])[None]
    assert decoupled.encode(x).ndim == 3
    with torch.no_grad(), intervene(readers, decoupled, target, arm):
        found = readers[target].model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found, expected_logits(readers, decoupled, target, arm, ids), rtol=0, atol=2e-5)


def test_model_is_restored_afterwards_and_after_a_failure(readers, crosscoder):
    model = readers[1].model
    ids = torch.tensor([[1, 5, 10, 12]])
    before = model(ids).logits

    def fail():
        with intervene(readers, crosscoder, CANDIDATE, Arm("swap")):
            assert float((model(ids).logits - before).abs().max()) > 1e-3
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)


def test_what_can_not_be_meant_is_refused(readers, crosscoder):
    for target, arm in ((BASELINE, Arm("put_back", (1,))), (CANDIDATE, Arm("put_in", (1,)))):
        with pytest.raises(ValueError, match="goes with"), intervene(readers, crosscoder, target, arm):
            pass
    with pytest.raises(ValueError, match="0 to 23"), intervene(readers, crosscoder, CANDIDATE, Arm("remove", (24,))):
        pass
    with pytest.raises(ValueError, match="no latents"):
        replace(Arm("reconstruct"), latents=(1,))
    blank = random_crosscoder()
    blank.mean_MD.zero_()
    with (
        pytest.raises(UsageError, match="mean activations"),
        intervene(readers, blank, CANDIDATE, Arm("mean_difference")),
    ):
        pass


def test_low_precision_states_are_their_own_where_nothing_changes(tiny):
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(f, dtype=torch.bfloat16) for f in (tiny.baseline, tiny.candidate)]
    readers = tuple(LayerReader(m, LAYER) for m in models)
    ids = torch.tensor([RAGGED[0]])
    with torch.no_grad():
        before = models[1](ids).logits
        with intervene(readers, random_crosscoder(), CANDIDATE, Arm("nothing")):
            assert torch.equal(models[1](ids).logits, before)
        with intervene(readers, random_crosscoder(), CANDIDATE, Arm("put_back", CHOSEN)):
            assert not torch.equal(models[1](ids).logits, before)
