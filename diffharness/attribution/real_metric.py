"""The task's real metric, by lm-eval's own functions, with anything put at the layer and without lm-eval's loop.

For tasks that are scored by log-likelihoods: the readings of a document pass through a model's upper layers, and what
comes out (log-likelihoods, and whether every target is the most likely token) goes to the task's own
`process_results` and aggregation. Many sets of changes are scored while a batch's states are at hand.

Legend: B rows, T positions, V vocabulary, D width, L latents, P players, S sets of players, K sets at a time,
R readings of a batch, N documents.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffharness.attribution.batches import BATCH_TOKENS, Batch, DocumentForm, Span, batches
from diffharness.attribution.states import ModelPair, PairStates
from diffharness.attribution.surrogates import LogLikelihood
from diffharness.evaluation.ledger import Reading

CANDIDATE = 1
Answer = tuple[float, bool]
"""A reading's log-likelihood, and whether each of its targets is the most likely token."""


class ScoringTask(Protocol):
    """What is used of an lm-eval task."""

    eval_docs: Any

    def process_results(self, doc: Any, results: Any) -> Any:
        """A document's values by metric, from the answers to its requests."""
        ...


class DocumentScorer:
    """One metric of a task as lm-eval scores it, document by document.

    Args:
        task: scores; what it makes of a document's templates is kept, as they take longer than the scoring.
        metric: the metric.
        rolling: whether requests are answered by a log-likelihood alone.
    """

    def __init__(self, task: ScoringTask, metric: str, *, rolling: bool) -> None:
        self._task = _remembering(task)
        self._docs: dict[int, Any] = {}
        self.metric = metric
        self.rolling = rolling

    def value(self, doc_id: int, readings: Sequence[Reading], answers: Sequence[Answer]) -> Any:
        """The document's value of the metric: a number, or what lm-eval aggregates.

        Args:
            doc_id: its number in the task.
            readings: what was read, by request and window.
            answers: what a model made of them.
        """
        if doc_id not in self._docs:
            self._docs[doc_id] = self._task.eval_docs[doc_id]
        results: dict[int, Answer] = {}
        for reading, (log_likelihood, greedy) in zip(readings, answers, strict=True):
            if reading.repeat == 0:
                before, all_greedy = results.get(reading.index, (0.0, True))
                results[reading.index] = (before + log_likelihood, all_greedy and greedy)
        listed = [results[index] for index in sorted(results)] or [(0.0, True)]
        given = [log_likelihood for log_likelihood, _ in listed] if self.rolling else listed
        return _plain(self._task.process_results(self._docs[doc_id], given)[self.metric])


def _remembering(task: ScoringTask) -> ScoringTask:
    """A copy of the task that renders each template of a document once."""
    found = copy.copy(task)
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if (whole := getattr(task, name, None)) is not None:
            setattr(found, name, _remembered(whole))
    return found


def _remembered(render: Callable[..., Any]) -> Callable[..., Any]:
    kept: dict[int, tuple[Any, Any]] = {}

    def once(doc: Any, *rest: Any, **more: Any) -> Any:
        if rest or more:
            return render(doc, *rest, **more)
        if id(doc) not in kept:
            kept[id(doc)] = doc, render(doc)  # the document is kept so that its identity stays its own
        return copy.copy(kept[id(doc)][1])

    return once


def _plain(value: Any) -> Any:
    """Plain numbers and tuples, as evaluations keep them."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_plain(v) for v in value)
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if isinstance(value, bool) else value


def is_same(value: Any, other: Any, tolerance: float = 1e-6) -> bool:
    """Whether two values of a document are equal, numbers up to a relative (or absolute) tolerance."""
    if isinstance(value, tuple) and isinstance(other, tuple):
        return len(value) == len(other) and all(is_same(a, b, tolerance) for a, b in zip(value, other, strict=True))
    if isinstance(value, int | float) and isinstance(other, int | float):
        return math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance) or value == other
    return value == other


class AnsweringBatch(Batch):
    """Documents as rows, with what lm-eval asks of every reading."""

    def __init__(self, documents: Sequence[DocumentForm], device: torch.device) -> None:
        super().__init__(documents, device)
        scored: list[tuple[int, int, int, int]] = []
        n_rows = reading = 0
        for document in documents:
            row_of: dict[tuple[int, ...], int] = {}
            for span in document.spans:
                row = row_of.setdefault(span.ids, n_rows + len(row_of))
                scored.extend((row, span.start + i, token, reading) for i, token in enumerate(span.targets))
                reading += 1
            n_rows += len(row_of)
        self._where = tuple(torch.tensor(column, device=device) for column in zip(*scored, strict=True))

    def answers(self, logits_KBTV: Float[Tensor, "K B T V"]) -> tuple[Float[Tensor, "K R"], Bool[Tensor, "K R"]]:
        """Each reading's log-likelihood (nats, summed in float64), and whether all its targets are the most likely."""
        row, position, token, reading = self._where
        scored = logits_KBTV[:, row, position].float()
        token_log_p = scored.log_softmax(-1).gather(-1, token.expand(len(scored), -1)[..., None])[..., 0]
        missed = scored.argmax(-1) != token
        zeros = torch.zeros(len(scored), self.n_readings, dtype=torch.float64, device=scored.device)
        sums = zeros.index_add(1, reading, token_log_p.double())
        return sums, zeros.index_add(1, reading, missed.double()) == 0


