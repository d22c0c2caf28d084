"""Whether two tokenizers turn every text into the same ids: vocabulary, merges, scores, and what is done around them.

Tokens that only one side has are allowed and noted: whether anything uses them is asked where sequences are read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

from diffharness.errors import UsageError

SAMPLE = (
    "The quick brown foxes don't jump over 13 lazy dogs; it's 3.14159, or $2,750.00 (50%) on 2024-02-29.",
    "Überraschend schöne Straße, coeur naïf, mañana, İstanbul, Łódź, ﬁne ligature, e\u0301 and é.",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก",
    "你好，世界。こんにちは世界！안녕하세요 세계. 🙂🚀👩🏽‍🔬",
    "def f(x: int) -> list[str]:\n    return [f'{i:02d}' for i in range(x) if i % 2 == 0]\n",
    '<div class="a">&amp; {"key": [1, 2e-5, null]}</div>\r\n\tSELECT * FROM t WHERE a >= \'b\';',
    "  leading, trailing  \n\n\n and   inner\u00a0\u3000space\t\t",
    "1234567890 12 123 1234 12345 ----- ====== ......... !!!!???? aaaaaaaaaaaaaaaa",
    "",
)
"""Texts in several scripts, with digits, code and whitespace, for tokenizers that can only be tried."""

_ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_Merge = tuple[str, str]
_REMEDY = "compare models that share a tokenizer"


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        """Every token's id."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, special ones included."""
        ...


def compare_tokenizers(baseline: Tokenizer, other: Tokenizer, side: str) -> list[str]:
    """Notes on differences that are allowed.

    Args:
        baseline: the baseline's tokenizer, of transformers.
        other: another side's.
        side: which, for the message.

    Raises:
        UsageError: a text may become other ids on the other side, with the first token that differs.
    """
    notes = compare_vocabularies(baseline.get_vocab(), other.get_vocab(), side)
    bodies = [body for tokenizer in (baseline, other) if (body := _body(tokenizer)) is not None]
    both_fast = len(bodies) == 2
    found = next(_differences(*bodies), None) if both_fast else None
    tried = _first_difference(baseline, other)  # what is put around a text shows here, and all of slow tokenizers
    if found or tried:
        reason = f"{found} ({tried})" if found and tried and "token" not in found else found or tried
        raise UsageError(f"the tokenizers of baseline and {side} differ: {reason}; {_REMEDY}")
    return notes + (_added_on_one_side(*bodies, side=side) if both_fast else [])


def compare_vocabularies(baseline: Mapping[str, int], other: Mapping[str, int], side: str) -> list[str]:
    """Notes on tokens that only one side has.

    Raises:
        UsageError: a token means another id on the other side.
    """
    shared = baseline.keys() & other.keys()
    moved = [t for t in shared if baseline[t] != other[t]]
    ids = {i: t for t, i in baseline.items()}
    renamed = [t for t, i in other.items() if t not in shared and i in ids]
    if moved or renamed:
        token = min(moved or renamed, key=lambda t: (other[t], t))
        raise UsageError(
            f"the tokenizers of baseline and {side} differ: token {token!r} is {baseline.get(token, 'absent')} on one "
            f"side and {other[token]} on the other; {_REMEDY}"
        )
    extra = len(baseline.keys() ^ other.keys())
    return [f"the {side}'s tokenizer has {extra} added or missing tokens against the baseline's"] if extra else []


def _body(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """A fast tokenizer's whole definition."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if hasattr(backend, "to_str") else None


def _differences(baseline: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Whatever changes ids, most telling first; tokens, where they can be named."""
    models = baseline["model"], other["model"]
    kinds = [model.get("type") for model in models]
    if kinds[0] != kinds[1]:
        yield f"one is a {kinds[0]} model and the other a {kinds[1]} model"
        return
    shared = _pieces(models[0]).keys() & _pieces(models[1]).keys()
    yield from _merges(_merge_list(models[0], shared), _merge_list(models[1], shared))
    if kinds[0] == "Unigram":
        scores = [_pieces(model) for model in models]
        for token, score in scores[0].items():
            if token in shared and scores[1][token] != score:
                yield f"token {token!r} has score {score:g} on one side and {scores[1][token]:g} on the other"
                break
    yield from _added_flags(baseline, other)
    parts = {part: (baseline.get(part), other.get(part)) for part in ("normalizer", "pre_tokenizer")}
    settings = [{k: v for k, v in model.items() if k not in ("vocab", "merges")} for model in models]
    for name in dict.fromkeys([*settings[0], *settings[1]]):
        parts[f"model's {name}"] = settings[0].get(name), settings[1].get(name)
    for name, values in parts.items():
        one, two = map(_changing_ids, values)
        if one != two:
            yield f"{name} is {_short(one)} on one side and {_short(two)} on the other"


def _pieces(model: Mapping[str, Any]) -> dict[str, float]:
    """The model's tokens, with their scores where it has scores."""
    vocabulary = model["vocab"]
    return dict(map(tuple, vocabulary)) if isinstance(vocabulary, list) else vocabulary


def _merge_list(model: Mapping[str, Any], shared: Collection[str]) -> dict[_Merge, str]:
    """In order, the merges that make a token which both sides have, and the token that each makes."""
    prefix = str(model.get("continuing_subword_prefix") or "")
    pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model.get("merges") or []]
    made = {(a, b): a + b.removeprefix(prefix) for a, b in pairs}
    return {merge: token for merge, token in made.items() if token in shared}


