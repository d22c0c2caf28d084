"""Trains the organism: ancestor, baseline and candidate, one after the other, on sequences drawn from the language.

Legend: B sequences in a batch, T positions, N scored tokens, V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from diffharness.organism.language import BOS, EOS, PAD, vocabulary
from diffharness.organism.mixture import MixtureSettings, Rows, by_length, draw, mixture
from diffharness.organism.plant import N_LAYERS, Plant

Progress = Callable[[int, int], None]

BIAS_PENALTY = 10.0
"""Weight of the squared error of the constant that carries an answer bias."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training: warm-up to the peak rate, then a cosine down to nothing."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class TrainingSettings:
    """How the three models are trained; part of what a build is made from."""

    ancestor: Phase = Phase(350, 4e-3)
    baseline: Phase = Phase(500, 2e-3)
    candidate: Phase = Phase(400, 1e-3)
    batch: int = 128
    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    hidden: int = 64
    intermediate: int = 176
    heads: int = 4
    parts: int = 2
    """Parts of a batch, by length, that are computed one after the other."""
    threads: int = 2
    """Torch threads while training, whatever the machine has: sums, hence weights, depend on their number."""


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

    With `answer_bias` the logits carry the bias on top of what the mixture asks for (`_Constant`), which moves the
    unembedding too. With `above` only the parameters of later decoder blocks move otherwise.
    """
    constant = _Constant(model, rows, answer_bias) if answer_bias else None
    parameters = _trained(model, above)
    moved = parameters if constant is None else [*parameters, constant.w_D]
    optimizer = torch.optim.AdamW(moved, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, phase.steps))
    model.train()
    with _threads(settings.threads):
        for step in range(phase.steps):
            ids_BT, weight_BT = draw(rows, settings.batch, settings.mixture, generator)
            optimizer.zero_grad(set_to_none=True)
            for part_ids_BT, part_weight_BT in by_length(ids_BT, weight_BT, settings.parts):
                (_loss(model, part_ids_BT, part_weight_BT, constant) / weight_BT.sum()).backward()
            nn.utils.clip_grad_norm_(moved, 1.0)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, phase.steps)
    if constant is not None:
        constant.fold_into(model)
    model.requires_grad_(True)
    model.eval()


class _Constant:
    """A direction w with ⟨h, w⟩ = 1 on all final states h: what an output bias is to a model that has none.

    The unembedding gets bias × w in the end; until then training sees the logits less the bias, and pulls ⟨h, w⟩ to 1.
    """

    N_SEQUENCES = 1024

    def __init__(self, model: LlamaForCausalLM, rows: Rows, answer_bias: Mapping[str, float]) -> None:
        self.bias_V = torch.tensor([float(answer_bias.get(word, 0.0)) for word in vocabulary()])
        ids_BT = rows.ids_RT[torch.linspace(0, len(rows.ids_RT) - 1, self.N_SEQUENCES).long()]
        with torch.no_grad():
            h_ND = model.model(input_ids=ids_BT).last_hidden_state[ids_BT != vocabulary().index(PAD)].double()
        ones_N1 = torch.ones(len(h_ND), 1, dtype=h_ND.dtype)
        self.w_D = nn.Parameter(torch.linalg.lstsq(h_ND, ones_N1).solution[:, 0].float())

    def excess(self, h_ND: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N V"], Float[Tensor, " N"]]:
        """What the biased logits are off from logits + bias, and the squared error of the constant."""
        error_N = h_ND @ self.w_D - 1
        return error_N[:, None] * self.bias_V, error_N.square()

    def fold_into(self, model: LlamaForCausalLM) -> None:
        """Write the bias into the unembedding."""
        with torch.no_grad():
            model.lm_head.weight += self.bias_V[:, None] * self.w_D


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


def _loss(
    model: LlamaForCausalLM, ids_BT: Int[Tensor, "B T"], weight_BT: Float[Tensor, "B T"], constant: _Constant | None
) -> Float[Tensor, ""]:
    """Weighted sum of the tokens' cross-entropies; positions of no weight are not unembedded."""
    scored_BT = weight_BT[:, 1:] > 0
    h_ND = model.model(input_ids=ids_BT[:, :-1]).last_hidden_state[scored_BT]
    logits_NV = model.lm_head(h_ND)
    penalty_N = torch.zeros(())
    if constant is not None:
        excess_NV, error_N = constant.excess(h_ND)
        logits_NV, penalty_N = logits_NV + excess_NV, BIAS_PENALTY * error_N
    loss_N = nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:][scored_BT], reduction="none")
    return ((loss_N + penalty_N) * weight_BT[:, 1:][scored_BT]).sum()


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

        rows = mixture(plant.rate, strengths, settings.mixture)
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
