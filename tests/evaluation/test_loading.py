"""What lm-eval's model arguments do, and how a model that can not be loaded is refused."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    CLIPConfig,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    dynamic_module_utils,
)

from diffharness.cli import main
from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation import loading
from diffharness.evaluation.failures import explain, explain_weights
from tests.tiny import save_model, tokenizer

OPTIONS = {"batch_size": 2, "device": "cpu"}
REMOTE_MODEL = """
from transformers import LlamaConfig, LlamaForCausalLM

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
"""
REMOTE_TOKENIZER = """
from transformers import PreTrainedTokenizerFast

class OddTokenizer(PreTrainedTokenizerFast):
    pass
"""


def load(arguments: str, **options: object):
    return loading.create_model(loading.parse_model_args(arguments), {**OPTIONS, **options})


def one_line(arguments: str) -> str:
    with pytest.raises(DiffharnessError) as failure:
        load(arguments)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(scope="module")
def base(tiny) -> Path:
    return tiny.baseline


@pytest.fixture
def copy(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    return folder


@pytest.fixture
def passed(monkeypatch) -> list[dict]:
    """What reaches transformers, which then loads without quantisation."""
    calls: list[dict] = []
    whole = AutoModelForCausalLM.from_pretrained

    def watched(name: str, **kwargs: object):
        calls.append(dict(kwargs))
        return whole(name, **{**kwargs, "quantization_config": None})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    monkeypatch.setattr(loading, "find_spec", lambda _: object())
    return calls


@pytest.fixture
def odd(copy, tmp_path, monkeypatch) -> Path:
    """A model whose class is a file beside it, which leaves a mark when it runs."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (copy / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{REMOTE_MODEL}")
    auto_map = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    rewrite(copy / "config.json", model_type="odd", architectures=["OddForCausalLM"], auto_map=auto_map)
    return copy


@pytest.mark.parametrize("flag", ["load_in_8bit", "load_in_4bit"])
def test_quantisation_reaches_transformers_as_it_wants_it(base, passed, flag):
    more = ",bnb_4bit_compute_dtype=bfloat16,bnb_4bit_quant_type=nf4" if "4" in flag else ",llm_int8_threshold=5"
    load(f"pretrained={base},{flag}=True{more}")
    (call,) = passed
    config = call["quantization_config"]
    assert isinstance(config, BitsAndBytesConfig)
    assert (config.load_in_8bit, config.load_in_4bit) == (flag == "load_in_8bit", flag == "load_in_4bit")
    if config.load_in_4bit:
        assert (config.bnb_4bit_compute_dtype, config.bnb_4bit_quant_type) == (torch.bfloat16, "nf4")
    else:
        assert config.llm_int8_threshold == 5.0
    assert not [key for key in call if key.startswith(("load_in", "bnb", "llm_int8"))]


def test_a_quantisation_that_is_switched_off_changes_nothing(base, passed):
    load(f"pretrained={base},load_in_8bit=False")
    assert passed[0]["quantization_config"] is None
    assert "load_in_8bit" not in passed[0]


