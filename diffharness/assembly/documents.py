"""The documents whose score changed most, down to their tokens, as a part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.assembly.token_segments import Stretch, rounded, segment, stretches
from diffharness.report import schema
from diffharness.report.schema import component_label

if TYPE_CHECKING:
    from diffharness.assembly.flips import Contributions, Scored
    from diffharness.attribution.batches import DocumentForm
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.tokens import TokenAccount
    from diffharness.report.schema.flips import FlipKindName

N_DOCUMENTS = 6
"""Documents a task that are shown by token."""
MOST_CATEGORIES = 4
"""Categories a document that have a column of their own."""
_PROMPT, _GOLD, _ANSWER = 600, 300, 600
_EQUAL = "in the account, where both answers are the same tokens, so that no token tells them apart"


@dataclass(frozen=True)
class Chosen:
    """A task's flipped documents: those shown by token, and why the others are not."""

    doc_ids: tuple[int, ...]
    others: tuple[schema.OtherFlips, ...]


def choose(task: Scored, contributions: Contributions, forms: TaskForms | None, reason: str | None) -> Chosen:
    """The flips in the account, those in the direction of the task's gap first, then those that moved most.

    Args:
        task: its documents.
        contributions: the account.
        forms: its documents as functions of activations; `None` where there is no account.
        reason: why there is none.
    """
    lost = task.lost
    if forms is None:
        return Chosen((), _others(lost, {f"the task has no account: {reason}": list(lost)}))
    readable = {form.doc_id for form in forms.forms}
    drawn = [i for i in lost if (task.task, i) in contributions.parts]
    moved = {i: abs(sum(contributions.parts[task.task, i].values())) for i in drawn}
    went_wrong = (task.gap < 0) == task.metric.higher_is_better
    order = sorted((i for i in drawn if i in readable), key=lambda i: (lost[i] != went_wrong, -moved[i], i))
    n_drawn = sum(name == task.task for name, _ in contributions.parts)
    return Chosen(
        tuple(order[:N_DOCUMENTS]),
        _others(
            lost,
            {
                f"in the account; the tokens of the first {N_DOCUMENTS} are shown": order[N_DOCUMENTS:],
                _EQUAL: [i for i in drawn if i not in readable],
                f"not among the {n_drawn:,} documents that were drawn for the account": sorted(lost.keys() - drawn),
            },
        ),
    )


def _others(lost: Mapping[int, bool], by_reason: Mapping[str, Sequence[int]]) -> tuple[schema.OtherFlips, ...]:
    return tuple(
        schema.OtherFlips(
            reason=reason,
            lost=tuple(sorted(i for i in ids if lost[i])),
            gained=tuple(sorted(i for i in ids if not lost[i])),
        )
        for reason, ids in by_reason.items()
        if ids
    )


def task_documents(
    task: Scored,
    chosen: Chosen,
    forms: TaskForms | None,
    found: Sequence[TokenAccount],
    kinds: Mapping[int, FlipKindName],
    *,
    categories: Sequence[str],
    names: Sequence[str],
    tokenizer: Any,
) -> schema.TaskDocuments:
    """One task's part of the report.

    Args:
        task: its documents.
        chosen: which are shown.
        forms: its documents as functions of activations.
        found: the accounts by token of those shown, in the same order.
        kinds: by document, the kind of its flip.
        categories: of every latent.
        names: the categories that there are, as the columns of `found` have them.
        tokenizer: makes texts of ids.
    """
    documents: tuple[schema.FlippedDocument, ...] = ()
    if forms is not None and found:
        own = {form.doc_id: form for form in forms.forms}
        accounts = _components(task.task, forms, [own[i] for i in chosen.doc_ids], found, categories, names)
        documents = tuple(
            _document(task, own[i], account, accounts[i], kinds.get(i), names, tokenizer)
            for i, account in zip(chosen.doc_ids, found, strict=True)
        )
    unit = None if forms is None else forms.unit
    return schema.TaskDocuments(
        task=task.task, metric=str(task.metric), unit=unit, documents=documents, others=chosen.others
    )


def _components(
    task: str,
    forms: TaskForms,
    own: Sequence[DocumentForm],
    found: Sequence[TokenAccount],
    categories: Sequence[str],
    names: Sequence[str],
) -> dict[int, dict[str, float]]:
    """By document, its components by label."""
    from diffharness.attribution.account import collect, contributions

    only = replace(forms, forms=tuple(own), constant={}, weights={form.doc_id: 1.0 for form in own})
    account = collect(task, only, [token.account for token in found], len(categories))
    parts = contributions(account, categories, names)
    labels = [component_label(key.kind, key.category, key.origin) for key in parts.keys]
    return {
        doc_id: {label: rounded(v) for label, v in zip(labels, row, strict=True)}
        for doc_id, row in zip(account.doc_ids, parts.values_NC, strict=True)
    }


def _document(
    task: Scored,
    form: DocumentForm,
    found: TokenAccount,
    components: Mapping[str, float],
    kind: FlipKindName | None,
    names: Sequence[str],
    tokenizer: Any,
) -> schema.FlippedDocument:
    doc_id = form.doc_id
    before, after = task.baseline[doc_id], task.candidate[doc_id]
    columns, members = _columns(found.sums, names)
    n_categories = sum(column.kind == "latents" for column in columns)
    laid_out = [
        Stretch(s.name, s.texts, s.lengths, np.stack([s.values_PC[:, own].sum(axis=1) for own in members], axis=1))
        for s in stretches(form, found, task.output_type, tokenizer)
    ]
    return schema.FlippedDocument(
        doc_id=doc_id,
        is_loss=task.lost[doc_id],
        kind=kind,
        prompt=before.prompt[-_PROMPT:],
        gold=before.target[:_GOLD],
        baseline_answer=_ends(before.answer if before.response is None else before.response),
        candidate_answer=_ends(after.answer if after.response is None else after.response),
        baseline_score=task.values[doc_id][0],
        candidate_score=task.values[doc_id][1],
        baseline_surrogate=form.surrogate.metric(found.account.m_baseline),
        candidate_surrogate=form.surrogate.metric(found.account.m_candidate),
        contributions=dict(components),
        residual=rounded(found.residual),
        columns=columns,
        segments=tuple(segment(stretch, n_categories) for stretch in laid_out),
    )


def _columns(sums_C: np.ndarray, names: Sequence[str]) -> tuple[tuple[schema.TokenColumn, ...], list[list[int]]]:
    """What the report has at every token, and which of the account's columns go into each."""
    from diffharness.attribution.tokens import BIAS, ERROR

    order = [k for k in sorted(range(len(names)), key=lambda k: -abs(sums_C[k])) if sums_C[k]]
    members = [*([k] for k in order[:MOST_CATEGORIES]), order[MOST_CATEGORIES:], [BIAS], [ERROR]]
    columns = [
        *(
            schema.TokenColumn(kind="latents", category=names[k], sum=rounded(sums_C[k]))
            for k in order[:MOST_CATEGORIES]
        ),
        schema.TokenColumn(kind="other", category=None, sum=rounded(sums_C[order[MOST_CATEGORIES:]].sum())),
        schema.TokenColumn(kind="bias", category=None, sum=rounded(sums_C[BIAS])),
        schema.TokenColumn(kind="error", category=None, sum=rounded(sums_C[ERROR])),
    ]
    return tuple(columns), members


def _ends(text: str) -> str:
    """A long answer's beginning and end."""
    half = _ANSWER // 2
    return text if len(text) <= _ANSWER else f"{text[:half]} … {text[-half:]}"
