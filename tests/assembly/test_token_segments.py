"""Tokens laid out as they are read: whole characters, nothing counted twice, windows that say what they leave out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffharness.assembly.token_segments import AROUND, Stretch, pieces, segment, stretches
from diffharness.attribution.batches import DocumentForm, Span
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.attribution.tokens import TokenAccount
from tests.tiny import tokenizer as words


class Bytes:
    """A tokenizer whose every token is a byte."""

    def decode(self, ids: list[int], **_options: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def found_of(form: DocumentForm, seed: int = 0) -> TokenAccount:
    rng = np.random.default_rng(seed)
    sequences = tuple(dict.fromkeys(span.ids for span in form.spans))
    account: Any = SimpleNamespace(scale=1.0)
    return TokenAccount(account, sequences, tuple(rng.normal(size=(len(s), 3)) for s in sequences))


def form_of(*spans: Span) -> DocumentForm:
    return DocumentForm(0, spans, LogLikelihood(1.0, 1.0))


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 👩‍👩‍👧 🇩🇪!", "שלום", "a\x00\x1b[31m\n"])
def test_characters_of_several_tokens_stay_whole(text):
    found = list(pieces(list(text.encode()), Bytes()))
    assert "".join(t for _, _, t in found) == text
    assert [t for _, _, t in found] == list(text)
    assert [n for _, n, _ in found] == [len(c.encode()) for c in text]
    assert [at for at, _, _ in found] == np.cumsum([0, *(n for _, n, _ in found)])[:-1].tolist()


def test_bytes_that_are_no_text_are_shown_and_not_lost():
    ids = [*b"ab", 0xFF, 0xFE, *b"cd", 0xE3]
    found = list(pieces(ids, Bytes()))
    assert sum(n for _, n, _ in found) == len(ids)
    assert "".join(t for _, _, t in found).count("\ufffd") >= 2
    assert "".join(t for _, _, t in found).replace("\ufffd", "") == "abcd"


def test_no_piece_reaches_across_a_cut():
    found = list(pieces(list("é".encode()), Bytes(), {1}))
    assert [n for _, n, _ in found] == [1, 1]


CHOICES = form_of(Span((1, 5, 6, 7), 2, (7, 8)), Span((1, 5, 6, 9, 10), 2, (9, 10, 11)))
LETTERS = form_of(Span((1, 5, 6), 2, (7,)), Span((1, 5, 6), 2, (8,)))
ANSWERS = form_of(Span((1, 5, 6, 7), 2, (7, 2)), Span((1, 5, 6), 2, (9,)))
WINDOWS = form_of(Span((1, 5, 6), 0, (5, 6, 7)), Span((7, 8, 9), 0, (8, 9, 10)))
ALONE = form_of(*CHOICES.spans, Span((1, 7), 0, (7, 8)), Span((1, 9, 10), 0, (9, 10, 11)))


@pytest.mark.parametrize(
    ("form", "output_type", "names", "sizes"),
    [
        (CHOICES, "multiple_choice", ["prompt", "choice 1", "choice 2"], [3, 2, 3]),
        (LETTERS, "multiple_choice", ["prompt"], [3]),
        (ANSWERS, "generate_until", ["before the answers differ", "baseline's answer", "candidate's answer"],
         [3, 2, 1]),
        (WINDOWS, "loglikelihood_rolling", ["text, part 1", "text, part 2"], [4, 4]),
        (form_of(CHOICES.spans[0]), "loglikelihood", ["prompt", "target"], [3, 2]),
        (ALONE, "multiple_choice", ["prompt", "choice 1", "choice 2", "prompt", "choice 3", "choice 4"],
         [3, 2, 3, 1, 2, 3]),
    ],
    ids=["choices", "letters", "answers", "windows", "target", "mutual information"],
)  # fmt: skip
def test_what_is_shared_comes_once_and_everything_adds_up(form, output_type, names, sizes):
    found = found_of(form)
    made = stretches(form, found, output_type, words())
    assert [s.name for s in made] == names
    assert [sum(s.lengths) for s in made] == sizes
    np.testing.assert_allclose(sum(s.values_PC.sum(axis=0) for s in made), found.sums, atol=1e-12)


def test_texts_are_those_of_the_tokens():
    tokenizer = words()
    prompt, first, _ = stretches(CHOICES, found_of(CHOICES), "multiple_choice", tokenizer)
    assert "".join(prompt.texts) == tokenizer.decode([1, 5, 6])
    assert "".join(first.texts).strip() == tokenizer.decode([7, 8])


def test_a_long_stretch_keeps_what_is_near_the_strongest_and_counts_the_rest():
    values_PC = np.zeros((1000, 3))
    values_PC[:, 2] = 0.001
    values_PC[300, 0], values_PC[800, 1], values_PC[5, 2] = -2.0, 1.0, 7.0
    stretch = Stretch("prompt", tuple("x" * 1000), (1,) * 1000, values_PC)
    found = segment(stretch, 2)
    wanted = [*range(300 - AROUND, 301 + AROUND), *range(800 - AROUND, 801 + AROUND)]
    assert found.places == tuple(wanted)
    assert found.n_tokens == 1000
    assert found.left_out == pytest.approx((0.0, 0.0, 7.0 + 0.001 * (999 - len(wanted))), abs=1e-3)
    for column in range(3):
        assert sum(found.values[column]) + found.left_out[column] == pytest.approx(values_PC[:, column].sum(), abs=1e-3)


def test_a_short_stretch_is_kept_whole_and_a_long_piece_is_cut():
    stretch = Stretch("prompt", ("x" * 1_000_000, "b"), (1, 2), np.array([[0.123456, 0.0], [1.0, -1e-7]]))
    found = segment(stretch, 1)
    assert found.values == ((0.1235, 1.0), (0.0, -1e-07))
    assert (found.places, found.n_tokens, found.left_out) == ((0, 1), 3, (0.0, 0.0))
    assert len(found.texts[0]) == 200
