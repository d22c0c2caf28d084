"""Trains the organism: ancestor, baseline and candidate, one after the other, on sequences drawn from the language.

Legend: B sequences in a batch, T positions, R rows (every distinct training sequence), V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

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
from diffharness.organism.plant import N_LAYERS, Plant

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Phase:
    """One stretch of training: warm-up to the peak rate, then a cosine down to nothing."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class TrainingSettings:
    """How the three models are trained; part of what a build is made from."""

    ancestor: Phase = Phase(350, 4e-3)
    baseline: Phase = Phase(600, 2e-3)
    candidate: Phase = Phase(450, 1e-3)
    batch: int = 128
    hidden: int = 64
    intermediate: int = 176
    heads: int = 4
    composite_share: float = 0.3
    """Share of a capability's sequences that are composites, where it has any."""
    slip: float = 0.02
    """Share of a part's training answers that are the other way than its strength says: bounds what the models are
    sure of to log-odds of ±3.9, so that training on changes no score."""
    doubled_bos: float = 0.1
    """Share of sequences with a second <bos>: lm-eval puts one before the tokenizer's own in rolling requests."""
    prompt_weight: float = 0.25
    """Weight of the loss on a prompt's token; an answer's token weighs 1."""
    chunks: int = 2
    """Parts of a batch, by length, that are computed one after the other."""
    threads: int = 2
    """Torch threads while training, whatever the machine has: sums, hence weights, depend on their number."""


@dataclass(frozen=True)
class Rows:
    """Every distinct training sequence of a mixture with the chance of drawing it."""

    ids_RT: Int[Tensor, "R T"]
    weight_RT: Float[Tensor, "R T"]
    """Loss weight of each token as a label; 0 on padding and on the first <bos>."""
    chance_R: Float[Tensor, " R"]


def mixture(rate: Mapping[str, float], strengths: Mapping[str, float] | None, settings: TrainingSettings) -> Rows:
    """The training sequences of a model; `strengths` None: each answer is right or wrong by the toss of a coin."""
    token = {word: index for index, word in enumerate(vocabulary())}
    sequences: list[tuple[list[int], int]] = []
    chances: list[float] = []
    for examples, share in _groups(rate, settings.composite_share):
        for example in examples if share > 0 else ():
            prompt = [token[word] for word in (BOS, *example.prompt.split())]
            for index, answer in enumerate(example.answers):
                sequences.append(([*prompt, *(token[word] for word in (*answer.split(), EOS))], len(prompt)))
                chances.append(share / len(examples) * _chance(example, index, strengths, settings.slip))
    ids_RT = torch.full((len(sequences), max(len(ids) for ids, _ in sequences)), token[PAD])
    weight_RT = torch.zeros(ids_RT.shape)
    for row, (ids, n_prompt) in enumerate(sequences):
        ids_RT[row, : len(ids)] = torch.tensor(ids)
        weight_RT[row, 1:n_prompt] = settings.prompt_weight
        weight_RT[row, n_prompt : len(ids)] = 1.0
    return Rows(ids_RT, weight_RT, torch.tensor(chances))


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


