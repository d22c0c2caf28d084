"""Evidence of made-up latents: one fires on one word."""

from __future__ import annotations

from diffharness.latents.annotators.evidence import LatentEvidence, ShownText
from diffharness.latents.taxonomy import Category, Taxonomy

TAXONOMY = Taxonomy(
    (
        Category("safety", "Recognising harmful requests and refusing them."),
        Category("arithmetic", "Counting and calculating."),
        Category("code", "Reading and writing programs."),
    )
)


def shown(text: str, word: str = "", value: float = 1.0) -> ShownText:
    """A text in words, each with the space before it; the latent fires on one word."""
    words = text.split(" ")
    tokens = tuple(w if place == 0 else f" {w}" for place, w in enumerate(words))
    return ShownText(tokens, tuple(value if word and w == word else 0.0 for w in words))


def evidence(index: int, word: str = "poison", held_out: int = 6) -> LatentEvidence:
    active = [shown(f"text {i} of {index} with {word} inside", word, 4.0 - i) for i in range(4)]
    silent = [shown(f"text {i} of {index} with nothing inside") for i in range(3)]
    return LatentEvidence(
        index=index,
        quantiles=tuple(active),
        contrasts=tuple(silent),
        heldout_active=tuple(shown(f"kept {i} of {index} where {word} is", word) for i in range(held_out)),
        heldout_silent=tuple(shown(f"kept {i} of {index} where none is") for i in range(held_out)),
    )
