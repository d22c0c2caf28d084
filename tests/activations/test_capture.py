import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, GPT2Config, LlamaConfig

from diffharness.activations.capture import LayerReader, UpperStack

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2),
    "gemma2": Gemma2Config(**SMALL, intermediate_size=48, num_key_value_heads=2, head_dim=8),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4),
    "bloom": BloomConfig(vocab_size=50, hidden_size=32, n_layer=3, n_head=4),
}


@pytest.fixture(params=CONFIGS, scope="module")
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval().requires_grad_(False)


def ids(n_rows: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(4, 50, (n_rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", [0, 1])
def test_layer_reader_equals_the_models_own_hidden_states(model, layer):
    hidden = model(ids(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(LayerReader(model, layer).read(ids()), hidden[layer + 1], rtol=0, atol=0)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_upper_stack_on_the_models_own_state_gives_its_own_logits(model, layer):
    state = LayerReader(model, layer).read(ids())
    torch.testing.assert_close(UpperStack(model, layer).logits(ids(), state), model(ids()).logits, rtol=0, atol=1e-6)


def test_upper_stack_leaves_the_model_as_it_was(model):
    before = model(ids()).logits
    UpperStack(model, 1).logits(ids(), torch.zeros(3, 7, 32))
    torch.testing.assert_close(model(ids()).logits, before, rtol=0, atol=0)


def test_gradient_reaches_the_given_state_and_nothing_below(model):
    state = LayerReader(model, 1).read(ids()).requires_grad_(True)
    UpperStack(model, 1).logits(ids(), state)[:, -1].logsumexp(-1).sum().backward()
    assert state.grad is not None
    assert float(state.grad.abs().sum()) > 0
    assert all(p.grad is None for p in model.parameters())


def test_padding_does_not_leak_into_what_stands_before_it(model):
    long = ids(1, 9)
    short = torch.cat([long[:, :4], torch.zeros(1, 5, dtype=torch.long)], dim=1)
    alone = LayerReader(model, 1).read(long[:, :4])
    torch.testing.assert_close(LayerReader(model, 1).read(short)[:, :4], alone, rtol=0, atol=1e-6)
