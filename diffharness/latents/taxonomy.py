"""The categories that latents are sorted into: names, definitions, order.

Probes may use any names; the taxonomy defines the ones it knows and puts them in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

UNCLEAR = "unclear"
"""The category of a latent that the evidence does not name."""


@dataclass(frozen=True)
class Category:
    """One entry of the taxonomy."""

    name: str
    definition: str


TAXONOMY: tuple[Category, ...] = (
    Category("safety", "Recognising harmful requests and refusing them."),
    Category("multilingual", "Understanding and producing languages other than the main one."),
    Category("instruction following", "Doing exactly what was asked, in the form that was asked for."),
    Category("self-reference", "The model speaking of itself: what it is, who made it, what it can do."),
    Category("hallucination management", "Knowing what it does not know, and saying so."),
    Category("facts", "Recalling what is known about the world."),
    Category("arithmetic", "Counting and calculating."),
    Category("helpfulness", "Giving harmless requests a useful and friendly answer."),
)
"""The default: the categories of arXiv 2509.18792 that moved, then controls."""

_UNCLEAR = Category(UNCLEAR, "The evidence names no category, or more than one.")


def define(name: str, taxonomy: Iterable[Category] = TAXONOMY) -> str | None:
    """What a category means, or `None` where the taxonomy does not know the name."""
    return next((entry.definition for entry in (*taxonomy, _UNCLEAR) if entry.name == name), None)


def in_order(names: Iterable[str], taxonomy: Iterable[Category] = TAXONOMY) -> tuple[str, ...]:
    """Distinct names: those of the taxonomy in its order, others by alphabet, `unclear` last."""
    known = {entry.name: place for place, entry in enumerate(taxonomy)}
    return tuple(sorted(set(names), key=lambda name: (name == UNCLEAR, known.get(name, len(known)), name)))