def test_a_model_that_is_quantised_already_is_not_quantised_again(copy, passed):
    rewrite(copy / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert "is stored quantised already; leave load_in_8bit=True out" in one_line(
        f"pretrained={copy},load_in_8bit=True"
    )
    load(f"pretrained={copy}")
    assert passed[0]["quantization_config"].load_in_4bit


def test_a_package_that_is_missing_is_named(base, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    needed = {"load_in_8bit=True": "bitsandbytes", "peft=a/b": "peft", "autogptq=True": "auto-gptq"}
    for argument, package in needed.items():
        with pytest.raises(UsageError) as failure:
            load(f"pretrained={base},{argument}")
        assert str(failure.value).endswith(f"{argument.split('=')[0]} needs {package}; pip install {package}")


def test_dtype_and_revision_reach_transformers(base, passed):
    load(f"pretrained={base},dtype=bfloat16,revision=abc")
    load(str(base))
    assert [(call["dtype"], call["revision"]) for call in passed] == [(torch.bfloat16, "abc"), ("auto", "main")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("load_in_8bit=True,load_in_4bit=True", "exclude one another; give one"),
        ("bnb_4bit_quant_type=nf4", "bnb_4bit_quant_type does nothing without load_in_4bit=True; add that"),
        ("trust_remote_code=off", "trust_remote_code=off is no switch; give trust_remote_code=True"),
        ("dtype=bfloat17", "dtype=bfloat17 is no dtype of torch; give float32"),
        ("device_map_option=auto", "device_map_option is of older lm-evals; give device_map"),
        ("device_map=cuda:99", "cuda:99 is not on this machine; it has"),
        ("device_map=gpu", "'gpu' is no device; give one such as cpu"),
        ("tokenizer=./nowhere", "tokenizer=./nowhere does not exist; give a folder"),
        ("peft=./nowhere", "peft=./nowhere holds no adapter_config.json; give an adapter's folder"),
        ("peft=nobody/nothing", "nobody/nothing'; give an adapter's folder or a Hub id"),
        ("colour=red", "colour is an argument neither of lm-eval's `hf` nor of this model; leave it out"),
    ],
)
def test_an_argument_that_can_not_work_is_named_with_the_remedy(base, monkeypatch, arguments, message):
    monkeypatch.setattr(loading, "find_spec", lambda _: object())
    line = one_line(f"pretrained={base},{arguments}")
    assert str(base) in line
    assert message in line


def test_a_device_map_of_one_place_is_that_device_and_goes_before_the_option(base, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(loading, "_check_device", lambda name, _: asked.append(name))
    model = load(f"pretrained={base},device_map=cpu", device="cuda:1")
    assert model.device == torch.device("cpu")
    assert set(asked) == {"cpu"}


def test_a_device_map_alone_spreads_the_model(base, passed):
    load(f"pretrained={base},device_map=auto")
    loading.create_model({"pretrained": str(base), "device_map": {"model": "cpu", "lm_head": "disk"}}, OPTIONS)
    assert [call["device_map"] for call in passed] == ["auto", {"model": "cpu", "lm_head": "disk"}]
    assert passed[0]["max_memory"]["cpu"] > 0


def test_what_is_offloaded_goes_to_a_temporary_folder_unless_one_is_given(base, passed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load(f"pretrained={base},parallelize=True")
    folder = Path(passed[0]["offload_folder"])
    assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    del model
    gc.collect()
    assert not folder.exists()
    load(f"pretrained={base},parallelize=True,offload_folder=given")
    assert passed[1]["offload_folder"] == "given"
    assert (tmp_path / "given").is_dir()


def test_code_of_a_model_runs_only_where_it_is_trusted(odd, tmp_path):
    remedy = (
        f"{odd} comes with custom code; add trust_remote_code=True to the model arguments, if you trust its authors"
    )
    assert one_line(str(odd)).endswith(remedy)
    with pytest.raises(UsageError) as failure:
        loading.read_architecture({"pretrained": str(odd)}, "candidate")
    assert str(failure.value) == f"the candidate {str(odd)!r} can not be read: {remedy}"
    assert not (tmp_path / "ran").exists()
    assert type(load(f"pretrained={odd},trust_remote_code=True").hf_model).__name__ == "OddForCausalLM"
    config, _ = loading.read_architecture({"pretrained": str(odd), "trust_remote_code": True})
    assert config.model_type == "odd"


def test_code_of_a_tokenizer_runs_only_where_it_is_trusted(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (copy / "odd_tokenizer.py").write_text(REMOTE_TOKENIZER)
    auto_map = {"AutoTokenizer": [None, "odd_tokenizer.OddTokenizer"]}
    rewrite(copy / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="OddTokenizer")
    assert "comes with custom code; add trust_remote_code=True" in one_line(str(copy))
    with pytest.raises(UsageError, match="comes with custom code; add trust_remote_code=True"):
        loading.read_architecture({"pretrained": str(copy)})
    assert type(load(f"pretrained={copy},trust_remote_code=True").hf_tokenizer).__name__ == "OddTokenizer"


def test_an_adapter_is_put_on_the_model(base, adapter):
    names = [name for name, _ in load(f"pretrained={base},peft={adapter}").hf_model.named_parameters()]
    assert sum("lora_A" in name for name in names) == 3


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"hidden_size": 32}, "size mismatch for base_model.model.model.layers.0.self_attn.q_proj.lora_A"),
        ({"num_hidden_layers": 4}, "it has no weights for base_model.model.model.layers.3.self_attn.q_proj.lora_A"),
        ({"num_hidden_layers": 2}, "the model has no place for its base_model.model.model.layers.2.self_attn.q_proj"),
    ],
)
def test_an_adapter_of_another_model_is_refused(base, adapter, tmp_path, sizes, reason):
    other = save_model(tmp_path / "other", seed=0, **sizes)
    line = one_line(f"pretrained={other},peft={adapter}")
    assert f"the adapter {adapter} does not fit: " in line
    assert reason in line
    assert line.endswith(f"it was made for {base}")


