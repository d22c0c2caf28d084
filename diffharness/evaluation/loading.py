"""A model from lm-eval's model arguments: parsed, checked before long work starts, loaded or refused in one line."""

# lm-eval's decorators hide its signatures from type checkers.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lm_eval.utils import simple_parse_args_string

from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation.failures import TOKENIZER_REMEDY, adapter_base, explain, explain_tokenizer
from diffharness.evaluation.recording import RecordingModel
from diffharness.evaluation.weights import QUANTISATION, lacks_text_tokens

_PACKAGES = {
    "load_in_8bit": "bitsandbytes",
    "load_in_4bit": "bitsandbytes",
    "peft": "peft",
    "gptqmodel": "gptqmodel",
    "autogptq": "auto_gptq",
    "gguf_file": "gguf",
}
"""Model arguments that need a package which not every installation has."""

_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
_SWITCHES = ("trust_remote_code", "load_in_8bit", "load_in_4bit", "parallelize")


def parse_model_args(model: str) -> dict[str, Any]:
    """lm-eval model arguments of a folder, a Hub id, or a `key=value,...` string."""
    if "=" in model and not Path(model).exists():
        arguments = simple_parse_args_string(model)
        if "pretrained" not in arguments:
            raise UsageError(f"model arguments {model!r} name no model; add pretrained=FOLDER_OR_HUB_ID")
        return arguments
    return {"pretrained": model}


def is_missing_folder(name: str) -> bool:
    """Whether a model's name can only be a path, and nothing is there."""
    path = Path(name)
    return not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1)


def check_model_args(arguments: Mapping[str, Any], side: str | None = None) -> None:
    """Find what can not work, without loading anything.

    Args:
        arguments: lm-eval's, parsed.
        side: whose they are, for the message.

    Raises:
        UsageError: a folder that is no model's, a value that an argument does not take, a package that is missing.
    """
    _check_folder(arguments, f"the {side}'s folder" if side else "model folder")
    try:
        _check_values(arguments)
        _check_parts(arguments)
    except UsageError as error:
        raise UsageError(f"{_called(arguments, side)}: {error}") from None


def _called(arguments: Mapping[str, Any], side: str | None) -> str:
    return f"{f'the {side}' if side else 'model'} {str(arguments.get('pretrained'))!r}"


def _check_folder(arguments: Mapping[str, Any], called: str) -> None:
    name = str(arguments.get("pretrained"))
    path = Path(name, str(arguments.get("subfolder") or ""))
    if is_missing_folder(name):
        raise UsageError(f"{called} {name} does not exist; give a model folder or a Hub id")
    if not Path(name).is_dir() or (path / "config.json").is_file() or arguments.get("gguf_file"):
        return
    if (path / "adapter_config.json").is_file():
        base = adapter_base(path) or "BASE"
        raise UsageError(f"{called} {path} holds an adapter and no model; give pretrained={base},peft={path}")
    raise UsageError(f"{called} {path} holds no config.json; give a Hugging Face model folder")


def _check_values(arguments: Mapping[str, Any]) -> None:
    for key in _SWITCHES:
        if arguments.get(key) not in (None, True, False):
            raise UsageError(f"{key}={arguments[key]} is no switch; give {key}=True or {key}=False")
    for key, package in _PACKAGES.items():
        if arguments.get(key) and find_spec(package) is None:
            name = package.replace("_", "-")
            raise UsageError(f"{key} needs {name}; pip install {name}")
    flags = [key for key in QUANTISATION[:2] if arguments.get(key)]
    if len(flags) > 1:
        raise UsageError("load_in_8bit and load_in_4bit exclude one another; give one of them")
    for key in QUANTISATION[2:]:
        needed = ("load_in_4bit",) if key.startswith("bnb_4bit") else ("load_in_8bit", "load_in_4bit")
        if arguments.get(key) is not None and not set(needed) & set(flags):
            raise UsageError(f"{key} does nothing without {needed[0]}=True; add that, or leave {key} out")
    for key in ("dtype", "softmax_dtype", "mixed_precision_dtype", "bnb_4bit_compute_dtype"):
        value = arguments.get(key)
        if isinstance(value, str) and value != "auto" and not isinstance(getattr(torch, value, None), torch.dtype):
            raise UsageError(f"{key}={value} is no dtype of torch; give float32, bfloat16 or float16")
    if "device_map_option" in arguments:
        raise UsageError("device_map_option is of older lm-evals; give device_map")


def _check_parts(arguments: Mapping[str, Any]) -> None:
    tokenizer, adapter = arguments.get("tokenizer"), arguments.get("peft")
    if tokenizer and is_missing_folder(str(tokenizer)):
        raise UsageError(f"tokenizer={tokenizer} does not exist; give a folder or a Hub id")
    if adapter and (is_missing_folder(str(adapter)) or Path(adapter).is_dir()):
        file = Path(adapter, "adapter_config.json")
        if not file.is_file():
            raise UsageError(f"peft={adapter} holds no adapter_config.json; give an adapter's folder or Hub id")


