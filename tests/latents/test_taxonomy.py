"""The taxonomy's order and definitions."""

from __future__ import annotations

from diffharness.latents.taxonomy import TAXONOMY, UNCLEAR, define, in_order


def test_every_category_is_named_once_and_defined() -> None:
    names = [category.name for category in TAXONOMY]
    assert len(set(names)) == len(names)
    assert UNCLEAR not in names
    assert all(define(name) for name in (*names, UNCLEAR))
    assert define("gardening") is None


def test_known_names_come_in_the_taxonomys_order_strangers_after_and_unclear_last() -> None:
    shuffled = [UNCLEAR, "zither", "facts", "safety", "facts", "astronomy", "multilingual"]
    assert in_order(shuffled) == ("safety", "multilingual", "facts", "astronomy", "zither", UNCLEAR)
