"""What has to fit between models, read from their files without loading weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffharness.errors import UsageError


@dataclass(frozen=True)
class Architecture:
    """What has to fit between the models, read without loading weights."""

    hidden_size: int
    n_layers: int
    tokenizer: Any
    vocabulary: Mapping[str, int]
    special_ids: frozenset[int]


def read_architecture(side: str, arguments: Mapping[str, Any]) -> Architecture:
    """That of one side's model, from its lm-eval arguments.

    Raises:
        UsageError: it is no language model of one decoder, or can not be read.
    """
    from diffharness.evaluation import loading

    config, tokenizer = loading.read_architecture(arguments, side)
    try:
        text = config.get_text_config(decoder=True)
        sizes = text.hidden_size, text.num_hidden_layers
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"the {side} {arguments['pretrained']!r} ({config.model_type}) is no language model of one decoder; only "
            "those can be compared"
        ) from error
    return Architecture(*sizes, tokenizer, tokenizer.get_vocab(), frozenset(tokenizer.all_special_ids))
