"""What is read from, and continued in, every architecture equals what the architecture itself computes."""

import pytest
import torch
import transformers as t
from transformers import AutoModelForCausalLM

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import decoder_layers
from diffharness.activations.replay import replay
from diffharness.errors import UsageError

VOCABULARY, N_LAYERS, WIDTH = 64, 3, 16
SMALL = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": 2}
GATED = {**SMALL, "intermediate_size": 24, "num_key_value_heads": 1, "pad_token_id": 0}
SLIDING = {"sliding_window": 4, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
LATENT_ATTENTION = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip


def gemma4(n_shared: int = 0) -> t.Gemma4TextConfig:
    return t.Gemma4TextConfig(
        **GATED, **SLIDING, global_head_dim=8, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8,
        num_kv_shared_layers=n_shared, layer_types=["sliding_attention", "full_attention", "full_attention"],
    )  # fmt: skip


CONFIGS = {
    "llama": t.LlamaConfig(**GATED),
    "mistral": t.MistralConfig(**GATED, sliding_window=4),
    "qwen2": t.Qwen2Config(**GATED),
    "qwen3": t.Qwen3Config(**GATED, head_dim=8),
    "gemma2": t.Gemma2Config(**GATED, **SLIDING),
    "gemma3": t.Gemma3TextConfig(
        **GATED, **SLIDING, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "phi3": t.Phi3Config(**GATED, sliding_window=4),
    "olmo2": t.Olmo2Config(**GATED),
    "mixtral": t.MixtralConfig(**GATED, num_local_experts=4),
    "qwen3_moe": t.Qwen3MoeConfig(**GATED, **EXPERTS, head_dim=8),
    "gpt_oss": t.GptOssConfig(**GATED, **SLIDING, num_local_experts=4, num_experts_per_tok=2),
    "deepseek_v3": t.DeepseekV3Config(
        **{**GATED, "num_key_value_heads": 2}, **LATENT_ATTENTION, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=12, n_group=1, topk_group=1, first_k_dense_replace=1,
    ),
    "qwen3_next": t.Qwen3NextConfig(
        **GATED, **EXPERTS, head_dim=8, shared_expert_intermediate_size=12, linear_num_value_heads=2,
        linear_num_key_heads=1, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "gemma4": gemma4(),
    "gpt2": t.GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=N_LAYERS, n_head=2),
    "gpt_neox": t.GPTNeoXConfig(**SMALL, intermediate_size=24),
    "opt": t.OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=WIDTH, max_position_embeddings=32),
    "bloom": t.BloomConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=N_LAYERS, n_head=2),
    "falcon": t.FalconConfig(**SMALL),
    "falcon_alibi": t.FalconConfig(**SMALL, alibi=True, new_decoder_architecture=True),
}  # fmt: skip
LENGTHS = (11, 7, 2, 9)


def draw(lengths: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(params=CONFIGS, scope="module")
def model(request):
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval().requires_grad_(False)
    for parameter in made.parameters():  # biases and norms too: a path that is left out must show
        parameter += 0.1 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module")
def ids():
    return torch.tensor(draw((11, 11)))


def test_every_layer_read_equals_the_models_own_hidden_states(model, ids):
    last: list[torch.Tensor] = []
    handle = decoder_layers(model)[1][-1].register_forward_hook(
        lambda _module, _args, output: last.append(output[0] if isinstance(output, tuple) else output)
    )
    hidden = model(ids, output_hidden_states=True).hidden_states
    handle.remove()
    x = LayerReader(model, range(N_LAYERS)).read_layers(ids)
    for layer in range(N_LAYERS - 1):
        assert torch.equal(x[layer], hidden[layer + 1])
    assert torch.equal(x[N_LAYERS - 1], last[0])  # the last hidden state stands behind the final norm


def test_upper_stack_continues_every_layers_state_to_the_models_own_logits(model, ids):
    own = model(ids).logits
    for layer, state in LayerReader(model, range(N_LAYERS)).read_layers(ids).items():
        torch.testing.assert_close(UpperStack(model, layer).logits(ids, state), own, rtol=0, atol=1e-5)
        places = torch.tensor([1, 5, ids.shape[1] + 2, ids.numel() - 1])
        some = UpperStack(model, layer).logits(ids, state, places)
        torch.testing.assert_close(some, own.flatten(0, 1)[places], rtol=0, atol=1e-5)


def test_padding_never_leaks_into_a_sequence(model):
    sequences = draw(LENGTHS)
    readers = [LayerReader(model, range(N_LAYERS))]
    (batch,) = replay(readers, sequences, max_tokens=100)
    for row, place in enumerate(batch.rows):
        n = batch.lengths[row]
        alone = readers[0].read_layers(torch.tensor([sequences[place]]))
        for layer, x_BTMD in batch.x.items():
            torch.testing.assert_close(x_BTMD[row, :n, 0], alone[layer][0], rtol=0, atol=1e-5)


def test_ids_behind_the_end_do_not_matter(model):
    (batch,) = replay([LayerReader(model, 1)], draw(LENGTHS), max_tokens=100)
    other = torch.tensor(draw((max(LENGTHS),) * len(LENGTHS), seed=1))
    read = torch.arange(max(LENGTHS)) < torch.tensor(batch.lengths)[:, None]
    x = LayerReader(model, 1).read(torch.where(read, batch.ids_BT, other))
    torch.testing.assert_close(x[read], batch.x_BTMD[:, :, 0][read], rtol=0, atol=1e-5)


def test_a_layer_whose_state_does_not_carry_all_that_is_read_above_is_refused(ids):
    model = AutoModelForCausalLM.from_config(gemma4(n_shared=1)).eval()  # layer 2 reads keys and values of layer 1
    states = LayerReader(model, range(N_LAYERS)).read_layers(ids)
    for layer in (0, 2):
        torch.testing.assert_close(
            UpperStack(model, layer).logits(ids, states[layer]), model(ids).logits, rtol=0, atol=1e-5
        )
    with pytest.raises(UsageError, match=r"above layer 1 .*choose"):
        UpperStack(model, 1).logits(ids, states[1])


def test_a_model_of_several_streams_is_refused(ids):
    config = t.Gemma3nTextConfig(
        **GATED, **SLIDING, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, laurel_rank=4,
        num_kv_shared_layers=0, altup_num_inputs=2, activation_sparsity_pattern=[0.0] * N_LAYERS,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    )  # fmt: skip
    with pytest.raises(UsageError, match="streams"):
        LayerReader(AutoModelForCausalLM.from_config(config).eval(), 1).read(ids)
