import json
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, dynamic_module_utils

from diffharness.activations.capture import LayerReader, UpperStack
from diffharness.activations.layers import decoder_layers
from diffharness.activations.replay import replay
from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation.harness import load_model
from tests.tiny import save_model

REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
"""


def ids(n_rows: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(4, 30, (n_rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "base", seed=3)


@pytest.fixture
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def adapter(folder):
    """A LoRA adapter that changes what the model computes."""
    torch.manual_seed(4)
    settings = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings).save_pretrained(folder.parent / "adapter")
    return folder.parent / "adapter"


def check_reading_and_continuing(model, layer: int = 1) -> torch.Tensor:
    own = model(ids(), output_hidden_states=True)
    state = LayerReader(model, layer).read(ids())
    assert torch.equal(state, own.hidden_states[layer + 1])
    torch.testing.assert_close(UpperStack(model, layer).logits(ids(), state), own.logits, rtol=0, atol=1e-5)
    return state


def test_upper_stack_leaves_the_model_as_it_was(model):
    before = model(ids()).logits
    UpperStack(model, 1).logits(ids(), torch.zeros(3, 7, 16))
    torch.testing.assert_close(model(ids()).logits, before, rtol=0, atol=0)


def test_gradient_reaches_the_given_state_and_nothing_below(model):
    state = LayerReader(model, 1).read(ids()).requires_grad_(True)
    UpperStack(model, 1).logits(ids(), state)[:, -1].logsumexp(-1).sum().backward()
    assert state.grad is not None
    assert float(state.grad.abs().sum()) > 0
    assert all(p.grad is None for p in model.parameters())


def test_a_state_of_another_dtype_is_given_to_the_model_in_its_own(model):
    own = model.bfloat16()(ids()).logits
    state = LayerReader(model, 1).read(ids()).float().requires_grad_(True)
    logits = UpperStack(model, 1).logits(ids(), state)
    assert torch.equal(logits, own)
    logits.float().sum().backward()
    assert state.grad is not None
    assert state.grad.dtype == torch.float32


@pytest.mark.parametrize("layers", [3, -1, [], [0, 7]])
def test_layers_that_the_model_does_not_have_are_refused(model, layers):
    with pytest.raises(UsageError, match="has 0 to 2"):
        LayerReader(model, layers)


def test_the_only_layer_is_asked_for_only_where_there_is_one(model):
    assert LayerReader(model, [2]).layer == 2
    with pytest.raises(ValueError, match="unpack"):
        LayerReader(model, [1, 2]).read(ids())


def test_blocks_are_found_by_a_path_that_leaves_out_the_adapters_wrapper(model, adapter):
    wrapped = load_model(f"pretrained={adapter.parent / 'base'},peft={adapter}", batch_size=2, device="cpu").hf_model
    x, y = (LayerReader(wrapped, 1, path=path).read(ids()) for path in (None, "model.layers"))
    assert torch.equal(x, y)


def test_an_adapted_model_is_read_and_continued_with_its_adapter(model, folder, adapter):
    wrapped = load_model(f"pretrained={folder},peft={adapter}", batch_size=2, device="cpu").hf_model
    assert "base_model" in decoder_layers(wrapped)[0]
    state = check_reading_and_continuing(wrapped)
    assert not torch.allclose(state, LayerReader(model, 1).read(ids()), atol=1e-3)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(LayerReader(merged, 1).read(ids()), state, rtol=0, atol=1e-5)


def test_an_adapter_that_adds_tokens_is_refused(model):
    tuned = get_peft_model(model, PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")).eval()
    with pytest.raises(UsageError, match=r"shape \(3, 7\) with states of shape \(3, 11, 16\)"):
        LayerReader(tuned, 1).read(ids())


def test_dtype_revision_and_adapter_pass_through_as_model_arguments(folder, adapter):
    arguments = f"pretrained={folder},peft={adapter},dtype=bfloat16,revision=main"
    wrapped = load_model(arguments, batch_size=2, device="cpu").hf_model
    assert check_reading_and_continuing(wrapped).dtype == torch.bfloat16


def test_a_model_spread_by_a_device_map_is_read_beside_one_that_is_not(folder, model, tmp_path):
    spread = load_model(f"pretrained={folder},parallelize=True,offload_folder={tmp_path}", batch_size=2, device="cpu")
    assert spread.hf_model.hf_device_map
    check_reading_and_continuing(spread.hf_model)
    (batch,) = replay([LayerReader(spread.hf_model, 1), LayerReader(model, 1)], ids().tolist())
    assert torch.equal(batch.x_BTMD[:, :, 0], batch.x_BTMD[:, :, 1])


def test_code_that_comes_with_a_model_runs_only_where_it_is_trusted(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    (odd / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{REMOTE}")
    settings = json.loads((odd / "config.json").read_text())
    settings |= {"model_type": "odd", "architectures": ["OddForCausalLM"]}
    settings["auto_map"] = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    (odd / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="custom code"):
        load_model(f"pretrained={odd}", batch_size=2, device="cpu")
    assert not (tmp_path / "ran").exists()
    trusted = load_model(f"pretrained={odd},trust_remote_code=True", batch_size=2, device="cpu").hf_model
    assert (tmp_path / "ran").exists()
    check_reading_and_continuing(trusted)


@pytest.mark.parametrize("argument", ["load_in_8bit=True", "dtype=bfloat17", "peft=nowhere"])
def test_what_the_loader_can_not_do_ends_in_one_line(folder, argument):
    with pytest.raises(DiffharnessError) as failure:
        load_model(f"pretrained={folder},{argument}", batch_size=2, device="cpu")
    assert str(folder) in str(failure.value)
    assert "\n" not in str(failure.value)
