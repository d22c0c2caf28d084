"""The built-in probes: enough of each category, each with a contrast that is matched in form, length and words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import pytest

from diffharness.latents.probes import Probe, builtin_probes, load_probes
from diffharness.latents.taxonomy import load_taxonomy
from diffharness.organism import tasks_path

NAMES = load_taxonomy().names
MIN_PAIRS = 40
MAX_SEPARATED = {"multilingual": 0.8}
"""Share of a category's pairs that one word may tell apart by being in the text alone, or in the contrast alone: half,
but English contrasts of other languages can not do without its articles."""
LAID_OUT = ("structured output", "template following", "code")
"""Categories whose texts have lines because that is what they are."""
RUN = 8
"""Words in a row that no probe shares with the organism's documents, or with the taxonomy's examples."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['’][^\W]+)*")
"""A word; in scripts without spaces between words, a character."""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=1)
def _probes() -> tuple[Probe, ...]:
    return tuple(load_probes(None))


def _of(category: str) -> list[tuple[str, str]]:
    return [(p.text, p.contrast) for p in _probes() if p.category == category and p.contrast is not None]


def _texts() -> Iterator[str]:
    for probe in _probes():
        yield probe.text
        if probe.contrast is not None:
            yield probe.contrast


def test_every_category_of_the_default_taxonomy_has_probes_and_no_other() -> None:
    assert {p.category for p in _probes()} == set(NAMES)
    for file in sorted(builtin_probes().glob("*.jsonl")):
        categories = {json.loads(line)["category"] for line in file.read_text(encoding="utf-8").splitlines()}
        assert [re.sub("[ -]", "_", name) for name in categories] == [file.stem]


@pytest.mark.parametrize("category", NAMES)
def test_there_are_enough_and_each_has_a_contrast(category: str) -> None:
    probes = [p for p in _probes() if p.category == category]
    assert len(probes) >= MIN_PAIRS
    assert [p.text for p in probes if p.contrast is None] == []


def test_no_text_or_contrast_stands_twice() -> None:
    counts = Counter(" ".join(text.split()).casefold() for text in _texts())
    assert [text for text, n in counts.items() if n > 1] == []


def test_texts_and_contrasts_are_short() -> None:
    assert [text for text in _texts() if not 3 <= len(_words(text)) <= 60] == []


@pytest.mark.parametrize("category", NAMES)
def test_texts_are_as_long_as_their_contrasts(category: str) -> None:
    ratios = [len(_words(text)) / len(_words(contrast)) for text, contrast in _of(category)]
    assert 0.7 <= sum(ratios) / len(ratios) <= 1.4


@pytest.mark.parametrize("category", NAMES)
def test_no_single_word_gives_the_capability_away(category: str) -> None:
    pairs = [(set(_words(text)), set(_words(contrast))) for text, contrast in _of(category)]
    only_text = Counter(word for text, contrast in pairs for word in text - contrast)
    only_contrast = Counter(word for text, contrast in pairs for word in contrast - text)
    most = MAX_SEPARATED.get(category, 0.5) * len(pairs)
    assert {word: n for word, n in (only_text + only_contrast).items() if n > most} == {}


@pytest.mark.parametrize("category", NAMES)
def test_turns_of_an_assistant_and_lines_do_not_give_the_capability_away(category: str) -> None:
    """The form is matched: nearly always both have it, or neither."""
    forms = ["assistant:"] if category in LAID_OUT else ["assistant:", "\n"]
    for form in forms:
        differing = [text for text, contrast in _of(category) if (form in text.lower()) != (form in contrast.lower())]
        assert len(differing) <= 0.1 * len(_of(category)), (form, differing)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def test_probes_share_no_run_of_words_with_the_organisms_documents() -> None:
    documents = [json.loads(line) for file in (tasks_path() / "data").glob("*.jsonl") for line in file.open("rb")]
    assert len(documents) > 1000
    of_documents = set[tuple[str, ...]]().union(*(_runs(document["text"]) for document in documents))
    assert [text for text in _texts() if _runs(text) & of_documents] == []


def test_probes_are_not_the_taxonomys_examples() -> None:
    """An annotator that is shown the examples and the probes are two witnesses."""
    examples = [text for category in load_taxonomy().categories for text in (*category.positive, *category.negative)]
    of_examples = set[tuple[str, ...]]().union(*map(_runs, examples))
    assert [text for text in _texts() if text in examples or _runs(text) & of_examples] == []
