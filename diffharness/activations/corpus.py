"""Texts to harvest activations from: read, tokenised, cut to the context, sampled to a token budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffharness.errors import UsageError


@dataclass(frozen=True)
class Text:
    """One sequence to read, and where it is from."""

    ids: tuple[int, ...]
    source: str


def read_texts(path: Path) -> list[str]:
    """The `text` of every line of a JSONL file.

    Raises:
        UsageError: the file is absent or empty, or a line is not a JSON object with a `text`.
    """
    if not path.is_file():
        raise UsageError(f"--corpus {path} is not a file; give a JSONL file with a `text` in every line")
    texts = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text = json.loads(line.decode())["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise UsageError(f"--corpus {path}, line {number}: not a JSON object with a `text`")
            texts.append(text)
    if not texts:
        raise UsageError(f"--corpus {path} is empty; give a JSONL file with a `text` in every line")
    return texts


def sample_texts(
    corpora: Sequence[Path],
    tokenize: Callable[[str], list[int]],
    *,
    n_tokens: int,
    rng: np.random.Generator,
) -> list[Text]:
    """Texts in random order until their tokens (the first of each not counted) reach the budget.

    Each corpus gets an equal share of the budget, as far as it reaches.
    """
    chosen: list[Text] = []
    for position, path in enumerate(corpora):
        texts = read_texts(path)
        budget = (n_tokens - _n_tokens(chosen)) // (len(corpora) - position)
        taken = 0
        for index in rng.permutation(len(texts)):
            if taken >= budget:
                break
            ids = tuple(tokenize(texts[index]))
            if len(ids) > 1:
                chosen.append(Text(ids, f"{path.name}:{index + 1}"))
                taken += len(ids) - 1
    if not chosen:
        raise UsageError(f"no text in {', '.join(map(str, corpora))} has two tokens; give longer texts")
    return chosen


def _n_tokens(texts: Sequence[Text]) -> int:
    return sum(len(text.ids) - 1 for text in texts)
