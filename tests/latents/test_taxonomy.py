"""The taxonomy: what the default holds, the order of names, and one line for every file that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffharness.errors import UsageError
from diffharness.latents.taxonomy import UNCLEAR, Category, Taxonomy, define, in_order, load_taxonomy

MOVED = ("safety", "multilingual", "instruction following", "self-reference", "hallucination management")
"""What the paper's abstract names."""
MAJORS = {"alignment", "form", "language", "knowledge", "reasoning", "technical"}


def test_the_default_defines_every_category_with_texts_on_either_side_of_its_border() -> None:
    default = load_taxonomy()
    assert len(default.names) == 23
    assert {category.major for category in default.categories} == MAJORS
    texts = [text for category in default.categories for text in (*category.positive, *category.negative)]
    assert len(set(texts)) == len(texts) == 6 * 23
    assert all(len(category.positive) == len(category.negative) == 3 for category in default.categories)
    assert all("Not " in category.definition for category in default.categories)
    assert default.names[: len(MOVED)] == MOVED


def test_the_default_covers_what_the_paper_reports_and_what_common_tasks_test() -> None:
    reported = {"factual verification", "template following", "code", "query classification", "structured output"}
    tested = {"arithmetic", "mathematics", "commonsense", "science", "reading comprehension", "logic", "grammar"}
    assert reported | tested <= set(load_taxonomy().names)


def test_every_name_is_defined_and_strangers_are_not() -> None:
    assert all(define(name) for name in (*load_taxonomy().names, UNCLEAR))
    assert define("gardening") is None
    assert load_taxonomy().major("gardening") is None
    assert load_taxonomy().major("code") == "technical"


def test_known_names_come_in_the_taxonomys_order_strangers_after_and_unclear_last() -> None:
    shuffled = [UNCLEAR, "zither", "facts", "safety", "facts", "astronomy", "multilingual"]
    assert in_order(shuffled) == ("safety", "multilingual", "facts", "astronomy", "zither", UNCLEAR)
    own = Taxonomy((Category("zither", "Plucking."), Category("facts", "Knowing.")))
    assert in_order(shuffled, own) == ("zither", "facts", "astronomy", "multilingual", "safety", UNCLEAR)
    assert define("zither", own) == "Plucking."


def _write(folder: Path, text: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_of_ones_own_is_read_in_its_order(tmp_path: Path) -> None:
    file = _write(
        tmp_path,
        "categories:\n- {name: zither, definition: 'Plucking   strings.', major: music, positive: [a b]}\n"
        "- name: astronomy\n  definition: >-\n    Stars and\n    planets.\n",
    )
    own = load_taxonomy(file)
    assert own.categories == (
        Category("zither", "Plucking strings.", "music", ("a b",)),
        Category("astronomy", "Stars and planets."),
    )
    assert own.names == ("zither", "astronomy")


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("categories: [", "not YAML", "write 'categories:'"),
        ("- safety", "holds no list of categories", "write 'categories:'"),
        ("categories: {}", "holds no list of categories", "write 'categories:'"),
        ("categories: []", "holds no list of categories", "write 'categories:'"),
        ("categorys: []\ncategories: [{name: a, definition: b}]", "'categorys'", "did you mean 'categories'?"),
        ("categories: [safety]", "entry 1: a str is no entry", "'name' and 'definition'"),
        ("categories: [{definition: b}]", "entry 1: 'name' is missing", "'name: ...'"),
        ("categories: [{name: yes, definition: b}]", "entry 1: 'name' is missing, empty or no text", "in quotes"),
        (
            "categories: [{name: a, definition: ' '}]",
            "entry 1 (a): 'definition' is missing, empty",
            "'definition: ...'",
        ),
        ("categories: [{name: a, definition: b, major: 3}]", "entry 1 (a): 'major'", "in quotes"),
        ("categories: [{name: a, definition: b}, {name: A, definition: c}]", "entry 2: the name 'A'", "rename one"),
        ("categories: [{name: Unclear, definition: b}]", "entry 1 (Unclear): 'unclear' is kept", "use another word"),
        ("categories: [{name: a, definition: b, positiv: [c]}]", "unknown key 'positiv'", "did you mean 'positive'?"),
        ("categories: [{name: a, definition: b, colour: c}]", "unknown key 'colour'", "known: name, definition"),
        ("categories: [{name: a, definition: b, positive: c}]", "'positive' is no list of texts", "'- '"),
        ("categories: [{name: a, definition: b, negative: [1]}]", "'negative' is no list of texts", "in quotes"),
    ],
)
def test_a_bad_file_is_named_with_the_entry_and_a_remedy_in_one_line(
    tmp_path: Path, text: str, says: str, remedy: str
) -> None:
    file = _write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_taxonomy(file)
    message = str(caught.value)
    assert message.startswith(f"taxonomy {file}")
    assert says in message
    assert remedy in message.split("; ", 1)[1]
    assert "\n" not in message


def test_tags_in_the_file_run_nothing(tmp_path: Path) -> None:
    file = _write(tmp_path, "categories: !!python/object/apply:os.getcwd []")
    with pytest.raises(UsageError, match="not YAML"):
        load_taxonomy(file)


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: can not be read"):
        load_taxonomy(tmp_path / "nowhere.yaml")