def test_an_adapter_on_a_model_that_lies_on_disk_is_refused(base, adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "can not be put on it; give max_cpu_memory" in one_line(f"pretrained={base},peft={adapter},parallelize=True")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_given_as_a_model_gets_the_remedy(base, adapter):
    assert one_line(str(adapter)).endswith(f"holds an adapter and no model; give pretrained={base},peft={adapter}")


def test_weights_that_are_cut_off_are_named(copy):
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    for n_bytes in (len(whole) - 100, 100):
        weights.write_bytes(whole[:n_bytes])
        line = one_line(str(copy))
        assert f"{weights} is cut off or altered" in line
        assert line.endswith("copy or download it again")


def test_a_pickle_that_can_not_be_read_is_no_reason_to_trust_it(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert one_line(str(copy)).endswith(
        f"{copy / 'pytorch_model.bin'} is cut off, altered or holds more than tensors; download it again, or take it "
        "as safetensors"
    )


def test_weights_that_the_checkpoint_lacks_are_never_random(copy):
    tensors = load_file(copy / "model.safetensors")
    rest = {key: tensor for key, tensor in tensors.items() if "layers.1.mlp" not in key}
    save_file(rest, copy / "model.safetensors", {"format": "pt"})
    line = one_line(str(copy))
    assert "its weights lack 'model.layers.1.mlp.down_proj.weight' and 2 more, which would be random numbers" in line


def test_weights_that_are_tied_are_not_missed(tmp_path):
    tied = save_model(tmp_path / "tied", seed=0, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    load(str(tied))


def test_a_checkpoint_without_a_part_names_the_part_and_the_remedy(copy):
    (copy / "model.safetensors").unlink()
    assert one_line(str(copy)).endswith(f"found in directory {copy}; copy it there, or download the model again")
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    line = one_line(str(copy))
    assert f"no tokenizer can be made of {copy}" in line
    assert line.endswith("or add tokenizer=FOLDER_OR_HUB_ID to the model arguments")
    (copy / "config.json").unlink()
    assert one_line(str(copy)) == f"model folder {copy} holds no config.json; give a Hugging Face model folder"


def test_a_tokenizer_that_transformers_makes_of_no_files_is_refused(base, tmp_path):
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=38, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert f"{tmp_path} has no tokenizer's files; copy" in one_line(str(tmp_path))
    with pytest.raises(UsageError, match=r"the ancestor .* has no tokenizer's files; copy"):
        loading.read_architecture({"pretrained": str(tmp_path)}, "ancestor")
    load(f"pretrained={tmp_path},tokenizer={base}")


def test_weights_of_other_shapes_and_other_kinds_of_models_are_refused(copy):
    rewrite(copy / "config.json", hidden_size=32)
    assert one_line(str(copy)).endswith("other shapes than its config.json says; take both from one checkpoint")
    CLIPConfig().save_pretrained(copy)
    assert one_line(str(copy)).endswith("CLIPConfig is of no causal language model; only those can be compared")


def test_memory_that_runs_out_is_one_line_with_the_remedy(base, monkeypatch):
    def runs_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 9 GiB.\nGPU 0 has a total capacity of 1 GiB"
        )

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", runs_out)
    with pytest.raises(RunError) as failure:
        load(str(base))
    assert str(failure.value) == (
        f"model {str(base)!r} can not be loaded: CUDA out of memory. Tried to allocate 9 GiB; give dtype=bfloat16, "
        "device_map=auto or another device"
    )


def test_failures_without_words_are_still_named(tmp_path):
    assert explain(ValueError()) == "ValueError"
    assert explain_weights(KeyError("a\nb"), tmp_path) == r"'a\nb'"


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    T5Config().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(encoder_decoder):
    assert one_line(str(encoder_decoder)).endswith("is not a causal language model; only those can be compared")


def run(tiny_options, output: Path, **changes: object) -> tuple[int, str]:
    options = {**tiny_options, "output": output, **changes}
    flags = []
    for name, value in options.items():
        flags += [f"--{name.replace('_', '-')}", str(value[0] if isinstance(value, list) else value)]
    result = CliRunner().invoke(main, ["run", *flags])
    lines = [line for line in result.stderr.splitlines() if not line.startswith("✓")]
    assert len(lines) == 1
    assert not output.exists()
    return result.exit_code, lines[0]


def test_a_run_refuses_untrusted_code_and_missing_packages_before_any_work(
    tiny_options, odd, encoder_decoder, tmp_path
):
    output = tmp_path / "run"
    code, line = run(tiny_options, output, candidate=odd)
    assert (code, line) == (
        2,
        f"diffharness: the candidate {str(odd)!r} can not be read: {odd} comes with custom code; add "
        "trust_remote_code=True to the model arguments, if you trust its authors",
    )
    code, line = run(tiny_options, output, candidate=encoder_decoder)
    assert (code, "(t5) is not a causal language model; only those can be compared" in line) == (2, True)
    code, line = run(tiny_options, output, candidate=f"pretrained={tiny_options['baseline']},bnb_4bit_quant_type=nf4")
    assert (code, "bnb_4bit_quant_type does nothing without load_in_4bit=True" in line) == (2, True)