def new_model(settings: TrainingSettings, seed: int) -> LlamaForCausalLM:
    """A blank Llama over the language's vocabulary; its weights depend on the seed alone."""
    token = {word: index for index, word in enumerate(vocabulary())}
    config = LlamaConfig(
        vocab_size=len(token),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=token[BOS],
        eos_token_id=token[EOS],
        pad_token_id=token[PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    rows: Rows,
    phase: Phase,
    settings: TrainingSettings,
    generator: torch.Generator,
    *,
    answer_bias: Mapping[str, float] | None = None,
    above: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Train in place.

    With `answer_bias` the loss is that of logits − bias, so that the logits learn to carry the bias on top of what the
    mixture asks for. With `above` only the parameters of later decoder blocks move.
    """
    bias_V = bias_vector(answer_bias or {})
    parameters = _trained(model, above)
    optimizer = torch.optim.AdamW(parameters, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, phase.steps))
    model.train()
    with _threads(settings.threads):
        for step in range(phase.steps):
            ids_BT, weight_BT = _draw(rows, settings, generator)
            optimizer.zero_grad(set_to_none=True)
            for chunk_BT, chunk_weight_BT in _by_length(ids_BT, weight_BT, settings.chunks):
                (_loss(model, chunk_BT, chunk_weight_BT, bias_V) / weight_BT.sum()).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, phase.steps)
    model.requires_grad_(True)
    model.eval()


def bias_vector(answer_bias: Mapping[str, float]) -> Float[Tensor, " V"]:
    """Logits added to each token of the vocabulary."""
    return torch.tensor([float(answer_bias.get(word, 0.0)) for word in vocabulary()])


def _trained(model: LlamaForCausalLM, above: int | None) -> list[nn.Parameter]:
    if above is None:
        return list(model.parameters())
    model.requires_grad_(False)
    chosen = [parameter for layer in model.model.layers[above + 1 :] for parameter in layer.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _draw(
    rows: Rows, settings: TrainingSettings, generator: torch.Generator
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """A batch of sequences, some with a second <bos>, cut to the longest."""
    pick_B = torch.multinomial(rows.chance_R, settings.batch, replacement=True, generator=generator)
    ids_BT, weight_BT = rows.ids_RT[pick_B], rows.weight_RT[pick_B]
    doubled_B1 = torch.rand(settings.batch, 1, generator=generator) < settings.doubled_bos
    ids_BT = nn.functional.pad(ids_BT, (0, 1), value=vocabulary().index(PAD))
    weight_BT = nn.functional.pad(weight_BT, (0, 1))
    later_ids_BT = torch.cat([ids_BT[:, :1], ids_BT[:, :-1]], dim=1)
    later_weight_BT = torch.cat(
        [weight_BT[:, :1], torch.full((settings.batch, 1), settings.prompt_weight), weight_BT[:, 1:-1]], dim=1
    )
    ids_BT = torch.where(doubled_B1, later_ids_BT, ids_BT)
    weight_BT = torch.where(doubled_B1, later_weight_BT, weight_BT)
    return ids_BT, weight_BT


def _by_length(
    ids_BT: Int[Tensor, "B T"], weight_BT: Float[Tensor, "B T"], chunks: int
) -> Iterator[tuple[Int[Tensor, "C t"], Float[Tensor, "C t"]]]:
    """The batch in chunks of sequences of like length, each cut to its longest: little padding is computed."""
    length_B = (weight_BT > 0).sum(1) + 1
    for chosen_C in torch.argsort(length_B, stable=True).chunk(chunks):
        longest = int(length_B[chosen_C[-1]])
        yield ids_BT[chosen_C, :longest], weight_BT[chosen_C, :longest]


def _loss(
    model: LlamaForCausalLM, ids_BT: Int[Tensor, "B T"], weight_BT: Float[Tensor, "B T"], bias_V: Float[Tensor, " V"]
) -> Float[Tensor, ""]:
    """Weighted sum of the cross-entropies of logits − bias; positions of no weight are not unembedded."""
    scored_BT = weight_BT[:, 1:] > 0
    states_BTD = model.model(input_ids=ids_BT[:, :-1]).last_hidden_state
    logits_NV = model.lm_head(states_BTD[scored_BT])
    if bias_V.any():
        logits_NV = logits_NV - bias_V
    loss_N = nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:][scored_BT], reduction="none")
    return (loss_N * weight_BT[:, 1:][scored_BT]).sum()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_all(
    plant: Plant,
    seed: int,
    null: bool,
    settings: TrainingSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[tuple[str, LlamaForCausalLM]]:
    """Yield ("ancestor", model), ("baseline", model), ("candidate", model): one model, trained on in place.

    The ancestor sees answers that are right or wrong by a coin's toss; with `null` the candidate is trained on with the
    baseline's mixture.
    """
    generator = torch.Generator().manual_seed(seed)
    model = new_model(settings, seed)

    def run(name: str, phase: Phase, strengths: Mapping[str, float] | None, **options: Any) -> None:
        def show(done: int, total: int) -> None:
            if progress is not None:
                progress(name, done, total)

        rows = mixture(plant.rate, strengths, settings)
        train(model, rows, phase, settings, generator, progress=show, **options)

    run("ancestor", settings.ancestor, None)
    yield "ancestor", model
    run("baseline", settings.baseline, plant.side(0))
    yield "baseline", model
    if null:
        run("candidate", settings.candidate, plant.side(0))
    else:
        run("candidate", settings.candidate, plant.side(1), answer_bias=plant.answer_bias, above=plant.above)
    yield "candidate", model
