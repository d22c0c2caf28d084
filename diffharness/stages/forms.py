"""Every task's documents as functions of activations, and which of them are read where not all are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffharness import defaults
from diffharness.stages.scoring import document_worth, outcomes, primary

if TYPE_CHECKING:
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.references import References
    from diffharness.pipeline import Run


def forms_of(run: Run, only: Collection[str] | None = None) -> tuple[dict[str, TaskForms], dict[str, str]]:
    """By task, its documents; and the reason for tasks that can not be accounted for.

    Args:
        run: whose evaluations.
        only: names of the tasks; all by default.
    """
    from diffharness.attribution.forms import NoAccountError, task_forms

    baseline, candidate = run.load_evaluation("baseline"), run.load_evaluation("candidate")
    forms, reasons = {}, {}
    for info in baseline.tasks:
        if only is not None and info.name not in only:
            continue
        worth = document_worth(run, info)
        try:
            forms[info.name] = task_forms(info.name, primary(run, info), baseline, candidate, document_value=worth)
        except NoAccountError as reason:
            reasons[info.name] = str(reason)
    return forms, reasons


def references_of(run: Run, task: str) -> References:
    """What a task's documents are read against: texts that the crosscoder is trained on, none of the task's own.

    Where all of them are the task's (no corpus, one task), its other documents.
    """
    from diffharness.attribution.references import References

    texts = run.harvested.texts
    others = [text.ids for text in texts if text.source.rpartition(":")[0] != task]
    return References((others or [text.ids for text in texts])[: defaults.REFERENCE_TEXTS], run.session.skipped_ids)


@dataclass(frozen=True)
class Drawn:
    """The documents of a task that are read."""

    strata: dict[int, float]
    """Of every document: whether the candidate is better (1), worse (−1) or equal (0)."""
    stands_for: dict[int, float]
    """Of those that are read: how many of its stratum each stands for."""


def drawn_of(run: Run, forms: Mapping[str, TaskForms], n_documents: int) -> dict[str, Drawn]:
    """By task, a stratified draw of its documents, which does not depend on what other tasks there are."""
    from diffharness.attribution.sampling import stratified

    keys = [(name, form.doc_id) for name, task in forms.items() for form in task.forms]
    better = dict(zip(keys, np.nan_to_num(np.sign(outcomes(run, keys))).tolist(), strict=True))
    found = {}
    for name, task in forms.items():
        strata = {form.doc_id: better[name, form.doc_id] for form in task.forms}
        rng = np.random.default_rng([run.config.seed, *name.encode()])
        found[name] = Drawn(strata, stratified(strata, n_documents, rng))
    return found
