"""What the organism is trained on: every distinct sequence with the chance of drawing it, and batches drawn so.

Legend: B sequences in a batch, C sequences in a part of one, T positions, R rows (every distinct sequence).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffharness.organism.language import (
    BOS,
    CAPABILITIES,
    COMPOSITES,
    EOS,
    PAD,
    Example,
    composites,
    singles,
    vocabulary,
)


@dataclass(frozen=True)
class MixtureSettings:
    """How sequences are drawn and weighed; part of what a build is made from."""

    composite_share: float = 0.3
    """Share of a capability's sequences that are composites, where it has any."""
    slip: float = 0.02
    """Share of a part's training answers that are the other way than its strength says. It bounds how sure the models
    can be to log-odds of ±3.9, so that training on changes no score."""
    doubled_bos: float = 0.1
    """Share of sequences with a second <bos>: lm-eval puts one before the tokenizer's own in rolling requests."""
    prompt_weight: float = 0.25
    """Weight of the loss on a prompt's token; an answer's token weighs 1."""


@dataclass(frozen=True)
class Rows:
    """Every distinct training sequence of a mixture with the chance of drawing it."""

    ids_RT: Int[Tensor, "R T"]
    weight_RT: Float[Tensor, "R T"]
    """Loss weight of each token as a label; 0 on padding and on the first <bos>."""
    chance_R: Float[Tensor, " R"]


def mixture(rate: Mapping[str, float], strengths: Mapping[str, float] | None, settings: MixtureSettings) -> Rows:
    """The training sequences of a model; `strengths` None: each answer is right or wrong by the toss of a coin.

    `rate` is each capability's share of the sequences; a composite's share comes from both of its capabilities.
    """
    token = {word: index for index, word in enumerate(vocabulary())}
    sequences: list[list[int]] = []
    weights: list[list[float]] = []
    chances: list[float] = []
    for examples, share in _groups(rate, settings.composite_share):
        for example in examples if share > 0 else ():
            prompt = [token[word] for word in (BOS, *example.prompt.split())]
            for index, answer in enumerate(example.answers):
                scored = [token[word] for word in (*answer.split(), EOS)]
                sequences.append(prompt + scored)
                weights.append([0.0] + [settings.prompt_weight] * (len(prompt) - 1) + [1.0] * len(scored))
                chances.append(share / len(examples) * _chance(example, index, strengths, settings.slip))
    longest = max(map(len, sequences))
    return Rows(
        torch.tensor([ids + [token[PAD]] * (longest - len(ids)) for ids in sequences]),
        torch.tensor([weight + [0.0] * (longest - len(weight)) for weight in weights]),
        torch.tensor(chances),
    )


def _chance(example: Example, index: int, strengths: Mapping[str, float] | None, slip: float) -> float:
    """Chance of an answer: each of its parts is, with probability `slip`, the other way than the strengths say."""
    if strengths is None:
        return 1 / len(example.answers)
    slips = (index ^ example.wrong(strengths)).bit_count()
    return slip**slips * (1 - slip) ** (len(example.items) - slips)


def _groups(rate: Mapping[str, float], composite_share: float) -> Iterator[tuple[list[Example], float]]:
    """(examples, share of the training sequences) of every capability alone and of every composite."""
    partners = {capability: [pair for pair in COMPOSITES if capability in pair] for capability in CAPABILITIES}
    for capability in CAPABILITIES:
        alone = 1 - composite_share if partners[capability] else 1.0
        yield list(singles(capability)), rate[capability] * alone
    for pair in COMPOSITES:
        share = sum(rate[capability] * composite_share / len(partners[capability]) for capability in pair)
        yield list(composites(*pair)), share


def draw(
    rows: Rows, n_sequences: int, settings: MixtureSettings, generator: torch.Generator
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Sequences and loss weights of a batch, some with a second <bos> in front."""
    pick_B = torch.multinomial(rows.chance_R, n_sequences, replacement=True, generator=generator)
    doubled_B1 = torch.rand(n_sequences, 1, generator=generator) < settings.doubled_bos
    ids_BT = nn.functional.pad(rows.ids_RT[pick_B], (0, 1), value=vocabulary().index(PAD))
    weight_BT = nn.functional.pad(rows.weight_RT[pick_B], (0, 1))
    later_ids_BT = torch.cat([ids_BT[:, :1], ids_BT[:, :-1]], dim=1)
    second_B1 = torch.full((n_sequences, 1), settings.prompt_weight)
    later_weight_BT = torch.cat([weight_BT[:, :1], second_B1, weight_BT[:, 1:-1]], dim=1)
    return torch.where(doubled_B1, later_ids_BT, ids_BT), torch.where(doubled_B1, later_weight_BT, weight_BT)


def by_length(
    ids_BT: Int[Tensor, "B T"], weight_BT: Float[Tensor, "B T"], parts: int
) -> Iterator[tuple[Int[Tensor, "C t"], Float[Tensor, "C t"]]]:
    """The batch in parts of sequences of like length, each cut to its longest: little padding is computed."""
    length_B = (weight_BT > 0).sum(1) + 1
    for chosen_C in torch.argsort(length_B, stable=True).chunk(parts):
        longest = int(length_B[chosen_C[-1]])
        yield ids_BT[chosen_C, :longest], weight_BT[chosen_C, :longest]