def read_architecture(arguments: Mapping[str, Any], side: str | None = None) -> tuple[Any, Any]:
    """A model's configuration and tokenizer as lm-eval would read them, without its weights.

    Custom code is refused, never asked about, unless `trust_remote_code=True`.

    Args:
        arguments: lm-eval's, parsed.
        side: whose they are, for the message.

    Raises:
        UsageError: they can not be read, or are of a model that can not be compared; with the remedy.
    """
    from transformers import AutoConfig, AutoTokenizer

    check_model_args(arguments, side)
    name, called = str(arguments["pretrained"]), _called(arguments, side)
    common: dict[str, Any] = {
        "revision": str(arguments.get("revision") or "main"),
        "trust_remote_code": bool(arguments.get("trust_remote_code")),
        "subfolder": str(arguments.get("subfolder") or ""),
    }
    gguf = {"gguf_file": arguments["gguf_file"]} if arguments.get("gguf_file") else {}
    try:
        config = AutoConfig.from_pretrained(name, **common, **gguf)
    except Exception as error:
        wrong = "can not be read" if Path(name).is_dir() else "is neither a model folder nor a Hub model within reach"
        raise UsageError(f"{called} {wrong}: {explain(error)}") from error
    _check_causal(config, arguments, called)
    own = not arguments.get("tokenizer")
    source = name if own else str(arguments["tokenizer"])
    more = gguf if gguf and own else {"use_fast": arguments.get("use_fast_tokenizer", True)}
    if arguments.get("add_bos_token") is not None:
        more = {**more, "add_bos_token": arguments["add_bos_token"]}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **common, **more)
    except Exception as error:
        raise UsageError(f"{called} can not be read: {explain_tokenizer(error, source)}") from error
    if lacks_text_tokens(tokenizer):
        raise UsageError(f"{called} can not be read: {source} has no tokenizer's files; {TOKENIZER_REMEDY}")
    return config, tokenizer


def _check_causal(config: Any, arguments: Mapping[str, Any], called: str) -> None:
    """Refuse what lm-eval would load as an encoder-decoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as ENCODER_DECODERS

    backend = arguments.get("backend") or "default"
    if backend == "seq2seq" or (backend == "default" and config.model_type in ENCODER_DECODERS):
        raise UsageError(f"{called} ({config.model_type}) is not a causal language model; only those can be compared")


def load_model(model: str, *, batch_size: int | str, device: str | None) -> RecordingModel:
    """Load a model for recording, exactly as lm-eval's `hf` would.

    Args:
        model: a folder, a Hub id, or lm-eval's `key=value,...`.
        batch_size: lm-eval's.
        device: a GPU where there is one, if none is given.

    Raises:
        UsageError: what was asked for can not work.
        RunError: the model can not be loaded, with the library's first line.
    """
    return create_model(parse_model_args(model), {"batch_size": batch_size, "max_batch_size": None, "device": device})


def create_model(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> RecordingModel:
    """Load a model from lm-eval's parsed arguments and options; arguments, which are of one model, go before options.

    Where lm-eval would do nothing or something else, it is done here: `device_map` alone spreads a model, and what is
    offloaded to disk goes to a temporary folder unless `offload_folder` is given.

    Raises:
        UsageError: what was asked for can not work.
        RunError: it can not be loaded, with the library's first line.
    """
    check_model_args(arguments)
    called = _called(arguments, None)
    arguments, options = _placed(arguments, options, called)
    with ExitStack() as stack:
        if arguments.get("parallelize") and not arguments.get("offload_folder"):
            folder = tempfile.TemporaryDirectory(prefix="diffharness-offload-")
            arguments["offload_folder"] = stack.enter_context(folder)
        try:
            model = RecordingModel.create_from_arg_obj(arguments, options)
        except DiffharnessError:
            raise
        except Exception as error:
            raise RunError(f"{called} can not be loaded: {explain(error)}") from error
        weakref.finalize(model, stack.pop_all().close)
    model.hf_model.requires_grad_(False)
    return model


def _placed(
    arguments: Mapping[str, Any], options: Mapping[str, Any], called: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and options in which lm-eval puts the model where `device` or `device_map` says.

    lm-eval drops a `device_map` without `parallelize=True`, and with it gives a model no memory outside of GPUs.
    """
    arguments = dict(arguments)
    options = {key: value for key, value in options.items() if key not in arguments}
    places = _places(arguments.get("device_map"))
    if places and not arguments.get("parallelize"):
        if len(places) > 1 or places[0] in _SPREAD:
            arguments["parallelize"] = True
            arguments.setdefault("max_cpu_memory", _free_memory())
        else:
            del arguments["device_map"]
            options.pop("device", None)
            arguments["device"] = places[0]
    if not (arguments.get("device") or options.get("device")):
        arguments.pop("device", None)
        options["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    device = str(arguments.get("device") or options["device"])
    for place in (device, *places):
        if place not in (*_SPREAD, "disk"):
            _check_device(place, called)
    return arguments, options


def _places(device_map: Any) -> list[str]:
    """What a `device_map` names: one of `_SPREAD`, or devices (a number is a GPU)."""
    values = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    return sorted({f"cuda:{v}" if isinstance(v, int) else str(v) for v in values if v is not None})


def _free_memory() -> int:
    from accelerate.utils import get_max_memory

    return int(get_max_memory()["cpu"])


def _check_device(name: str, called: str) -> None:
    """Refuse a GPU that is not there, in whose place lm-eval would take another device."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{called}: {name!r} is no device; give one such as cpu, cuda:0 or mps") from None
    n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        there = f"cuda:0 to cuda:{n_gpus - 1}" if n_gpus else "cpu only"
        raise UsageError(f"{called}: {name} is not on this machine; it has {there}")
