"""Cross-entropy under replaced activations, against plain forward hooks on tiny models."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.splicing import SpliceLoss, ratio_half_width, splice
from diffharness.errors import RunError, UsageError
from tests.tiny import config

SKIPPED = frozenset({2})


def model_of(seed: int, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(config(**changes)).eval()


def written_by(model: LlamaForCausalLM, n: int = 9) -> list[tuple[int, ...]]:
    """Texts of several lengths that the model itself finds likely, one with skipped ids among the others."""
    generator = torch.Generator().manual_seed(3)
    texts = []
    for i in range(n):
        start = torch.randint(4, 30, (1, 3), generator=generator)
        start[0, 0] = 1
        ids = model.generate(start, max_new_tokens=4 + i, do_sample=False, eos_token_id=None)[0].tolist()
        texts.append(tuple([*ids[:4], 2, *ids[4:]] if i == 4 else ids))
    return texts


@pytest.fixture(scope="module")
def models() -> list[LlamaForCausalLM]:
    return [model_of(0), model_of(1)]


@pytest.fixture(scope="module")
def texts(models) -> list[tuple[int, ...]]:
    return written_by(models[0])


def spliced(models, texts, reconstruct: Callable[[Tensor], Tensor], layer: int = 1, **options) -> dict[str, SpliceLoss]:
    readers = [LayerReader(model, layer) for model in models]
    uppers = {name: UpperStack(m, layer) for name, m in zip(("baseline", "candidate"), models, strict=False)}
    return splice(readers, uppers, reconstruct, texts, skipped_ids=SKIPPED, batch_tokens=40, **options)


def coded(ids: tuple[int, ...]) -> list[int]:
    return [t for t in range(1, len(ids)) if ids[t] not in SKIPPED]


@torch.no_grad()
def hooked(model, texts, change: Callable[[Tensor], Tensor] | None, layer: int = 1) -> tuple[float, list[float]]:
    """Mean negative log-likelihood, one text at a time, with a forward hook that changes coded positions' outputs."""
    sums, n = [], 0
    for ids in texts:
        places = coded(ids)

        def hook(_module, _args, output, places=places):
            whole = output[0] if isinstance(output, tuple) else output
            changed = whole.clone()
            if change is not None:
                changed[0, places] = change(changed[0, places])
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = model.model.layers[layer].register_forward_hook(hook)
        log_p = model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
        handle.remove()
        own = [-float(log_p[t, ids[t + 1]]) for t in range(places[0], len(ids) - 1)]
        sums.append(sum(own))
        n += len(own)
    return sum(sums) / n, sums


def test_an_identity_costs_exactly_nothing(models, texts):
    for found in spliced(models, texts, lambda x: x).values():
        assert found.delta == 0
        assert (found.delta_low, found.delta_high) == (0, 0)
        assert found.n_texts == len(texts)
        assert found.n_tokens == sum(len(ids) - 2 for ids in texts)


def test_an_identity_costs_nothing_in_half_precision_either(texts):
    models = [model_of(0).bfloat16(), model_of(1).half()]
    assert [found.delta for found in spliced(models, texts, lambda x: x).values()] == [0, 0]


def test_zeros_recover_nothing_and_the_identity_all(models, texts):
    zero = spliced(models, texts, torch.zeros_like)["baseline"]
    assert zero.spliced == zero.zeroed > zero.clean
    assert zero.loss_recovered == 0
    assert spliced(models, texts, lambda x: x)["baseline"].loss_recovered == 1


def test_every_arm_is_what_a_plain_hook_gives(models, texts):
    def half(x_NMD: Tensor) -> Tensor:
        return 0.5 * x_NMD + 0.3 * x_NMD.flip(1)

    found = spliced(models, texts, half)
    states = [[LayerReader(m, 1).read(torch.tensor([ids]))[0, coded(ids)] for ids in texts] for m in models]
    for m, (name, model) in enumerate(zip(("baseline", "candidate"), models, strict=True)):
        mean_D = torch.cat(states[m]).double().mean(dim=0).float()
        other = iter(states[1 - m])
        assert found[name].clean == pytest.approx(hooked(model, texts, None)[0], abs=1e-5)
        assert found[name].zeroed == pytest.approx(hooked(model, texts, torch.zeros_like)[0], abs=1e-5)
        assert found[name].mean == pytest.approx(hooked(model, texts, lambda x, d=mean_D: d.expand_as(x))[0], abs=1e-5)
        assert found[name].spliced == pytest.approx(
            hooked(model, texts, lambda x, other=other: 0.5 * x + 0.3 * next(other))[0], abs=1e-5
        )


