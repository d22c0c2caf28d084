"""The tokens that a planted decoder promotes, against the whole matrix of logits."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from diffharness.activations.head import Head, head
from diffharness.latents import lens as lens_module
from diffharness.latents.lens import latent_lens, token_text
from tests.tiny import WORDS, config, tokenizer

WIDTH = 16
N_WORDS = len(tokenizer())


@pytest.fixture(scope="module")
def heads() -> dict[str, Head]:
    made = {}
    for seed, side in enumerate(("baseline", "candidate")):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config(vocab_size=N_WORDS + 9)).eval()  # a vocabulary padded for the hardware
        model.model.norm.weight.data.uniform_(0.5, 1.5)
        made[side] = head(model)
    return made


def random_decoders(n: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {side: 3 * torch.randn(n, WIDTH, generator=generator) for side in ("baseline", "candidate")}


def plain_head(weight_VD: torch.Tensor) -> Head:
    matrix = nn.Linear(*reversed(weight_VD.shape), bias=False)
    matrix.weight.data = weight_VD
    return Head(matrix, torch.ones(weight_VD.shape[1]), centred=False, n_tokens=len(weight_VD), dtype=torch.float32)


def test_lens_is_the_ends_of_the_whole_logits_of_unit_decoders(heads):
    decoders_, words = random_decoders(), tokenizer()
    found = latent_lens(heads, decoders_, words, n=4)
    for side, d in decoders_.items():
        logits = heads[side].promotes(d / d.norm(dim=1, keepdim=True))[:, :N_WORDS]
        for latent, row in enumerate(logits):
            value, ids = row.sort(descending=True)
            up, down = found[latent][side].up, found[latent][side].down
            assert up.tokens == tuple(words.decode([i]) for i in ids[:4].tolist())
            assert down.tokens == tuple(words.decode([i]) for i in ids.flip(0)[:4].tolist())
            assert up.values == pytest.approx(value[:4].tolist(), rel=1e-5)
            assert down.values == pytest.approx(value.flip(0)[:4].tolist(), rel=1e-5)


def test_a_planted_words_decoder_promotes_that_word_and_suppresses_its_opposite():
    weight = torch.zeros(N_WORDS, WIDTH)
    words = tokenizer()
    dog, cat = (words.get_vocab()[word] for word in ("dog", "cat"))
    weight[dog, 3], weight[cat, 3] = 2.0, -1.5
    d = torch.zeros(1, WIDTH)
    d[0, 3] = 40.0
    (found,) = latent_lens({"candidate": plain_head(weight)}, {"candidate": d}, words, n=1)
    assert (found["candidate"].up.tokens, found["candidate"].up.values) == (("dog",), (2.0,))
    assert (found["candidate"].down.tokens, found["candidate"].down.values) == (("cat",), (-1.5,))


def test_the_length_of_a_decoder_changes_nothing(heads):
    d = random_decoders()
    longer = {side: 100 * part for side, part in d.items()}
    for one, two in zip(latent_lens(heads, d, tokenizer()), latent_lens(heads, longer, tokenizer()), strict=True):
        for side in one:
            assert one[side].up.tokens == two[side].up.tokens
            assert one[side].up.values == pytest.approx(two[side].up.values, rel=1e-5)


def test_a_side_without_the_latent_says_nothing(heads):
    d = random_decoders(3)
    d["baseline"][0] = 0
    d["candidate"][1] *= 5e-4 * d["baseline"][1].norm() / d["candidate"][1].norm()
    for side in d:
        d[side][2] = 0
    found = latent_lens(heads, d, tokenizer())
    assert [set(sides) for sides in found] == [{"candidate"}, {"baseline"}, set()]


def test_a_side_without_a_head_gets_no_lens(heads):
    found = latent_lens({"candidate": heads["candidate"]}, random_decoders(2), tokenizer())
    assert [set(sides) for sides in found] == [{"candidate"}, {"candidate"}]


def test_blocks_of_latents_change_nothing(heads, monkeypatch):
    whole = latent_lens(heads, random_decoders(), tokenizer())
    monkeypatch.setattr(lens_module, "BLOCK_VALUES", 2 * heads["baseline"].n_tokens)
    for one, two in zip(whole, latent_lens(heads, random_decoders(), tokenizer()), strict=True):
        for side in one:
            assert one[side].up.tokens == two[side].up.tokens
            assert one[side].down.values == pytest.approx(two[side].down.values, rel=1e-5)


def test_logits_that_no_token_has_are_passed_over(heads):
    found = latent_lens(heads, random_decoders(2), tokenizer(), n=N_WORDS + 5)
    assert all(sorted(sides["candidate"].up.tokens) == sorted(sides["candidate"].down.tokens) for sides in found)
    assert len(set(found[0]["candidate"].up.tokens)) == N_WORDS


def test_no_latents_give_no_lenses(heads):
    assert latent_lens(heads, random_decoders(0), tokenizer()) == []


def test_decoders_of_a_narrower_model_are_read_without_their_padding(heads):
    d = random_decoders(2)
    padded = {side: nn.functional.pad(part, (0, 4)) for side, part in d.items()}
    assert latent_lens(heads, padded, tokenizer()) == latent_lens(heads, d, tokenizer())
    with pytest.raises(ValueError, match="width 20"):
        latent_lens(heads, {side: part + 1 for side, part in padded.items()}, tokenizer())
    with pytest.raises(ValueError, match="width 8"):
        latent_lens(heads, {side: part[:, :8] for side, part in d.items()}, tokenizer())


def byte_level() -> PreTrainedTokenizerFast:
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "do", "dog", "Ġdog"]
    inner = Tokenizer(BPE({p: i for i, p in enumerate(pieces)}, [("d", "o"), ("do", "g"), ("Ġ", "dog")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def sentencepiece() -> PreTrainedTokenizerFast:
    inner = Tokenizer(BPE({"<0xF0>": 0, "▁": 1, "d": 2, "▁d": 3}, [("▁", "d")]))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_a_leading_space_shows_whatever_the_tokenizer_does_to_a_texts_first_token():
    words = byte_level()
    assert [token_text(words, i) for i in map(words.get_vocab().get, ("dog", "Ġdog", "Ġ"))] == ["dog", " dog", " "]
    pieces = sentencepiece()
    assert pieces.decode([3]) == "d"
    assert [token_text(pieces, i) for i in (2, 3)] == ["d", " d"]
    assert token_text(pieces, 1).strip() in ("", "▁")


def test_a_part_of_a_character_is_given_as_the_vocabulary_writes_it():
    words = byte_level()
    part = words.convert_tokens_to_ids("ð")
    assert "\ufffd" in words.decode([part])
    assert token_text(words, part) == "ð"
    assert token_text(sentencepiece(), 0) == "<0xF0>"


def test_words_of_the_tiny_tokenizer_are_themselves():
    words = tokenizer()
    assert [token_text(words, words.convert_tokens_to_ids(w)) for w in WORDS] == WORDS


def test_a_real_models_lens_shows_words(real):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real / "models" / "stories260K"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert isinstance(model.config, LlamaConfig)
    words = AutoTokenizer.from_pretrained(folder)
    token = words.convert_tokens_to_ids("▁the")
    d = model.get_input_embeddings().weight.detach()[[token]]
    (found,) = latent_lens({"baseline": head(model)}, {"baseline": d}, words)
    assert len(found["baseline"].up.tokens) == 10
    assert all(a >= b for a, b in zip(found["baseline"].up.values, found["baseline"].up.values[1:]))
