"""The stage of claims: every clear contribution is tried against random sets of latents, on documents of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.stages.explanation import model_pair
from diffharness.stages.forms import forms_of
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    read_account,
    read_categories,
    read_rows,
    write_json,
)
from diffharness.stages.scoring import primary

if TYPE_CHECKING:
    import pyarrow as pa

    from diffharness.assembly.claims import Contributed
    from diffharness.attribution.claims import Documents, Trial, Wanted
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.matched import Origin
    from diffharness.attribution.states import ModelPair
    from diffharness.evaluation.scores import DocumentScore
    from diffharness.pipeline import Run


@dataclass(frozen=True)
class _Task:
    """A task with a gap to explain, and what its account says."""

    name: str
    clear: set[tuple[str, Origin]]
    """The categories and origins that clearly contribute, over all documents."""
    parts: Contributed
    forms: TaskForms
    documents: Documents


def claims(run: Run, folder: Path, progress: Progress) -> None:
    """Try what the halves of each moved task's documents select, each on the other half.

    Raises:
        RunError: an intervention that changes nothing does not reproduce the models.
    """
    import pyarrow.parquet as pq

    from diffharness.assembly.scores import moved_tasks

    account = read_account(run)["tasks"]
    moved = moved_tasks(read_rows(run), run.config.smallest_effect)
    names = [name for name in account if name in moved]
    found: list[dict[str, Any]] = []
    n_looked_at = 0
    if names:
        table = pq.read_table(run.account().folder / "contributions.parquet")
        pair = model_pair(run, load_crosscoder(run, MAIN))
        categories = read_categories(run)
        for position, task in enumerate(_tasks(run, {name: account[name] for name in names}, table)):
            found += _claims_of(run, task, pair, categories)
            n_looked_at += len(task.parts.keys)
            progress(position + 1, len(names))
    write_json(folder / "claims.json", {"n_looked_at": n_looked_at, "claims": found})


def _tasks(run: Run, account: Mapping[str, Any], table: pa.Table) -> Iterator[_Task]:
    from diffharness.assembly.claims import clear_keys, contributed

    forms, _ = forms_of(run, account)
    baseline = run.load_evaluation("baseline")
    for name, row in account.items():
        parts = contributed(table, name)
        scores = baseline.of(name, primary(run, baseline.task(name)).filter)
        yield _Task(name, clear_keys(row), parts, forms[name], _documents(name, parts, forms[name], scores))


def _claims_of(run: Run, task: _Task, pair: ModelPair, categories: Sequence[str]) -> list[dict[str, Any]]:
    """One task's claims."""
    from diffharness.assembly.checks import SMALLEST_SHARE
    from diffharness.assembly.claims import not_selected, tried
    from diffharness.attribution.claims import judge, select, unseen

    rng = np.random.default_rng(run.config.seed)
    signs_2C = select(task.parts.values_NC, task.parts.gap_N, task.documents, SMALLEST_SHARE, rng)
    signs = {key: signs_2C[:, c] for c, key in enumerate(task.parts.keys) if signs_2C[:, c].any()}
    found = [not_selected(task.name, key) for key in sorted(task.clear - set(signs))]
    for trial in _trials(run, task.parts, task.forms, pair, list(signs), categories):
        signs_2 = signs[trial.wanted.category, trial.wanted.origin]
        finding = judge(trial.effect_N, trial.random_SN, signs_2, task.documents, rng)
        if finding is not None:
            found.append(tried(task.name, trial, finding, task.documents, unseen(signs_2, task.documents)))
    return found


def _documents(name: str, parts: Contributed, forms: TaskForms, scores: Mapping[int, DocumentScore]) -> Documents:
    """The accounted documents' weights, and their halves: by a document's hash, or its number where it has none."""
    from diffharness.attribution.claims import Documents, half_of

    mean_weight = float(np.mean(list(forms.weights.values())))
    return Documents(
        sample_N=parts.sample_N,
        weight_N=np.array([forms.weights[i] for i in parts.doc_ids]) / mean_weight,
        half_N=np.array([half_of(scores[i].doc_hash or f"{name} {i}") for i in parts.doc_ids]),
    )


def _trials(
    run: Run,
    parts: Contributed,
    forms: TaskForms,
    pair: ModelPair,
    keys: Sequence[tuple[str, Origin]],
    categories: Sequence[str],
) -> list[Trial]:
    """Every selected claim's arms, with zeros for documents whose score can not differ."""
    from dataclasses import replace

    from diffharness.attribution.claims import Wanted, try_claims
    from diffharness.attribution.spliced import SplicedScores

    chosen = [form for form in forms.forms if form.doc_id in set(parts.doc_ids)]
    if not keys or not chosen:
        return []
    wanted: list[Wanted] = [
        Wanted(category, origin, np.flatnonzero(np.array(categories) == category)) for category, origin in keys
    ]
    spliced = SplicedScores(pair, chosen, keep=False)
    place = {doc_id: i for i, doc_id in enumerate(parts.doc_ids)}
    places = [place[form.doc_id] for form in chosen]

    def laid_out(values: np.ndarray) -> np.ndarray:
        out = np.zeros((*values.shape[:-1], len(parts.doc_ids)))
        out[..., places] = values
        return out

    return [
        replace(
            trial,
            effect_N=laid_out(trial.effect_N),
            random_SN=laid_out(trial.random_SN),
            mean_difference_N=laid_out(trial.mean_difference_N),
            reconstruct_only_N=laid_out(trial.reconstruct_only_N),
            swap_N=laid_out(trial.swap_N),
        )
        for trial in try_claims(spliced, wanted, run.config.random_sets, [run.config.seed])
    ]