def _merges(one: Mapping[_Merge, str], two: Mapping[_Merge, str]) -> Iterator[str]:
    """The first merge that differs; their order counts."""
    for rank, (m_1, m_2) in enumerate(zip_longest(one, two), start=1):
        if m_1 == m_2:
            continue
        if m_1 is not None and m_1 not in two:
            yield f"token {one[m_1]!r} is {_made_of(m_1)} on one side and {_otherwise(one[m_1], two)} on the other"
        elif m_2 is not None and m_2 not in one:
            yield f"token {two[m_2]!r} is {_otherwise(two[m_2], one)} on one side and {_made_of(m_2)} on the other"
        elif m_1 is not None and m_2 is not None:
            yield f"merge {rank} makes token {one[m_1]!r} on one side and {two[m_2]!r} on the other"
        return


def _made_of(merge: _Merge) -> str:
    return f"merged of {merge[0]!r} and {merge[1]!r}"


def _otherwise(token: str, merges: Mapping[_Merge, str]) -> str:
    return next((_made_of(m) for m, made in merges.items() if made == token), "never merged")


def _added_flags(baseline: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Added tokens that both sides have and that are cut out of a text in another way."""
    added = [{t["content"]: t for t in body.get("added_tokens") or []} for body in (baseline, other)]
    for token, one in added[0].items():
        two = added[1].get(token, one)
        for flag in _ADDED_FLAGS:
            if one.get(flag) != two.get(flag):
                yield f"added token {token!r} has {flag} {one.get(flag)} on one side and {two.get(flag)} on the other"
                return


def _added_on_one_side(baseline: Mapping[str, Any], other: Mapping[str, Any], *, side: str) -> list[str]:
    """A note on tokens of both vocabularies that only one side cuts out of a text before it is tokenised."""
    added = [{t["content"] for t in body.get("added_tokens") or []} for body in (baseline, other)]
    known = [_pieces(body["model"]).keys() for body in (baseline, other)]
    odd = sorted(((added[0] - added[1]) & known[1]) | ((added[1] - added[0]) & known[0]))
    if not odd:
        return []
    return [
        f"{len(odd)} tokens such as {odd[0]!r} are added tokens of one tokenizer, the baseline's or the {side}'s, only"
    ]


def _changing_ids(part: Any) -> Any:
    """A part of a definition without what only moves offsets in the text."""
    if isinstance(part, list):
        return [_changing_ids(p) for p in part]
    if isinstance(part, dict):
        return {k: _changing_ids(v) for k, v in part.items() if k != "trim_offsets"}
    return part


def _short(part: Any) -> str:
    text = json.dumps(part, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _first_difference(baseline: Tokenizer, other: Tokenizer) -> str | None:
    """The first token that differs on the sample, in texts without tokens that only one side has."""
    shared = {i for _, i in baseline.get_vocab().items() & other.get_vocab().items()}
    for text in SAMPLE:
        one, two = baseline.encode(text), other.encode(text)
        if one != two and shared.issuperset((*one, *two)):
            at = next(i for i, pair in enumerate(zip_longest(one, two)) if pair[0] != pair[1])
            names = [_token(tokenizer, ids[at : at + 1]) for tokenizer, ids in ((baseline, one), (other, two))]
            return f"{text[:30]!r}… becomes token {names[0]} on one side and {names[1]} on the other at place {at + 1}"
    return None


def _token(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    if not ids:
        return "none"
    return repr(next((t for t, i in tokenizer.get_vocab().items() if i == ids[0]), ids[0]))
