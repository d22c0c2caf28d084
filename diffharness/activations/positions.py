"""What stands at a token's position: content, or what a chat template and a tokenizer put around it.

Latents that fire on first, special and template tokens are about the position and not about what is written there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt

CONTENT, FIRST, SPECIAL, TEMPLATE = range(4)
"""Kinds of positions."""

CONVERSATIONS = (("user",), ("user", "assistant"), ("user", "assistant", "user"), ("system", "user"))
"""Roles of the conversations that a template is tried on."""

WORDS_A_MESSAGE = 2


def token_kinds(
    ids: Sequence[int], special_ids: Collection[int], template: Sequence[tuple[int, ...]] = ()
) -> npt.NDArray[np.uint8]:
    """The kind of every position of a sequence.

    FIRST are position 0 and the first position after the special tokens that the sequence begins with; SPECIAL all
    other special ids; TEMPLATE all other tokens inside an occurrence of one of the template's segments.

    Args:
        ids: the sequence.
        special_ids: of the tokenizer.
        template: as of `template_segments`.
    """
    ids_T = np.asarray(ids, dtype=np.int64)
    kind_T = np.full(len(ids_T), CONTENT, dtype=np.uint8)
    for segment in template:
        for start in _occurrences(ids_T, segment):
            kind_T[start : start + len(segment)] = TEMPLATE
    is_special_T = np.isin(ids_T, list(special_ids))
    kind_T[is_special_T] = SPECIAL
    kind_T[:1] = FIRST
    if not is_special_T.all():
        kind_T[np.argmin(is_special_T)] = FIRST
    return kind_T


def _occurrences(ids_T: npt.NDArray[np.int64], segment: tuple[int, ...]) -> list[int]:
    """Where a segment begins, overlapping ones included."""
    n_starts = len(ids_T) - len(segment) + 1
    if n_starts < 1 or not segment:
        return []
    start_S = np.arange(n_starts)
    for place, token in enumerate(segment):
        start_S = start_S[ids_T[start_S + place] == token]
    return start_S.tolist()


def special_ids(tokenizer: Any) -> frozenset[int]:
    """All ids that a tokenizer calls special: its own roles' (begin, end, …) and those added as special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def template_segments(tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """A chat template's own runs of tokens: what stays between and around messages when their contents change.

    Short conversations are rendered with two sets of contents that share no token, with and without a prompt for the
    answer, and what both renderings have in common is the template's. Runs that ordinary text has too are left out: a
    single token of the ordinary vocabulary, and runs without a letter, a digit or a special token (line breaks).

    Args:
        tokenizer: of transformers.

    Returns:
        The longest first; none for a tokenizer without a chat template, or whose vocabulary has too few words to tell.
    """
    template: Any = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        return ()
    special = special_ids(tokenizer)
    longest = max(map(len, CONVERSATIONS))
    words = _words(tokenizer, template, special, n=2 * longest * WORDS_A_MESSAGE)
    contents = [" ".join(words[i : i + WORDS_A_MESSAGE]) for i in range(0, len(words), WORDS_A_MESSAGE)]
    if len(contents) < 2 * longest:
        return ()
    found: set[tuple[int, ...]] = set()
    for roles in CONVERSATIONS:
        for with_prompt in (False, True):
            sides = [_rendered(tokenizer, roles, some, with_prompt) for some in (contents[::2], contents[1::2])]
            if sides[0] is not None and sides[1] is not None:
                found.update(_common_runs(sides[0], sides[1]))
    kept = [run for run in found if _is_telling(tokenizer, run, special)]
    return tuple(sorted(kept, key=lambda run: (-len(run), run)))


def _words(tokenizer: Any, template: str, special: Collection[int], n: int) -> list[str]:
    """The first n words of the vocabulary that are of known tokens, all different, and not in the template."""
    known, lowered = {tokenizer.unk_token_id, *special}, template.lower()
    words: list[str] = []
    for token in range(len(tokenizer)):
        if len(words) == n:
            break
        word = tokenizer.decode([token]).strip()
        if not re.fullmatch(r"[^\W\d_]{3,}", word) or word.lower() in lowered:
            continue
        ids = {i for text in (word, f" {word}", f"\n{word}") for i in _encoded(tokenizer, text)}
        ids -= set(_encoded(tokenizer, "\n")) | set(_encoded(tokenizer, " "))
        if ids and not ids & known:
            words.append(word)
            known |= ids
    return words


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _rendered(tokenizer: Any, roles: Sequence[str], contents: Sequence[str], with_prompt: bool) -> list[int] | None:
    """Ids of a conversation; None where the template refuses its roles."""
    from jinja2.exceptions import TemplateError

    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=with_prompt)
    except TemplateError:
        return None
    return _encoded(tokenizer, text)


def _common_runs(one: list[int], two: list[int]) -> Iterator[tuple[int, ...]]:
    blocks = SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks()
    yield from (tuple(one[block.a : block.a + block.size]) for block in blocks if block.size)


def _is_telling(tokenizer: Any, run: tuple[int, ...], special: Collection[int]) -> bool:
    """Whether a run is not one that ordinary text has."""
    if not set(run).isdisjoint(special):
        return True
    is_one_word = len(run) == 1 and run[0] not in getattr(tokenizer, "added_tokens_decoder", {})
    return not is_one_word and any(char.isalnum() for char in tokenizer.decode(list(run)))