def test_a_constant_recovers_nothing_of_the_mean(models, texts):
    states = [LayerReader(models[0], 1).read(torch.tensor([ids]))[0, coded(ids)] for ids in texts]
    mean_D = torch.cat(states).double().mean(dim=0).float()
    found = spliced(models[:1], texts, lambda x: mean_D.expand_as(x))["baseline"]
    assert found.spliced == pytest.approx(found.mean, abs=1e-6)
    if found.mean > found.clean:
        assert found.loss_recovered_mean == pytest.approx(0, abs=1e-4)


def test_interval_is_that_of_a_ratio_over_texts(models, texts):
    found = spliced(models[:1], texts, torch.zeros_like)["baseline"]
    difference = np.array(hooked(models[0], texts, torch.zeros_like)[1]) - np.array(hooked(models[0], texts, None)[1])
    n = np.array([len(ids) - 2 for ids in texts])
    ratio = difference.sum() / n.sum()
    error = math.sqrt(sum((difference - ratio * n) ** 2) / (len(n) * (len(n) - 1))) / n.mean()
    assert found.delta_high is not None
    assert found.delta_low is not None
    assert found.delta == pytest.approx(ratio, abs=1e-5)
    assert found.delta_high - found.delta == pytest.approx(2.306 * error, rel=1e-3)  # t of 8 degrees of freedom
    single = spliced(models[:1], texts[:1], torch.zeros_like)["baseline"]
    assert single.delta_low is None


def test_interval_holds_the_true_cost_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        n_I = rng.integers(5, 60, 64).astype(float)
        difference_I = n_I * rng.normal(0.2, 0.1, 64)
        half = ratio_half_width(difference_I, n_I)
        assert half is not None
        held += abs(difference_I.sum() / n_I.sum() - 0.2) < half
    assert 0.91 < held / 400 < 0.985


def test_models_of_different_widths_are_padded_for_the_reconstruction(texts):
    models = [model_of(0), model_of(2, hidden_size=24)]
    seen = []

    def remember(x_NMD: Tensor) -> Tensor:
        seen.append(x_NMD)
        return x_NMD

    found = spliced(models, texts, remember)
    assert all(loss.delta == 0 for loss in found.values())
    assert seen[0].shape[1:] == (2, 24)
    assert not seen[0][:, 0, 16:].any()


def test_several_layers_are_replaced_one_at_a_time(models, texts):
    readers = [LayerReader(model, (0, 1)) for model in models]
    names = [(side, layer) for side in ("baseline", "candidate") for layer in (0, 1)]
    stacks = dict(zip(("baseline", "candidate"), models, strict=True))
    uppers = {f"{side}@{layer}": UpperStack(stacks[side], layer) for side, layer in names}
    found = splice(readers, uppers, lambda x: 0.7 * x, texts, skipped_ids=SKIPPED)
    for side, layer in names:
        expected, _ = hooked(stacks[side], texts, lambda x: 0.7 * x, layer)
        assert found[f"{side}@{layer}"].spliced == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UsageError, match="in the readers' order"):
        splice(readers, dict(reversed(uppers.items())), lambda x: x, texts)


def test_texts_without_a_prediction_are_left_out_and_progress_is_told(models, texts):
    told = []
    found = spliced(
        models[:1], [(1, 5), (1, 2, 2), *texts, (1,)], lambda x: x, progress=lambda *at: told.append(at)
    )["baseline"]  # fmt: skip
    assert found.n_texts == len(texts)
    assert told[-1] == (len(texts), len(texts))
    with pytest.raises(RunError, match="longer texts"):
        spliced(models[:1], [(1, 5)], lambda x: x)


def test_what_is_not_finite_is_refused(models, texts):
    with pytest.raises(RunError, match=r"baseline \(spliced\) is nan"):
        spliced(models[:1], texts, lambda x: x * float("nan"))
