"""The tokens that a latent's decoder promotes and suppresses in each model.

Legend: L chosen latents, D width, V logits of a head, n tokens kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.activations.head import Head

BLOCK_VALUES = 1 << 24
"""Logits that are in memory at a time: 64 MiB."""

ABSENT = 1e-3
"""A decoder shorter than this share of the latent's longest says nothing about its side."""

SPACES = ("▁", "Ġ")
"""How the pieces of SentencePiece and of byte-level tokenizers write a leading space."""


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    def get_vocab(self) -> dict[str, int]:
        """Every token's id."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """The text of ids."""
        ...

    def convert_ids_to_tokens(self, ids: int) -> str:
        """The piece of an id, as the vocabulary writes it."""
        ...


@dataclass(frozen=True)
class PromotedTokens:
    """Tokens and the logits that one unit of a direction adds to them, strongest first."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class LensTokens:
    """What a latent's decoder says in one model."""

    up: PromotedTokens
    """The most promoted, the largest value first."""
    down: PromotedTokens
    """The most suppressed, the smallest value first."""


def latent_lens(
    heads: Mapping[str, Head],
    decoders: Mapping[str, Float[Tensor, "L D"]],
    tokenizer: Tokenizer,
    n: int = 10,
) -> list[dict[str, LensTokens]]:
    """The n tokens most promoted and most suppressed by each latent, by each model's own head.

    Values are logits a unit of the direction: of the decoder at length 1, at a final norm that divides by 1
    (`Head.promotes`), so they compare tokens of one latent and side, not latents with each other. A latent's logits
    are made for a block of latents at a time.

    Args:
        heads: by side; a side without one gets no lens.
        decoders: by side, the chosen latents' decoders in raw units (`Crosscoder.raw_decoder`), padded with zeros where
            the side is narrower than the widest.
        tokenizer: of transformers; logits that none of its tokens has (padded vocabularies) are passed over.
        n: tokens kept each way.

    Returns:
        For each latent, by side; without a side whose decoder is shorter than a thousandth of the longest.

    Raises:
        ValueError: decoders of a side are narrower than its model, or wider and not zero there.
    """
    found: list[dict[str, LensTokens]] = [{} for _ in next(iter(decoders.values()), torch.empty(0, 0))]
    norms = {side: d_LD.double().norm(dim=-1).cpu() for side, d_LD in decoders.items()}
    longest_L = torch.stack(list(norms.values())).amax(dim=0) if norms else torch.empty(0)
    known = sorted(set(tokenizer.get_vocab().values()))
    for side, head in heads.items():
        if side not in decoders:
            continue
        d_LD = _of_width(decoders[side], head.d_model, side)
        said_L = (norms[side] > 0) & (norms[side] >= ABSENT * longest_L)
        chosen = said_L.nonzero()[:, 0]
        known_V = torch.zeros(head.n_tokens, dtype=torch.bool)
        known_V[[i for i in known if i < head.n_tokens]] = True
        for some in chosen.split(max(1, BLOCK_VALUES // head.n_tokens)):
            unit_LD = torch.nn.functional.normalize(d_LD[some.to(d_LD.device)].double(), dim=-1, eps=0).float()
            lenses = _extremes(head.promotes(unit_LD), known_V, tokenizer, n)
            for latent, lens in zip(some.tolist(), lenses, strict=True):
                found[latent][side] = lens
    return found


def _of_width(d_LD: Tensor, width: int, side: str) -> Tensor:
    """The decoders without what pads them."""
    if d_LD.shape[1] < width or bool(d_LD[:, width:].any()):
        raise ValueError(f"decoders of {side} are of width {d_LD.shape[1]}, its model of {width}")
    return d_LD[:, :width]


def _extremes(
    logits_LV: Float[Tensor, "L V"], known_V: Bool[Tensor, " V"], tokenizer: Tokenizer, n: int
) -> list[LensTokens]:
    """The largest and the smallest of every row; changes the rows."""
    n = min(n, int(known_V.sum()))
    unknown_V = ~known_V.to(logits_LV.device)
    ends = []
    for largest in (True, False):
        logits_LV[:, unknown_V] = -torch.inf if largest else torch.inf
        value_Ln, id_Ln = logits_LV.topk(n, dim=-1, largest=largest)
        ends.append(
            [
                PromotedTokens(tuple(token_text(tokenizer, i) for i in ids), tuple(values))
                for ids, values in zip(id_Ln.tolist(), value_Ln.tolist(), strict=True)
            ]
        )
    return [LensTokens(up, down) for up, down in zip(*ends, strict=True)]


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as a reader knows it, with its leading space, which some tokenizers drop from a text's first token.

    A token that is no text by itself (a part of a character) is given as the vocabulary writes it.
    """
    piece = tokenizer.convert_ids_to_tokens(token_id)
    text = tokenizer.decode([token_id])
    if not text or "\ufffd" in text:
        return piece
    return f" {text}" if piece.startswith(SPACES) and not text.startswith(" ") else text
