"""Kinds of positions, and the segments of chat templates as tokenizers of several kinds write them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from diffharness.activations.positions import (
    CONTENT,
    FIRST,
    SPECIAL,
    TEMPLATE,
    special_ids,
    template_segments,
    token_kinds,
)
from tests.tiny import tokenizer as tiny_tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message.role | upper }}: {{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
LINES = "{% for message in messages %}{{ message.content }}\n\n{% endfor %}"
TEXT = (
    "The quick brown foxes jump over lazy dogs near a green river, while many children watch them from the old "
    "bridge.\n\nEvery morning someone brings fresh bread, cheese and honey; nobody knows who pays for it.\n"
    "USER: and ASSISTANT: user assistant model system are words of their own.\n"
)


def trained(*added: str, sentencepiece: bool = False) -> PreTrainedTokenizerFast:
    """A BPE tokenizer with tokens of its own for `added`."""
    inner = Tokenizer(BPE(unk_token="<unk>"))
    if sentencepiece:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        inner.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
    alphabet = [] if sentencepiece else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([TEXT] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.add_tokens([AddedToken(token, special=True) for token in added], special_tokens=True)
    return made


def with_template(made: PreTrainedTokenizerFast, template: str | dict[str, str]) -> PreTrainedTokenizerFast:
    made.chat_template = template
    return made


TOKENIZERS: dict[str, Any] = {
    "chatml": lambda: with_template(trained("<|im_start|>", "<|im_end|>"), CHATML),
    "chatml in ordinary tokens": lambda: with_template(trained(), CHATML),
    "llama2": lambda: with_template(trained(sentencepiece=True), LLAMA2),
    "gemma": lambda: with_template(trained("<start_of_turn>", "<end_of_turn>"), GEMMA),
    "plain": lambda: with_template(trained(), PLAIN),
}
MESSAGES = [
    {"role": "user", "content": "children watch the green river"},
    {"role": "assistant", "content": "many foxes jump over lazy dogs"},
    {"role": "user", "content": "who brings fresh bread"},
]


@pytest.fixture(params=TOKENIZERS, scope="module")
def chatting(request):
    return TOKENIZERS[request.param]()


def kinds_by_text(made: PreTrainedTokenizerFast, text: str) -> list[tuple[str, int]]:
    """Every token's own stretch of the text, and its kind."""
    encoded = made(text, add_special_tokens=False, return_offsets_mapping=True)
    kinds = token_kinds(encoded["input_ids"], special_ids(made), template_segments(made))
    return [(text[a:b], kind) for (a, b), kind in zip(encoded["offset_mapping"], kinds.tolist(), strict=True)]


@pytest.mark.parametrize("with_prompt", [False, True])
def test_exactly_the_contents_of_a_rendered_conversation_are_content(chatting, with_prompt):
    text = chatting.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=with_prompt)
    found = kinds_by_text(chatting, text)
    content = "".join(piece for piece, kind in found if kind == CONTENT)
    assert "".join(content.split()) == "".join("".join(m["content"].split()) for m in MESSAGES)
    assert any(kind == TEMPLATE for _, kind in found)


def test_ordinary_text_has_no_template(chatting):
    for text in ("The quick brown foxes jump.\n\nEvery morning someone brings bread.\n", "a\nb\n\nc : d <e>"):
        kinds = [kind for _, kind in kinds_by_text(chatting, text)]
        assert TEMPLATE not in kinds


def test_segments_come_longest_first_and_once(chatting):
    found = template_segments(chatting)
    assert [len(run) for run in found] == sorted(map(len, found), reverse=True)
    assert len(set(found)) == len(found)
    assert found == template_segments(chatting)


def test_chatml_has_the_turns_borders_and_the_prompt_for_the_answer():
    made = TOKENIZERS["chatml"]()
    found = [made.decode(list(run)) for run in template_segments(made)]
    assert found[0] == "<|im_end|>\n<|im_start|>assistant\n"
    assert {"<|im_start|>user\n", "<|im_end|>\n", "<|im_end|>\n<|im_start|>user\n"} <= set(found)


def test_a_template_that_refuses_a_system_message_is_read_without_one():
    made = TOKENIZERS["gemma"]()
    found = [made.decode(list(run)) for run in template_segments(made)]
    assert "<end_of_turn>\n<start_of_turn>model\n" in found
    assert not any("system" in run for run in found)


