"""Texts to harvest activations from: read, tokenised, cut to the context, sampled to a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffharness.activations.corpora import CorpusSpec
from diffharness.errors import UsageError

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from diffharness.activations.sources import Source


@dataclass(frozen=True)
class Text:
    """One sequence to read, and where it is from."""

    ids: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class SourceCount:
    """What one source gave."""

    source: str
    n_documents: int
    n_sequences: int
    n_tokens: int
    """The first of each sequence not counted."""
    share: float
    """Of all tokens of the sample."""


@dataclass(frozen=True)
class Sample:
    """Sequences to read, and what each source gave of them."""

    texts: list[Text]
    """The documents of all sources in one random order, each document's sequences in turn."""
    counts: list[SourceCount]
    notes: tuple[str, ...]


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool, verbose: bool) -> list[int]:
        """Ids of a text, not truncated; `verbose` warns of texts longer than the context."""
        ...


def sample_corpus(
    specs: Sequence[CorpusSpec],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    n_tokens: int,
    rng: np.random.Generator,
    tasks: Mapping[str, Task] | None = None,
    add_special_tokens: bool = True,
) -> Sample:
    """Documents of every source in random order until the token budget is reached, as sequences of the context.

    The budget is split by weight; what one source lacks is given to the others by theirs. A document longer than
    the context is cut into several sequences, none of which crosses a document's border.

    Args:
        specs: the corpora.
        tokenizer: a transformers tokenizer.
        max_length: tokens of the context.
        n_tokens: the budget; the first token of a sequence does not count.
        rng: decides the order.
        tasks: the run's tasks by name, where `tasks` is among the corpora.
        add_special_tokens: whether a text starts with the tokenizer's special tokens (lm-eval's `add_bos_token`).

    Raises:
        UsageError: a corpus is absent or malformed, or has no text of two tokens.
        RunError: a streamed dataset breaks off.
    """
    from diffharness.activations.sources import open_sources

    sources, left_out = open_sources(specs, tasks)
    cutter = _Cutter.of(tokenizer, max_length, add_special_tokens)
    draws = [_Draw.of(source, cutter, own) for source, own in zip(sources, rng.spawn(len(sources)), strict=True)]
    _fill(draws, n_tokens)
    total = sum(draw.n_tokens for draw in draws)
    if not total:
        raise UsageError(f"no text in {', '.join(map(str, specs))} has two tokens; give longer texts")
    counts = [
        SourceCount(d.source.name, len(d.documents), sum(map(len, d.documents)), d.n_tokens, d.n_tokens / total)
        for d in draws
    ]
    documents = [document for draw in draws for document in draw.documents]
    texts = [text for i in rng.permutation(len(documents)) for text in documents[i]]
    return Sample(texts, counts, (*left_out, *_lacks(draws, n_tokens)))


def _lacks(draws: Sequence[_Draw], n_tokens: int) -> Iterator[str]:
    weights = sum(d.source.weight for d in draws)
    for draw in draws:
        share = n_tokens * draw.source.weight / weights
        if draw.exhausted and draw.n_tokens < share:
            yield f"{draw.source.name} has {draw.n_tokens:,} tokens in all, less than its share of {share:,.0f}"


@dataclass
class _Draw:
    """One source being drawn from."""

    source: Source
    sequences: Iterator[tuple[Text, bool]]
    """Every sequence, and whether it starts a document."""
    documents: list[list[Text]] = field(default_factory=list)
    n_tokens: int = 0
    exhausted: bool = False

    @classmethod
    def of(cls, source: Source, cutter: _Cutter, rng: np.random.Generator) -> _Draw:
        sequences = (
            (Text(ids, document.source), position == 0)
            for document in source.documents(rng)
            for position, ids in enumerate(cutter.cut(document.text))
        )
        return cls(source, sequences)

    def take(self, n_tokens: float) -> int:
        """Draw until `n_tokens` more are there; returns how many more there are."""
        before = self.n_tokens
        while self.n_tokens - before < n_tokens:
            drawn = next(self.sequences, None)
            if drawn is None:
                self.exhausted = True
                break
            text, starts = drawn
            if starts:
                self.documents.append([])
            self.documents[-1].append(text)
            self.n_tokens += len(text.ids) - 1
        return self.n_tokens - before


def _fill(draws: Sequence[_Draw], n_tokens: int) -> None:
    """Share the budget by weight; share out again what exhausted sources lack.

    What one takes over its share, by less than a sequence, the next takes less.
    """
    while (missing := n_tokens - sum(d.n_tokens for d in draws)) > 0:
        open_draws = [d for d in draws if not d.exhausted]
        if not open_draws:
            return
        weights, over = sum(d.source.weight for d in open_draws), 0.0
        for draw in open_draws:
            share = missing * draw.source.weight / weights
            over = max(over + draw.take(share - over) - share, 0.0)


@dataclass(frozen=True)
class _Cutter:
    """Turns a document into sequences of at most `max_length` ids."""

    tokenizer: Tokenizer
    max_length: int
    prefix: tuple[int, ...]
    """Special ids that the tokenizer puts before a text."""
    suffix: tuple[int, ...]
    """Special ids that it puts after one."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, max_length: int, add_special_tokens: bool) -> _Cutter:
        prefix, suffix = _special_ids(tokenizer) if add_special_tokens else ((), ())
        if max_length < len(prefix) + 2:
            raise UsageError(f"a context of {max_length} tokens is too short to read texts; give a larger max_length")
        return cls(tokenizer, max_length, prefix, suffix)

    def cut(self, text: str) -> Iterator[tuple[int, ...]]:
        """The document's sequences in order; what is left of less than two tokens is dropped."""
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))
        if self.prefix and ids[: len(self.prefix)] == self.prefix:  # written out in the text, as lm-eval looks for it
            ids = ids[len(self.prefix) :]
        if not ids:
            return
        ids, room = ids + self.suffix, self.max_length - len(self.prefix)
        for start in range(0, len(ids), room):
            piece = ids[start : start + room]
            if len(piece) > 1 or (start == 0 and self.prefix):
                yield self.prefix + piece


def _special_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a text."""
    plain, whole = (
        tuple(tokenizer.encode("a", add_special_tokens=special, verbose=False)) for special in (False, True)
    )
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise UsageError(
        "the tokenizer changes a text's own tokens where it adds special ones; such tokenizers can not be cut"
    )
