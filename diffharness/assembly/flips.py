"""The documents whose score changed, by kind and beside the account, as a part of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffharness.report import schema
from diffharness.report.schema import component_label
from diffharness.statistics.multiple import benjamini_hochberg

if TYPE_CHECKING:
    from diffharness.evaluation.positions import PositionShift
    from diffharness.evaluation.scores import DocumentScore, MetricKey
    from diffharness.report.schema.flips import FlipKindName

SIGNIFICANT = 0.05
"""The q-value below which answers are said to have moved to one place."""
N_EXAMPLES = 3
_SHORT = 200
_NO_ANSWER = "there is no free answer to sort"
_NO_RESPONSE = "the answers were recorded without their raw text, by an earlier version; evaluate both sides again"
_UNKNOWN_END = "it is not known of every answer whether the limit of tokens ended it, so `truncated` may be missed"
_REPEATED = "each document was answered several times; the kinds are of the first answer"
_CORPUS = "the metric is not a mean over documents, so documents have no part of its gap"


@dataclass(frozen=True)
class Scored:
    """One task's documents on both sides."""

    task: str
    output_type: str
    metric: MetricKey
    gap: float
    """Of the metric, candidate − baseline."""
    baseline: Mapping[int, DocumentScore]
    candidate: Mapping[int, DocumentScore]
    values: Mapping[int, tuple[float, float]]
    """Both sides' scores, of the documents that have one."""
    is_repeated: bool = False
    """Whether documents were answered more than once."""
    places: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Which choice the baseline and the candidate took (`multiple_choice`)."""

    @property
    def lost(self) -> dict[int, bool]:
        """The documents whose score changed, and whether they were lost."""
        from diffharness.evaluation.flips import changed

        return changed(self.values, higher_is_better=self.metric.higher_is_better)


@dataclass(frozen=True)
class Contributions:
    """The account by task and document."""

    parts: Mapping[tuple[str, int], Mapping[str, float]]
    """By component label."""
    weights: Mapping[tuple[str, int], float]
    """How many documents of the task one that was drawn stands for, up to a factor."""

    @classmethod
    def load(cls, path: Path) -> Contributions:
        """Read `contributions.parquet`."""
        import pyarrow.parquet as pq

        parts: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        weights = {}
        columns = ["task", "doc_id", "weight", "kind", "origin", "category", "contribution"]
        for batch in pq.ParquetFile(path).iter_batches(columns=columns):
            for row in batch.to_pylist():
                key = row["task"], row["doc_id"]
                parts[key][component_label(row["kind"], row["category"], row["origin"])] = row["contribution"]
                weights[key] = row["weight"]
        return cls(parts, weights)

    def mean(self, task: str, doc_ids: Iterable[int]) -> tuple[dict[str, float], int]:
        """The weighted mean of every component over those of the documents that are in the account, and their number.

        Documents that weigh nothing have no mean.
        """
        keys = [(task, i) for i in doc_ids if (task, i) in self.parts]
        total = sum(self.weights[key] for key in keys)
        if total == 0:
            return {}, 0
        labels = dict.fromkeys(label for key in keys for label in self.parts[key])
        sums = {label: sum(self.weights[k] * self.parts[k].get(label, 0.0) for k in keys) for label in labels}
        return {label: value / total for label, value in sums.items()}, len(keys)


def flip_kinds(
    tasks: Sequence[Scored], contributions: Contributions, rng: np.random.Generator
) -> list[schema.FlipKinds]:
    """Every task's flips by kind, or why they have none; for multiple choice, whether answers moved to one place.

    Args:
        tasks: all tasks.
        contributions: the account; empty where there is none.
        rng: deals the sides for the places' test.
    """
    shifts, positions = _positions(tasks, rng)
    found = []
    for task in tasks:
        if task.output_type == "generate_until":
            found.append(_generated(task, contributions))
            continue
        position = positions.get(task.task)
        kinds: tuple[schema.FlipKind, ...] = ()
        if position is not None and position.moved:
            kinds = _by_position(task, shifts[task.task], contributions)
        found.append(_summary(task, kinds, None if kinds else _NO_ANSWER, position))
    return found


def document_kinds(tasks: Sequence[Scored], rng: np.random.Generator) -> dict[str, dict[int, FlipKindName]]:
    """By task and document, the kind of every flip that has one; arguments as those of `flip_kinds`."""
    shifts, positions = _positions(tasks, rng)
    found: dict[str, dict[int, FlipKindName]] = {}
    for task in tasks:
        if task.output_type == "generate_until":
            found[task.task] = _answer_kinds(task)[0] if _has_responses(task) else {}
        else:
            moved = task.task in positions and positions[task.task].moved
            kinds, evidence = _place_kinds(task, shifts[task.task]) if moved else ({}, {})
            found[task.task] = kinds if evidence else {}
    return found


def _positions(
    tasks: Sequence[Scored], rng: np.random.Generator
) -> tuple[dict[str, PositionShift], dict[str, schema.PositionShift]]:
    """By task of multiple choice, where answers moved to, and the same with its q-value over all such tasks."""
    shifts = {task.task: shift for task in tasks if (shift := _shift(task, rng)) is not None}
    q_values = benjamini_hochberg([shift.p_value for shift in shifts.values()])
    positions = {
        name: schema.PositionShift(
            position=shift.position, n=shift.n, baseline=shift.baseline, candidate=shift.candidate, right=shift.right,
            p_value=shift.p_value, q_value=float(q), moved=bool(q < SIGNIFICANT),
        )
        for (name, shift), q in zip(shifts.items(), q_values, strict=True)
    }  # fmt: skip
    return shifts, positions


def _generated(task: Scored, contributions: Contributions) -> schema.FlipKinds:
    """A task whose answers are free text."""
    if not _has_responses(task):
        return _summary(task, (), _NO_RESPONSE)
    kinds, evidence = _answer_kinds(task)
    documents = [*task.baseline.values(), *task.candidate.values()]
    notes = [_UNKNOWN_END] if any(document.stopped is None for document in documents) else []
    notes += [_REPEATED] if task.is_repeated else []
    return _summary(task, _kinds(task, kinds, evidence, contributions), "; ".join(notes) or None)


def _has_responses(task: Scored) -> bool:
    return all(d.response is not None for d in (*task.baseline.values(), *task.candidate.values()))


def _answer_kinds(task: Scored) -> tuple[dict[int, FlipKindName], dict[int, tuple[str, ...]]]:
    """By document, the kind of its flip and what the answer shows."""
    from diffharness.evaluation.flips import flips

    found = flips(task.baseline, task.candidate, task.values, higher_is_better=task.metric.higher_is_better)
    kinds: dict[int, FlipKindName] = {flip.doc_id: flip.kind for flip in found}
    evidence = {
        flip.doc_id: tuple(f"{s.kind}: {s.evidence}" for s in sorted(flip.signs, key=lambda s: s.kind != flip.kind))
        for flip in found
    }
    return kinds, evidence


def _shift(task: Scored, rng: np.random.Generator) -> PositionShift | None:
    from diffharness.evaluation.positions import position_shift

    known = [i for i in task.places if task.baseline[i].gold]
    if not known:
        return None
    base_N, cand_N = np.array([task.places[i] for i in known]).T
    return position_shift(base_N, cand_N, np.array([task.baseline[i].gold[0] for i in known]), rng)


def _by_position(task: Scored, shift: PositionShift, contributions: Contributions) -> tuple[schema.FlipKind, ...]:
    """The flips to a place that is answered too often, and the rest."""
    kinds, evidence = _place_kinds(task, shift)
    return _kinds(task, kinds, evidence, contributions) if evidence else ()


def _place_kinds(task: Scored, shift: PositionShift) -> tuple[dict[int, FlipKindName], dict[int, tuple[str, ...]]]:
    """By document, whether the shift may have made its flip, and from which choice to which."""
    from diffharness.evaluation.positions import at_the_position

    lost = {i: is_loss for i, is_loss in task.lost.items() if i in task.places}
    base, cand = ({i: places[side] for i, places in task.places.items()} for side in (0, 1))
    there = at_the_position(shift, lost, base, cand)
    kinds: dict[int, FlipKindName] = {i: "position" if i in there else "answer differs" for i in task.lost}
    evidence = {i: (f"position: choice {base[i] + 1} before, choice {cand[i] + 1} now",) for i in there}
    return kinds, evidence


def _kinds(
    task: Scored,
    kinds: Mapping[int, FlipKindName],
    evidence: Mapping[int, tuple[str, ...]],
    contributions: Contributions,
) -> tuple[schema.FlipKind, ...]:
    """Number, gap, account and examples of every kind that some document is of."""
    from diffharness.evaluation.flips import KINDS, REST

    lost, n = task.lost, len(task.baseline)
    order: tuple[FlipKindName, ...] = (*KINDS[:-1], "position", REST)
    found = []
    for kind in order:
        ids = [i for i in kinds if kinds[i] == kind]
        if not ids:
            continue
        differences = {i: task.values[i][1] - task.values[i][0] for i in ids}
        means, n_accounted = contributions.mean(task.task, ids)
        largest = sorted(ids, key=lambda i: (-abs(differences[i]), i))[:N_EXAMPLES]
        found.append(
            schema.FlipKind(
                kind=kind,
                n_lost=sum(lost[i] for i in ids),
                n_gained=sum(not lost[i] for i in ids),
                gap=sum(differences.values()) / n if _is_mean(task) else None,
                n_accounted=n_accounted,
                contributions=means,
                examples=tuple(_example(task, i, lost[i], evidence.get(i, ())) for i in largest),
            )
        )
    return tuple(found)


def _is_mean(task: Scored) -> bool:
    """Whether the metric's gap is the mean of the documents' differences."""
    mean = sum(c - b for b, c in task.values.values()) / max(1, len(task.baseline))
    return len(task.values) == len(task.baseline) and abs(mean - task.gap) <= 1e-9 * max(1.0, abs(task.gap))


def _example(task: Scored, doc_id: int, is_loss: bool, evidence: tuple[str, ...]) -> schema.FlipExample:
    before, after = task.baseline[doc_id], task.candidate[doc_id]
    shown = [d.answer if d.response is None else d.response for d in (before, after)]
    return schema.FlipExample(
        doc_id=doc_id, is_loss=is_loss, baseline_answer=shown[0][:_SHORT], candidate_answer=shown[1][:_SHORT],
        gold=before.target[:_SHORT], evidence=evidence,
    )  # fmt: skip


def _summary(
    task: Scored, kinds: tuple[schema.FlipKind, ...], reason: str | None, position: schema.PositionShift | None = None
) -> schema.FlipKinds:
    lost = task.lost
    return schema.FlipKinds(
        task=task.task,
        metric=str(task.metric),
        n=len(task.baseline),
        n_flips=len(lost),
        n_lost=sum(lost.values()),
        n_gained=len(lost) - sum(lost.values()),
        kinds=kinds,
        reason=reason,
        gap_reason=_CORPUS if kinds and not _is_mean(task) else None,
        position=position,
    )
