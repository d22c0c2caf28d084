"""What the candidate's own chat template, in place of the baseline's, makes of its documents' scores.

prompt = M_c(own prompt) − M_c(baseline's prompt), a document, by the task's surrogate M. Where likelihoods are scored,
both follow from the log-likelihoods that lm-eval recorded of the candidate in the two templates. A generated answer's M
chooses between two recorded answers to one prompt, and here there are two prompts: there it is the metric's own
difference, answer by answer. The account's other parts end at M_c(baseline's prompt), so with this they end at
M_c(own prompt): what the candidate scores as it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from diffharness.attribution.forms import DocumentValue, NoAccountError, document_score, task_forms
from diffharness.evaluation.scores import Evaluation, MetricKey


@dataclass(frozen=True)
class PromptEffect:
    """What the own prompt adds to one document's score."""

    metric: float
    """To M, in the surrogate's unit."""
    m: float
    """To m; NaN for generated answers."""


def prompt_effects(
    task: str, metric: MetricKey, own: Evaluation, shared: Evaluation, document_value: DocumentValue | None = None
) -> dict[int, PromptEffect]:
    """By document, what the candidate's own prompt adds.

    Args:
        task: its name.
        metric: the primary metric.
        own: the candidate asked in its own template.
        shared: the same model asked in the baseline's.
        document_value: as for `task_forms`.

    Raises:
        NoAccountError: the metric has no surrogate, or a document no finite score.
    """
    if shared.task(task).output_type == "generate_until":
        after, before = (
            {i: (document_score(d, metric, document_value), math.nan) for i, d in side.of(task, metric.filter).items()}
            for side in (own, shared)
        )
    else:
        after, before = (_recorded(task, metric, side) for side in (own, shared))
    if after.keys() != before.keys():
        raise NoAccountError("the candidate answered other documents in its own template")
    return {i: PromptEffect(after[i][0] - before[i][0], after[i][1] - before[i][1]) for i in before}


def _recorded(task: str, metric: MetricKey, evaluation: Evaluation) -> dict[int, tuple[float, float]]:
    """M and m of every document, from the log-likelihoods that lm-eval recorded."""
    forms = task_forms(task, metric, evaluation, evaluation)
    found = {doc_id: (score, 0.0) for doc_id, score in forms.constant.items()}
    readings = evaluation.ledger.by_document(task)
    for form in forms.forms:
        scored = [reading.log_likelihood for reading in readings[form.doc_id][: len(form.spans)]]
        values = [math.nan if value is None else value for value in scored]
        m = float(form.surrogate.path(torch.tensor(values, dtype=torch.float64)))
        if not math.isfinite(m):
            raise NoAccountError(f"document {form.doc_id} has no finite log-likelihood")
        found[form.doc_id] = form.surrogate.metric(m), m
    return found
