"""What a head says a direction promotes, against every architecture's own norm, weights and logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as t
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from diffharness.activations import head as head_module
from diffharness.activations.head import head
from diffharness.activations.layers import decoder_layers
from diffharness.errors import UsageError
from tests.activations.test_architectures import CONFIGS, GATED, N_LAYERS, SLIDING, SMALL, VOCABULARY, WIDTH

OTHERS = {
    "phi": t.PhiConfig(**SMALL, intermediate_size=24, partial_rotary_factor=0.5),
    "mpt": t.MptConfig(vocab_size=VOCABULARY, d_model=WIDTH, n_layers=N_LAYERS, n_heads=2, max_seq_len=32),
    "granite": t.GraniteConfig(**GATED, logits_scaling=8.0),
    "cohere2": t.Cohere2Config(**GATED, logit_scale=0.1),
    "olmo": t.OlmoConfig(**GATED),
    "opt_projected": t.OPTConfig(
        **SMALL, ffn_dim=24, word_embed_proj_dim=8, max_position_embeddings=32, do_layer_norm_before=False
    ),
    "opt_without_norm": t.OPTConfig(
        **SMALL, ffn_dim=24, word_embed_proj_dim=WIDTH, max_position_embeddings=32, do_layer_norm_before=False
    ),
}  # fmt: skip
ALL = {**CONFIGS, **OTHERS}
CENTRED = {"gpt2", "gpt_neox", "opt", "bloom", "falcon", "falcon_alibi", "phi", "mpt", "cohere2", "olmo"}
LINEAR = {"opt_projected", "opt_without_norm"}


def build(config: t.PretrainedConfig) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # gains and biases too: one that is left out must show
        parameter += 0.3 * torch.randn_like(parameter)
    return model


def directions(n: int = 5, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3))


def last_states(model: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """After the last block, and what the unembedding answers."""
    caught: list[torch.Tensor] = []
    parts = (decoder_layers(model)[1][-1], model.get_output_embeddings())
    handles = [
        part.register_forward_hook(lambda _m, _a, out: caught.append(out[0] if isinstance(out, tuple) else out))
        for part in parts
    ]
    model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return caught[0][0].double(), caught[1][0].double()


@pytest.fixture(params=ALL, scope="module")
def named(request):
    return request.param, build(ALL[request.param])


def test_differences_of_every_architectures_own_logits_are_those_that_its_head_gives(named):
    name, model = named
    found = head(model)
    assert (found.centred, found.d_model, found.n_tokens) == (name in CENTRED, WIDTH, VOCABULARY)
    state, output = last_states(model, torch.tensor([[5, 9, 2, 33, 7]]))
    moved = state - state.mean(dim=-1, keepdim=True) if found.centred else state
    scale = 1 if name in LINEAR else moved.square().mean(dim=-1, keepdim=True).add(1e-6).sqrt()
    again = found.promotes((moved / scale).float()).double()
    assert_close(again - again[:1], output - output[:1], 1e-3)


@pytest.mark.parametrize("name", sorted(ALL.keys() - LINEAR))
def test_what_a_direction_promotes_is_what_the_final_norms_module_makes_of_it(name):
    model, d = build(ALL[name]), directions()
    found, norm = head(model), final_norm(model)
    weight = model.get_output_embeddings().weight
    inside = d - d.mean(dim=-1, keepdim=True) if name in CENTRED else d
    loud = 100 * inside
    scale = loud.square().mean(dim=-1, keepdim=True).sqrt()
    expected = (norm(loud) - norm(torch.zeros_like(loud))) * scale / 100 @ weight.T
    assert_close(found.promotes(d), expected, 1e-4)


def final_norm(model: nn.Module) -> nn.Module:
    """The norm whose output is the unembedding's input."""
    outputs: dict[int, nn.Module] = {}
    given: list[torch.Tensor] = []
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    handles = [m.register_forward_hook(lambda m, _a, out: outputs.update({out.data_ptr(): m})) for m in norms]
    handles.append(model.get_output_embeddings().register_forward_pre_hook(lambda _m, args: given.append(args[0])))
    model(torch.tensor([[1, 2, 3]]), use_cache=False)
    for handle in handles:
        handle.remove()
    return outputs[given[0].data_ptr()]


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_gemmas_gain_is_one_more_than_its_weight():
    model = build(ALL["gemma2"])
    torch.testing.assert_close(head(model).gain_X, 1 + model.model.norm.weight, rtol=1e-5, atol=1e-6)


