from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    JambaConfig,
    JambaForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import context_border, decoder_layers, resolve_layer
from diffharness.errors import UsageError

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 64, "num_hidden_layers": 3}
TOWER = {**SIZES, "num_hidden_layers": 5, "image_size": 8, "patch_size": 4}


@pytest.mark.parametrize(
    ("spec", "layer"), [("0", 0), ("3", 3), ("-1", 3), ("0.5", 2), ("0.0", 0), ("1.0", 3), ("0.74", 2)]
)
def test_layer_is_an_index_or_a_fraction_of_depth(spec, layer):
    assert resolve_layer(spec, 4) == layer


@pytest.mark.parametrize("spec", ["4", "-5", "1.5", "middle", ""])
def test_layer_outside_the_model_is_refused_by_name(spec):
    with pytest.raises(UsageError, match="--layer"):
        resolve_layer(spec, 4)


def blocks(n: int, inside: type[nn.Module] = nn.Linear) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(inside(2, 2)) for _ in range(n))


def parts(n_layers: int | None = None, **lists: nn.ModuleList) -> nn.Module:
    """A model of lists under dotted paths; `__` stands for the dot."""
    model = nn.Module()
    for path, made in lists.items():
        parent = model
        *above, last = path.split("__")
        for name in above:
            if not hasattr(parent, name):
                parent.add_module(name, nn.Module())
            parent = getattr(parent, name)
        parent.add_module(last, made)
    if n_layers is not None:
        model.config = SimpleNamespace(num_hidden_layers=n_layers)
    return model


def test_the_list_as_long_as_the_configuration_says_beats_a_longer_tower():
    model = parts(3, vision__blocks=blocks(7), text__layers=blocks(3))
    assert decoder_layers(model)[0] == "text.layers"


def test_without_a_configuration_the_longest_list_is_taken():
    assert decoder_layers(parts(vision__blocks=blocks(2), text__layers=blocks(3)))[0] == "text.layers"


def test_experts_inside_a_block_are_no_layers():
    layers = nn.ModuleList(nn.ModuleDict({"experts": blocks(9)}) for _ in range(2))
    assert decoder_layers(parts(layers=layers))[0] == "layers"


def test_two_lists_that_nothing_tells_apart_are_refused_unless_a_path_names_one():
    model = parts(wrapped__one__layers=blocks(3), wrapped__other__layers=blocks(3))
    with pytest.raises(UsageError, match=r"wrapped\.one\.layers and wrapped\.other\.layers"):
        decoder_layers(model)
    assert decoder_layers(model, "other.layers")[0] == "wrapped.other.layers"


@pytest.mark.parametrize("path", ["nowhere", "layers", "wrapped"])
def test_a_path_that_names_no_one_list_is_refused_with_those_there_are(path):
    with pytest.raises(UsageError, match=rf"'{path}'.*wrapped\.one\.layers"):
        decoder_layers(parts(wrapped__one__layers=blocks(3), wrapped__other__layers=blocks(3)), path)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UsageError, match="no list of decoder blocks"):
        decoder_layers(nn.Linear(2, 2))


def llava() -> nn.Module:
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_index=63)
    )


def gemma3() -> nn.Module:
    text = {**TEXT, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=TOWER, mm_tokens_per_image=4))


@pytest.mark.parametrize("make", [llava, gemma3])
def test_a_multimodal_models_text_decoder_is_read_and_continued(make):
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    path, layers = decoder_layers(model)
    assert "language_model" in path
    assert len(layers) == 3
    ids = torch.arange(1, 8)[None]
    own = model(input_ids=ids, output_hidden_states=True)
    state = LayerReader(model, 1).read(ids)
    assert torch.equal(state, own.hidden_states[2])
    torch.testing.assert_close(UpperStack(model, 1).logits(ids, state), own.logits, rtol=0, atol=1e-5)


def test_an_encoder_decoders_decoder_is_taken():
    sizes = {"encoder_layers": 4, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16}
    model = BartForConditionalGeneration(
        BartConfig(vocab_size=64, **sizes, encoder_attention_heads=2, decoder_attention_heads=2)
    )
    assert decoder_layers(model)[0] == "model.decoder.layers"


def test_blocks_of_several_classes_are_one_stack():
    config = JambaConfig(
        **TEXT, num_key_value_heads=1, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=4, mamba_d_state=4, mamba_dt_rank=4, use_mamba_kernels=False,
    )  # fmt: skip
    path, layers = decoder_layers(JambaForCausalLM(config))
    assert path == "model.layers"
    assert len({type(block) for block in layers}) == 2


def test_a_border_is_told_only_where_rotary_embeddings_depend_on_the_longest_of_a_batch():
    assert context_border(nn.Linear(2, 2)) is None
    for rope, border in (
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, None),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 24),
    ):
        model = nn.Module()
        model.config = LlamaConfig(**TEXT, max_position_embeddings=24, rope_parameters=rope)
        assert context_border(model) == border
