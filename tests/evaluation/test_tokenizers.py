"""Tokenizers that differ in one thing, built here: refused with the first token that differs, or noted."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from diffharness.errors import UsageError
from diffharness.evaluation.tokenizers import SAMPLE, compare_tokenizers
from tests import tiny as made

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("r", "e"), ("h", "e"), ("e", "r")]
VOCABULARY = {token: i for i, token in enumerate(["<bos>", *LETTERS, *("".join(m) for m in MERGES)])}


def bpe(merges=MERGES, vocabulary=VOCABULARY, added=(), bos=True, **settings):
    inner = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges), **settings.pop("model", {})))
    inner.pre_tokenizer = settings.pop("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.normalizer = settings.pop("normalizer", None)
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    inner.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **settings)


def refused(baseline, other) -> str:
    with pytest.raises(UsageError, match=r"the tokenizers of baseline and candidate differ: ") as error:
        compare_tokenizers(baseline, other, "candidate")
    message = str(error.value)
    assert message.endswith("; compare models that share a tokenizer")
    assert "\n" not in message
    return message


SWAPPED = [MERGES[0], MERGES[2], MERGES[1], *MERGES[3:]]
REMADE = [MERGES[3], ("t", "he"), *MERGES[2:3], MERGES[0], MERGES[4]]


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (SWAPPED, "merge 2 makes token 'the' on one side and 're' on the other"),
        (MERGES[:-1], "token 'er' is merged of 'e' and 'r' on one side and never merged on the other"),
        (MERGES[:1] + MERGES[2:], "token 'the' is merged of 'th' and 'e' on one side and never merged on the other"),
        ([*MERGES[:1], ("t", "he"), *MERGES[2:]], "'the' is merged of 'th' and 'e' on one side and merged of 't' and"),
    ],
    ids=["swapped", "last missing", "one missing", "of other parts"],
)
def test_one_other_merge_is_refused_with_its_token(merges, message):
    assert message in refused(bpe(), bpe(merges))
    assert refused(bpe(merges), bpe()), "either way"


def test_the_same_tokenizer_has_no_notes():
    assert compare_tokenizers(bpe(), bpe(), "candidate") == []


def test_what_leaves_ids_alone_is_ignored():
    other = bpe(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False))
    other.backend_tokenizer.enable_padding(length=50)
    other.backend_tokenizer.enable_truncation(5)
    other.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 0)]),
        ]
    )
    assert compare_tokenizers(bpe(), other, "candidate") == []


def test_added_tokens_are_noted_and_moved_ones_refused():
    other = bpe(vocabulary={**VOCABULARY, "thr": len(VOCABULARY)}, merges=[*MERGES, ("th", "r")], added=["<new>"])
    (note,) = compare_tokenizers(bpe(), other, "candidate")
    assert note == "the candidate's tokenizer has 2 added or missing tokens against the baseline's"
    moved = {**VOCABULARY, "he": VOCABULARY["er"], "er": VOCABULARY["he"]}
    assert "token 'er' is 261 on one side and 260 on the other" in refused(bpe(), bpe(vocabulary=moved))


def test_added_words_that_the_sample_uses_are_only_noted():
    baseline, other = made.tokenizer(), made.tokenizer([*made.WORDS, "lazy"])
    assert any(baseline.encode(text) != other.encode(text) for text in SAMPLE)
    assert len(compare_tokenizers(baseline, other, "candidate")) == 1
    bare = made.tokenizer([*made.WORDS, "lazy"])
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    assert "becomes token '<bos>' on one side and" in refused(baseline, bare)


def test_a_token_that_only_one_side_cuts_out_is_noted():
    (note,) = compare_tokenizers(bpe(added=["<bos>"]), bpe(), "candidate")
    assert "'<bos>'" in note
    assert note.endswith("only")


OTHER_PARTS = {
    "normalizer": (bpe(normalizer=normalizers.Lowercase()), 'normalizer is null on one side and {"type": "Lowerca'),
    "pre_tokenizer": (bpe(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), "pre_tokenizer is"),
    "setting": (bpe(model={"ignore_merges": True}), "model's ignore_merges is false on one side and true"),
    "special tokens": (bpe(bos=False), "becomes token '<bos>' on one side and 'T' on the other at place 1"),
}


@pytest.mark.parametrize("name", OTHER_PARTS)
def test_other_parts_that_change_ids_are_refused(name):
    other, message = OTHER_PARTS[name]
    assert message in refused(bpe(), other)


def test_added_tokens_cut_out_in_another_way_are_refused():
    sides = bpe(added=[AddedToken("<new>")]), bpe(added=[AddedToken("<new>", lstrip=True)])
    assert "added token '<new>' has lstrip False on one side and True on the other" in refused(*sides)


def test_another_score_is_refused_with_its_token():
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("ab", -3.0)]
    other = [*pieces[:2], ("b", -2.5), *pieces[3:]]
    sides = [PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram(p, unk_id=0))) for p in (pieces, other)]
    assert "token 'b' has score -2 on one side and -2.5 on the other" in refused(*sides)
    word = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({t: i for i, (t, _) in enumerate(pieces)}, unk_token="<unk>"))
    )
    assert "one is a Unigram model and the other a WordLevel model" in refused(sides[0], word)


class Slow(PreTrainedTokenizer):
    """Characters; `whole` of them are taken together."""

    def __init__(self, whole: str = "", **settings):
        self.whole = whole
        super().__init__(unk_token="<unk>", **settings)

    @property
    def vocab_size(self) -> int:
        return 402

    def get_vocab(self) -> dict[str, int]:
        return {"<unk>": 0, "12": 401} | {chr(i): i for i in range(1, 401)}

    def _tokenize(self, text, **kwargs):
        found = []
        for character in text:
            if self.whole and found and found[-1] + character == self.whole:
                found[-1] = self.whole
            else:
                found.append(character)
        return found

    def _convert_token_to_id(self, token):
        return self.get_vocab().get(token, 0)

    def _convert_id_to_token(self, index):
        return next((t for t, i in self.get_vocab().items() if i == index), "<unk>")


def test_slow_tokenizers_are_tried_on_a_sample():
    assert compare_tokenizers(Slow(), Slow(), "candidate") == []
    assert "becomes token '1' on one side and '12' on the other" in refused(Slow(), Slow("12"))