@dataclass(frozen=True)
class ScoredSets:
    """What every set of players makes of every document."""

    values_SN: list[list[Any]]
    """The document's value of the metric."""
    whole_N: list[list[Answer]]
    """Answers to a document's readings with all players in: the candidate itself."""


class SetScores:
    """A task's documents under the candidate's upper layers, with sets of players on the baseline's state.

    Args:
        pair: the models and their crosscoder.
        readings: what lm-eval made the candidate read, by document.
        players_PL: which latents each player but the last is; every latent belongs to one. The last player is bias
            and error, with the whole difference at positions without a code.
        batch_tokens: padded tokens a pass.

    Raises:
        ValueError: a latent is of no player, or of two.
    """

    def __init__(
        self,
        pair: ModelPair,
        readings: Mapping[int, Sequence[Reading]],
        players_PL: Bool[np.ndarray, "P-1 L"],
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        if players_PL.shape[1] != pair.crosscoder.n_latents or np.any(players_PL.sum(axis=0) != 1):
            raise ValueError("every latent has to belong to one player")
        self.pair = pair
        self.readings = dict(readings)
        self.batch_tokens = batch_tokens
        self._players = [torch.as_tensor(player_L, device=pair.device) for player_L in players_PL]

    @torch.no_grad()
    def score(
        self,
        scorer: DocumentScorer,
        member_SP: Bool[np.ndarray, "S P"],
        progress: Callable[[int, int], None] | None = None,
    ) -> ScoredSets:
        """Score all sets; documents in the order of the readings.

        Args:
            scorer: the metric.
            member_SP: who is in each set; the last set has everybody.
            progress: called with (documents done, all documents).
        """
        doc_ids = list(self.readings)
        values_SN: list[list[Any]] = [[None] * len(doc_ids) for _ in member_SP]
        whole_N: list[list[Answer]] = [[] for _ in doc_ids]
        read = [i for i, d in enumerate(doc_ids) if self.readings[d]]
        unread = [i for i in range(len(doc_ids)) if i not in set(read)]
        forms = [_form(doc_ids[i], self.readings[doc_ids[i]]) for i in read]
        for i in unread:  # an empty text: nothing that any model could answer otherwise
            for values_N in values_SN:
                values_N[i] = scorer.value(doc_ids[i], (), ())
        n_done = len(unread)
        for some in batches(forms, self.batch_tokens) if forms else ():
            batch = AnsweringBatch([forms[g] for g in some], self.pair.device)
            for s, answers_R in enumerate(self._answers(batch, member_SP)):
                start = 0
                for g in some:
                    i = read[g]
                    n = len(self.readings[doc_ids[i]])
                    own = answers_R[start : start + n]
                    values_SN[s][i] = scorer.value(doc_ids[i], self.readings[doc_ids[i]], own)
                    start += n
                    if s == len(member_SP) - 1:
                        whole_N[i] = own
            n_done += len(some)
            if progress is not None:
                progress(n_done, len(doc_ids))
        return ScoredSets(values_SN, whole_N)

    def _answers(self, batch: AnsweringBatch, member_SP: Bool[np.ndarray, "S P"]) -> list[list[Answer]]:
        """Answers to a batch's readings, by set."""
        states = PairStates(self.pair, batch)
        base, candidate = (x_BTD.double() for x_BTD in states.x_BTD)
        parts = [states.decoded(1, player_L) - states.decoded(0, player_L) for player_L in self._players]
        parts.append(candidate - base - sum(parts))
        part_PBTD = torch.stack(parts)
        rows, width = batch.ids_BT.shape
        step = max(1, self.batch_tokens // (rows * width))
        found: list[list[Answer]] = []
        for first in range(0, len(member_SP), step):
            member_KP = torch.as_tensor(member_SP[first : first + step], device=base.device)
            state_KBTD = base + torch.einsum("kp,pbtd->kbtd", member_KP.double(), part_PBTD)
            state_KBTD[member_KP.all(dim=1)] = candidate  # to the bit
            logits_RTV = self.pair.uppers[CANDIDATE].logits(
                batch.ids_BT.repeat(len(member_KP), 1), state_KBTD.flatten(0, 1)
            )
            log_likelihood_KR, greedy_KR = batch.answers(logits_RTV.unflatten(0, (len(member_KP), rows)))
            found += [
                list(zip(own_R, greedy_R, strict=True))
                for own_R, greedy_R in zip(log_likelihood_KR.tolist(), greedy_KR.tolist(), strict=True)
            ]
        return found


def _form(doc_id: int, readings: Sequence[Reading]) -> DocumentForm:
    return DocumentForm(doc_id, tuple(Span(r.ids, r.start, r.targets) for r in readings), LogLikelihood(1.0, 1.0))
