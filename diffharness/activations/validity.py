"""The validity gate: do stored activations, read by each model's upper layers, give lm-eval's own answers again?

It checks replay, store and splice together. Legend: B sequences, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffharness.activations.capture import UpperStack
from diffharness.activations.layers import context_border, input_device
from diffharness.activations.replay import length_batches, pad
from diffharness.evaluation.ledger import Reading

SEQUENCES = 64
"""Sequences of a task that are tried."""
BATCH_TOKENS = 2048
ROLLING = "loglikelihood_rolling"


@dataclass(frozen=True)
class Tolerance:
    """How far replay may be from lm-eval's answers; all three have to hold."""

    median: float
    """Nats a scored token: of a request's log-likelihood, divided by its scored tokens."""
    maximum: float
    """The same, of the worst request."""
    changed: float
    """Share of decisions (is the answer the most likely one? which token comes next?) that differ."""


TOLERANCES = {"exact": Tolerance(1e-3, 1e-2, 0.02), "half": Tolerance(0.05, 0.5, 0.1)}
"""By precision: float32 and float64, where replay differs by rounding alone; float16, bfloat16 and quantised weights,
where a token's log-probability moves when its batch changes (set by judgement, not measured)."""


@dataclass(frozen=True)
class Agreement:
    """Replay against lm-eval, on some sequences of one task and side."""

    n_sequences: int
    n_requests: int
    """Requests with a log-likelihood to compare."""
    median: float | None
    maximum: float | None
    """Nats a scored token; none where no request has a log-likelihood."""
    n_decisions: int
    n_changed: int
    tolerance: Tolerance

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to compare: answers drawn at random, texts whose log-likelihood is not known."""
        return not self.n_requests and not self.n_decisions

    @property
    def changed_share(self) -> float | None:
        """Share of decisions that differ; none where there are none."""
        return self.n_changed / self.n_decisions if self.n_decisions else None

    @property
    def holds(self) -> bool:
        """Whether replay stands for what lm-eval scored."""
        near = self.median is None or self.maximum is None or (
            self.median <= self.tolerance.median and self.maximum <= self.tolerance.maximum
        )  # fmt: skip
        # One decision in a few can be a tie that rounding breaks; it takes two to count as a change.
        same = self.n_changed <= max(1.0, self.tolerance.changed * self.n_decisions)
        return near and same


def tolerance_of(dtypes: Sequence[str], *, quantised: bool = False) -> Tolerance:
    """The tolerance of the least precise of some dtypes, such as `torch.bfloat16`."""
    exact = not quantised and all(d.removeprefix("torch.") in ("float32", "float64") for d in dtypes)
    return TOLERANCES["exact" if exact else "half"]


def sampled_readings(readings: Sequence[Reading], n_sequences: int = SEQUENCES) -> list[Reading]:
    """All readings of up to `n_sequences` distinct sequences of a task, spread evenly over it, each once.

    Rolling texts are taken whole, because of some only the sum over their windows is known; one text is the least.
    """
    units: dict[tuple[int, ...] | int, list[Reading]] = {}
    for reading in readings:
        if reading.targets:
            units.setdefault(reading.doc_id if reading.kind == ROLLING else reading.ids, []).append(reading)
    n_distinct = sum(len({r.ids for r in unit}) for unit in units.values())
    n_units = max(1, min(len(units), int(len(units) * n_sequences / max(1, n_distinct))))
    places = np.linspace(0, max(0, len(units) - 1), n_units).round().astype(int)
    kept = [r for i, unit in enumerate(units.values()) if i in places for r in unit]
    return list({(r.ids, r.start, r.targets, r.kind == ROLLING and r.doc_id): r for r in kept}.values())


def agreement(
    upper: UpperStack,
    state_of: Callable[[tuple[int, ...]], Float[Tensor, "T D"]],
    readings: Sequence[Reading],
    *,
    greedy: bool,
    tolerance: Tolerance,
    sums: Mapping[int, float] | None = None,
) -> Agreement:
    """Run a model's upper layers from stored activations and compare with what lm-eval answered.

    Args:
        upper: the layers above the stored one.
        state_of: a sequence's stored activations, all positions.
        readings: what lm-eval scored, with its answers.
        greedy: whether generated tokens were each the most likely one, so that they can be compared.
        tolerance: what is allowed.
        sums: log-likelihoods of rolling texts by document, where those of their windows are not known.
    """
    sequences = list(dict.fromkeys(r.ids for r in readings))
    by_sequence: dict[tuple[int, ...], list[Reading]] = {ids: [] for ids in sequences}
    for reading in readings:
        by_sequence[reading.ids].append(reading)
    seen = _Seen([], [], {})
    border = context_border(upper.model)
    borders = () if border is None else (border,)
    for rows in length_batches([len(ids) for ids in sequences], BATCH_TOKENS, borders):
        some = [sequences[i] for i in rows]
        log_p_BTV = _log_probabilities(upper, some, [state_of(ids) for ids in some])
        for log_p_TV, ids in zip(log_p_BTV, some, strict=True):
            for reading in by_sequence[ids]:
                seen.add(log_p_TV, reading, greedy)
    seen.add_sums(sums or {})
    return Agreement(
        n_sequences=len(sequences),
        n_requests=len(seen.differences),
        median=float(np.median(seen.differences)) if seen.differences else None,
        maximum=max(seen.differences, default=None),
        n_decisions=len(seen.decisions),
        n_changed=seen.decisions.count(False),
        tolerance=tolerance,
    )


@torch.no_grad()
def _log_probabilities(
    upper: UpperStack, sequences: Sequence[tuple[int, ...]], states: Sequence[Float[Tensor, "T D"]]
) -> Float[Tensor, "B T V"]:
    ids_BT = pad(sequences, input_device(upper.model))
    state_BTD = torch.zeros(*ids_BT.shape, states[0].shape[1], dtype=states[0].dtype)
    for row, state_TD in enumerate(states):
        state_BTD[row, : len(state_TD)] = state_TD
    return upper.logits(ids_BT, state_BTD).float().log_softmax(-1)


@dataclass(frozen=True)
class _Seen:
    """What the readings told so far."""

    differences: list[float]
    """Nats a scored token, one a request."""
    decisions: list[bool]
    """Whether each is the same."""
    windows: dict[int, list[tuple[float, int]]]
    """By document: replayed log-likelihood and scored tokens of a rolling text's windows."""

    def add(self, log_p_TV: Tensor, reading: Reading, greedy: bool) -> None:
        """Compare one reading."""
        n = len(reading.targets)
        scored_SV = log_p_TV[reading.start : reading.start + n]
        targets_S = torch.tensor(reading.targets, device=scored_SV.device)
        likely_S = scored_SV.argmax(-1) == targets_S
        replayed = float(scored_SV.gather(-1, targets_S[:, None]).double().sum())
        if reading.log_likelihood is not None:
            self.differences.append(abs(replayed - reading.log_likelihood) / n)
        if reading.greedy is not None:
            self.decisions.append(bool(likely_S.all()) == reading.greedy)
        elif greedy and reading.kind == "generate_until":
            self.decisions.extend(likely_S.tolist())
        if reading.kind == ROLLING:
            self.windows.setdefault(reading.doc_id, []).append((replayed, n))

    def add_sums(self, sums: Mapping[int, float]) -> None:
        """Compare rolling texts of which only the sum over their windows is known."""
        for document, known in sums.items():
            if document in self.windows:
                replayed, n_tokens = (sum(part) for part in zip(*self.windows[document], strict=True))
                self.differences.append(abs(replayed - known) / n_tokens)


def withheld_reason(found: Mapping[tuple[str, str], Agreement]) -> str | None:
    """Why no mechanism may be shown: the task and side (keys) that are furthest off; none where all hold."""
    bad = {key: a for key, a in found.items() if not a.holds}
    if not bad:
        return None
    (task, side), worst = max(bad.items(), key=lambda item: (item[1].maximum or 0.0, item[1].changed_share or 0.0))
    parts = []
    if worst.median is not None and worst.maximum is not None:
        parts.append(
            f"log-probabilities differ by {worst.maximum:.3g} nats a token at most, {worst.median:.3g} in the median "
            f"(allowed: {worst.tolerance.maximum:g} and {worst.tolerance.median:g})"
        )
    if worst.changed_share is not None:
        parts.append(
            f"{worst.n_changed} of {worst.n_decisions} most likely answers changed "
            f"(allowed: {worst.tolerance.changed:.0%})"
        )
    return (
        f"the {side}'s weights, replayed, do not give the answers that were scored: on {task}, {' and '.join(parts)}; "
        f"{len(bad)} of {len(found)} comparisons fail. Check that the replayed weights, dtype and tokenizer are those "
        "that were scored"
    )
