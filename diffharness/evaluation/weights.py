"""How lm-eval's `hf` model comes to its parts: quantised where asked, and refused where a part would be made up.

What lm-eval and transformers only warn of ends the run: a tokenizer made of no files, weights that the checkpoint lacks
and that would be random numbers, adapter weights that find no place.
"""

# lm-eval types its class attributes by their first value, which is None.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import BitsAndBytesConfig, PreTrainedModel

from diffharness.errors import DiffharnessError, RunError, UsageError
from diffharness.evaluation.failures import TOKENIZER_REMEDY, explain_adapter, explain_tokenizer, explain_weights

QUANTISATION = (
    "load_in_8bit", "load_in_4bit",
    "bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage",
    "llm_int8_threshold", "llm_int8_skip_modules", "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight",
)  # fmt: skip
"""Model arguments that transformers takes as a `BitsAndBytesConfig` only."""

_FATAL_WARNINGS = ("Found missing adapter keys", ".*copying from a non-meta parameter in the checkpoint to a meta")


class CheckedHFLM(HFLM):
    """lm-eval's `hf` model, whose tokenizer, weights and adapter are all there."""

    def _get_backend(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super()._get_backend(config, *args, **kwargs)
        if self.backend != "causal":
            name = getattr(config, "_name_or_path", "") or getattr(config, "model_type", "the model")
            raise UsageError(f"{name} is not a causal language model; only those can be compared")

    def _create_tokenizer(self, pretrained: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        name = pretrained if isinstance(pretrained, str) else pretrained.name_or_path
        source = tokenizer if isinstance(tokenizer, str) else name
        try:
            super()._create_tokenizer(pretrained, tokenizer, *args, **kwargs)
        except Exception as error:
            raise RunError(f"model {name!r} can not be loaded: {explain_tokenizer(error, source)}") from error
        if lacks_text_tokens(self.tokenizer):
            raise RunError(f"model {name!r} can not be loaded: {source} has no tokenizer's files; {TOKENIZER_REMEDY}")

    def _create_model(self, pretrained: str, **kwargs: Any) -> None:
        quantisation = {key: kwargs.pop(key) for key in QUANTISATION if key in kwargs}
        if quantisation:
            kwargs["quantization_config"] = quantisation_config(quantisation, self.config)
        adapter = kwargs.get("peft")
        auto_class = self.AUTO_MODEL_CLASS
        loader = self.AUTO_MODEL_CLASS = _WholeLoader(auto_class, adapter)
        try:
            with warnings.catch_warnings():
                for message in _FATAL_WARNINGS:
                    warnings.filterwarnings("error", message=message)
                super()._create_model(pretrained, **kwargs)
            if adapter:
                _check_adapter(self.model, adapter, kwargs.get("revision"))
        except DiffharnessError:
            raise
        except Exception as error:
            of_adapter = adapter and loader.done
            folder = Path(pretrained, kwargs.get("subfolder") or "")
            reason = explain_adapter(error, adapter) if of_adapter else explain_weights(error, folder)
            raise RunError(f"model {pretrained!r} can not be loaded: {reason}") from error
        finally:
            self.AUTO_MODEL_CLASS = auto_class


class _WholeLoader:
    """Stands in for transformers' class while lm-eval loads weights with it, to see what the checkpoint lacks."""

    def __init__(self, auto_class: Any, adapter: str | None) -> None:
        self._auto_class = auto_class
        self._adapter = adapter
        self.done = False

    def from_pretrained(self, name: str, **kwargs: Any) -> PreTrainedModel:
        """As transformers'.

        Raises:
            RunError: a parameter is not in the checkpoint.
            UsageError: the model lies partly on disk, where it can take no adapter.
        """
        model, found = self._auto_class.from_pretrained(name, output_loading_info=True, **kwargs)
        parameters = dict(model.named_parameters())
        missing = sorted(key for key in found["missing_keys"] if key in parameters)
        if missing:
            raise RunError(
                f"model {name!r} can not be loaded: its weights lack {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' * (len(missing) > 1)}, which would be random numbers; complete them"
            )
        if self._adapter and "disk" in (getattr(model, "hf_device_map", None) or {}).values():
            raise UsageError(
                f"model {name!r} does not fit into memory and lies partly on disk, where the adapter {self._adapter} "
                "can not be put on it; give max_cpu_memory (such as 64GiB), or a smaller dtype"
            )
        self.done = True
        return model


def lacks_text_tokens(tokenizer: Any) -> bool:
    """Whether a tokenizer knows special tokens only: transformers makes such a one where there are no files."""
    return set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens)


def quantisation_config(arguments: Mapping[str, Any], model_config: Any) -> BitsAndBytesConfig | Any:
    """What transformers wants in place of lm-eval's quantisation arguments.

    Args:
        arguments: those of `QUANTISATION`.
        model_config: of the model, which may be quantised already.

    Raises:
        UsageError: it is, or the arguments contradict one another.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    stored = getattr(model_config, "quantization_config", None)
    flag = next((key for key in QUANTISATION[:2] if given.get(key)), None)
    if flag is None:
        return stored
    if stored is not None:
        raise UsageError(f"the model is stored quantised already; leave {flag}=True out")
    if "llm_int8_threshold" in given:
        given["llm_int8_threshold"] = float(given["llm_int8_threshold"])
    if isinstance(given.get("llm_int8_skip_modules"), str):
        given["llm_int8_skip_modules"] = given["llm_int8_skip_modules"].split()
    return BitsAndBytesConfig(**{key: bool(value) if key.startswith("load") else value for key, value in given.items()})


def _check_adapter(model: Any, adapter: str, revision: str | None) -> None:
    """Refuse an adapter with weights that the model has no place for, which peft leaves out in silence."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    prefix = str(getattr(model.base_model, "prefix", "") or "")
    if not prefix:  # prompts, which are whole or fail
        return
    stored = load_peft_weights(adapter, device="cpu", revision=revision)
    taken = get_peft_model_state_dict(model, save_embedding_layers=False)
    left_out = sorted(key for key in stored.keys() - taken.keys() if prefix in key)
    if left_out:
        raise ValueError(f"the model has no place for its {left_out[0]}")