def test_a_failure_of_the_tokenizer_itself_is_not_taken_for_a_refusal():
    made = TOKENIZERS["chatml"]()

    def broken(*_args: Any, **_kwargs: Any) -> str:
        raise ValueError("broken")

    made.apply_chat_template = broken
    with pytest.raises(ValueError, match="broken"):
        template_segments(made)


def test_line_breaks_alone_are_no_segments():
    made = with_template(trained(), LINES)
    assert template_segments(made) == ()


@pytest.mark.parametrize("template", [None, "", {}, {"rag": CHATML}])
def test_without_a_default_chat_template_there_are_no_segments(template):
    assert template_segments(with_template(trained(), template)) == ()


def test_of_several_named_templates_the_default_one_is_read():
    made = with_template(trained("<|im_start|>", "<|im_end|>"), {"rag": PLAIN, "default": CHATML})
    assert template_segments(made) == template_segments(TOKENIZERS["chatml"]())


def test_words_that_a_tokenizer_does_not_know_are_not_taken_for_its_template():
    """A word tokenizer reads all it does not know as one token, which would be common to all contents."""
    made = with_template(
        tiny_tokenizer(),
        "{% for message in messages %}<bos> the {{ message.content }} ? <eos> {% endfor %}",
    )
    found = [made.convert_ids_to_tokens(list(run)) for run in template_segments(made)]
    assert ["<bos>", "the"] in found
    assert ["?", "<eos>", "<bos>", "the"] in found
    assert not any("<unk>" in run for run in found)


def test_a_vocabulary_of_too_few_words_has_no_segments():
    assert template_segments(with_template(tiny_tokenizer(["dog", "cat"]), "{{ messages }} <bos> dog")) == ()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], []),
        ([5], [FIRST]),
        ([1], [FIRST]),
        ([5, 6], [FIRST, CONTENT]),
        ([1, 5, 6], [FIRST, FIRST, CONTENT]),
        ([1, 2, 5, 6], [FIRST, SPECIAL, FIRST, CONTENT]),
        ([1, 1, 1], [FIRST, SPECIAL, SPECIAL]),
        ([5, 1, 6], [FIRST, SPECIAL, CONTENT]),
        ([5, 7, 8, 6], [FIRST, TEMPLATE, TEMPLATE, CONTENT]),
        ([7, 8, 6], [FIRST, TEMPLATE, CONTENT]),
        ([5, 7, 6, 8], [FIRST, CONTENT, CONTENT, CONTENT]),
        ([5, 1, 9, 6], [FIRST, SPECIAL, TEMPLATE, CONTENT]),
        ([5, 7, 8, 8, 7], [FIRST, TEMPLATE, TEMPLATE, CONTENT, CONTENT]),
        ([5, 7], [FIRST, CONTENT]),
    ],
)
def test_kinds_of_positions(ids, expected):
    found = token_kinds(ids, frozenset({1, 2}), ((7, 8), (1, 9)))
    assert found.dtype == np.uint8
    assert found.tolist() == expected


def test_overlapping_occurrences_are_all_template():
    assert token_kinds([0, 3, 3, 3, 4], frozenset(), ((3, 3),)).tolist() == [FIRST, *[TEMPLATE] * 3, CONTENT]


def test_kinds_equal_a_search_token_by_token():
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(5) for _ in range(draw.randrange(14))]
        template = [tuple(draw.randrange(5) for _ in range(draw.randrange(1, 4))) for _ in range(2)]
        special = {0}
        leading = next((t for t, i in enumerate(ids) if i not in special), None)
        inside = {
            start + offset
            for run in template
            for start in range(len(ids))
            if tuple(ids[start : start + len(run)]) == run
            for offset in range(len(run))
        }
        expected = [
            FIRST if t in (0, leading) else SPECIAL if i in special else TEMPLATE if t in inside else CONTENT
            for t, i in enumerate(ids)
        ]
        assert token_kinds(ids, special, template).tolist() == expected


def test_tokens_added_as_special_are_special_beside_the_named_ones():
    made = trained("<|im_start|>")
    assert special_ids(made) == {made.get_vocab()[token] for token in ("<unk>", "<s>", "</s>", "<|im_start|>")}


def test_an_added_token_is_a_segment_by_itself_but_a_word_or_added_whitespace_is_not():
    made = trained()
    made.add_tokens([AddedToken("<|user|>"), AddedToken("\n\n\n")])
    turns = "{% for m in messages %}<|user|>{{ m.content }}\n\n\n{{ m.content }} the{% endfor %}"
    assert template_segments(with_template(made, turns))[-1] == (made.get_vocab()["<|user|>"],)
