"""Decoder rows in lm-eval's own steered model: what it adds is the raw direction, to the digit."""

from __future__ import annotations

import pytest
import torch
from lm_eval.models.hf_steered import SteeredModel, steer

from diffharness.crosscoder import steered
from diffharness.crosscoder.config import CrosscoderConfig
from diffharness.crosscoder.model import Crosscoder
from diffharness.errors import UsageError


def random_crosscoder(layers: tuple[int, ...] = (1,), **more: object) -> Crosscoder:
    config = CrosscoderConfig(sides=("baseline", "candidate"), layers=layers, d_model=16, n_latents=20, **more)
    crosscoder = Crosscoder(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in (crosscoder.W_dec_LMD, crosscoder.mean_MD, crosscoder.b_dec_MD):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    crosscoder.scale_M.copy_(0.5 + torch.rand(crosscoder.scale_M.shape, generator=generator))
    return crosscoder


def states(model: SteeredModel, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The residual stream after every block, as the blocks write it."""
    seen: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
        for block in model.model.model.layers
    ]
    with torch.no_grad():
        model.model(ids)
    for hook in hooks:
        hook.remove()
    return tuple(seen)


def test_lm_evals_steered_model_adds_the_raw_decoder_rows_at_that_layer(tiny, tmp_path):
    crosscoder = random_crosscoder()
    file = tmp_path / "steer.pt"
    steered.write(crosscoder, file, latents=[3, 17], side="candidate", coefficient=2.5)
    model = SteeredModel(str(tiny.candidate), str(file), device="cpu")
    ids = torch.tensor([[1, 5, 9, 7], [1, 6, 6, 8]])
    plain = states(model, ids)
    with steer(model.model, model.hook_to_steer):
        changed = states(model, ids)
    d_D = crosscoder.W_dec_LMD[[3, 17], 1].double().sum(dim=0) / crosscoder.scale_M[1].double()
    assert torch.equal(changed[0], plain[0])
    assert torch.allclose(changed[1].double(), plain[1].double() + 2.5 * d_D, rtol=0, atol=1e-5)
    assert not torch.allclose(changed[2], plain[2], atol=1e-2)


def test_scores_of_the_steered_model_change(tiny, tmp_path):
    steered.write(random_crosscoder(), tmp_path / "s.pt", latents=[0], side="candidate", coefficient=4.0)
    model = SteeredModel(str(tiny.candidate), str(tmp_path / "s.pt"), device="cpu")
    ids = torch.tensor([[1, 5, 9, 7]])
    with torch.no_grad():
        plain = model.model(ids).logits
    assert not torch.allclose(model._model_call(ids), plain, atol=1e-2)


def test_every_layer_has_an_entry_of_its_own_model(tmp_path):
    crosscoder = random_crosscoder(layers=(0, 2))
    steered.write(crosscoder, tmp_path / "s.pt", latents=[4], side="candidate", coefficient=1.0, hookpoint="h.{layer}")
    found = torch.load(tmp_path / "s.pt", weights_only=True)
    assert list(found) == ["h.0", "h.2"]
    raw_LMD = crosscoder.raw_decoder()
    assert torch.equal(found["h.0"]["steering_vector"], raw_LMD[4, 2])
    assert torch.equal(found["h.2"]["steering_vector"], raw_LMD[4, 3])


def test_padding_of_a_narrower_model_is_left_out():
    crosscoder = random_crosscoder(widths=(12, 16))
    assert steered.steering_vectors(crosscoder, [1], "baseline")[1].shape == (12,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": [20]}, "--latents 20 is out of range; the crosscoder has latents 0 to 19"),
        ({"latents": []}, "--latents is missing; name the latents"),
        ({"side": "ancestor"}, "--side ancestor is not of this crosscoder; it has baseline, candidate"),
        ({"hookpoint": "layers.3"}, r"--hookpoint 'layers.3' has no \{layer\}"),
        ({"name": "s.csv"}, r"has to end in .pt"),
        ({"expects": "mean norm √width"}, "does not hold the scale of its input, so its rows are not in the model's"),
        ({"layers": ()}, "does not say which layer it reads; give it as --layer"),
    ],
)
def test_what_can_not_steer_is_one_line(tmp_path, changes, message):
    given = {"latents": [1], "side": "candidate", "coefficient": 1.0, "layers": (1,), "name": "s.pt", **changes}
    crosscoder = random_crosscoder(given.pop("layers"), expects=given.pop("expects", "raw"))
    with pytest.raises(UsageError, match=message) as error:
        steered.write(crosscoder, tmp_path / given.pop("name"), **given)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