def test_a_model_without_a_final_norm_promotes_by_its_projection_alone():
    model = build(ALL["opt_projected"])
    d = directions()
    expected = d @ model.model.decoder.project_out.weight.T @ model.lm_head.weight.T
    torch.testing.assert_close(head(model).promotes(d), expected, rtol=1e-4, atol=1e-4)
    plain = build(ALL["opt_without_norm"])
    assert head(plain).gain_X.tolist() == [1] * WIDTH


def test_the_answer_is_linear_in_the_direction():
    found, d = head(build(ALL["gpt2"])), directions()
    torch.testing.assert_close(found.promotes(7 * d), 7 * found.promotes(d), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "gpt_neox", "opt_projected"])
def test_a_half_precision_model_answers_in_float32(name, dtype):
    model = build(ALL[name])
    exact = head(model).promotes(directions())
    found = head(model.to(dtype)).promotes(directions())
    assert found.dtype == torch.float32
    assert_close(found, exact, 0.02)
    assert len(found.unique()) > found.to(dtype).unique().numel()  # not rounded at the end


def test_odd_widths_are_read_too():
    model = build(t.LlamaConfig(**{**GATED, "hidden_size": 15, "num_attention_heads": 1, "head_dim": 6}))
    d = directions(width=15)
    torch.testing.assert_close(
        head(model).promotes(d), d * model.model.norm.weight @ model.lm_head.weight.T, rtol=1e-4, atol=1e-4
    )


def test_an_adapted_unembedding_is_called_with_its_adapter():
    model = build(ALL["llama"])
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    adapted.eval().requires_grad_(False)
    low = adapted.get_output_embeddings()
    low.lora_B["default"].weight += torch.randn_like(low.lora_B["default"].weight)
    d = directions()
    weight = low.base_layer.weight + low.get_delta_weight("default")
    torch.testing.assert_close(head(adapted).promotes(d), d * model.model.norm.weight @ weight.T, rtol=1e-3, atol=1e-3)


def test_offloaded_weights_are_fetched_by_the_modules_own_hooks():
    model, d = build(ALL["gpt2"]), directions()
    expected = head(model).promotes(d)
    found = head(cpu_offload(model))
    assert found.unembedding.weight.is_meta
    torch.testing.assert_close(found.promotes(d), expected, rtol=1e-4, atol=1e-4)


def test_a_multimodal_wrappers_text_head_is_found():
    sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "num_attention_heads": 2}
    tower = t.CLIPVisionConfig(**sizes, num_hidden_layers=5, image_size=8, patch_size=4)
    config = t.LlavaConfig(vision_config=tower, text_config=t.LlamaConfig(**GATED), image_token_index=63)
    model: Any = t.LlavaForConditionalGeneration(config)
    model.eval().requires_grad_(False)
    d = directions()
    expected = model.model.language_model.norm.weight * d @ model.lm_head.weight.T
    torch.testing.assert_close(head(model).promotes(d), expected, rtol=1e-4, atol=1e-4)


def test_the_matrix_is_converted_piece_by_piece(monkeypatch):
    found, d = head(build(ALL["phi"])), directions()
    whole = found.promotes(d)
    monkeypatch.setattr(head_module, "BLOCK_VALUES", 7 * WIDTH)
    torch.testing.assert_close(found.promotes(d), whole)


class _Bent(nn.Module):
    """A norm's place taken by something that is neither a norm nor linear."""

    def forward(self, x):
        return x.abs().sqrt()


def test_what_is_neither_a_norm_nor_linear_is_refused():
    model = build(ALL["llama"])
    model.model.norm = _Bent()
    with pytest.raises(UsageError, match="LlamaForCausalLM has neither a norm nor a linear map"):
        head(model)


def test_logits_that_do_not_follow_the_unembedding_are_refused():
    model = build(ALL["llama"])
    forward = model.forward

    def turned(*args, **kwargs):
        return SimpleNamespace(logits=-forward(*args, **kwargs).logits)

    model.forward = turned
    with pytest.raises(UsageError, match="makes more of its logits"):
        head(model)


def test_a_model_without_an_unembedding_is_refused():
    model = build(ALL["llama"])
    model.get_output_embeddings = lambda: None
    with pytest.raises(UsageError, match="no unembedding"):
        head(model)


def test_a_model_of_several_streams_is_refused():
    config = t.Gemma3nTextConfig(
        **GATED, **SLIDING, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, laurel_rank=4,
        num_kv_shared_layers=0, altup_num_inputs=2, activation_sparsity_pattern=[0.0] * N_LAYERS,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"Gemma3nForCausalLM has .* state|streams"):
        head(AutoModelForCausalLM.from_config(config).eval())


def test_the_model_is_left_as_it_was():
    model, ids = build(ALL["gemma3"]), torch.tensor([[4, 5, 6], [7, 8, 9]])
    before = model(ids).logits
    head(model)
    assert torch.equal(model(ids).logits, before)
