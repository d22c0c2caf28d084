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
    from diffharness.attribution.prompt import PromptEffect
    from diffharness.attribution.references import References
    from diffharness.pipeline import Run


def forms_of(run: Run, only: Collection[str] | None = None) -> tuple[dict[str, TaskForms], dict[str, str]]:
    """By task, its documents; and the reason for tasks that can not be accounted for.

    Args:
        run: whose evaluations.
        only: names of the tasks; all by default.
    """
    from diffharness.attribution.forms import NoAccountError, task_forms

    baseline, candidate = run.load_evaluation("baseline"), run.load_evaluation(run.shared("candidate"))
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


def prompts_of(run: Run, tasks: Collection[str]) -> tuple[dict[str, dict[int, PromptEffect] | None], dict[str, str]]:
    """By task, what the candidate's own chat template makes of every document, and the reason for those without.

    `None` for all tasks where both models were asked in one template.
    """
    from diffharness.attribution.forms import NoAccountError
    from diffharness.attribution.prompt import prompt_effects

    if run.shared("candidate") == "candidate":
        return dict.fromkeys(tasks), {}
    own, shared = run.load_evaluation("candidate"), run.load_evaluation(run.shared("candidate"))
    found: dict[str, dict[int, PromptEffect] | None] = {}
    reasons = {}
    for info in shared.tasks:
        if info.name in tasks:
            try:
                found[info.name] = prompt_effects(info.name, primary(run, info), own, shared, document_worth(run, info))
            except NoAccountError as reason:
                reasons[info.name] = f"of the candidate's own template: {reason}"
    return found, reasons


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
