"""The stage of claims: every clear contribution is tried against random sets of latents, on documents of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.stages.explanation import model_pair
from diffharness.stages.reading import (
    MAIN,
    Progress,
    load_crosscoder,
    read_account,
    read_latents,
    read_rows,
    write_json,
)
from diffharness.stages.scoring import primary

if TYPE_CHECKING:
    from diffharness.assembly.claims import Contributed
    from diffharness.attribution.claims import Documents, Trial, Wanted
    from diffharness.attribution.forms import TaskForms
    from diffharness.attribution.matched import Origin
    from diffharness.attribution.states import ModelPair
    from diffharness.evaluation.scores import DocumentScore, Evaluation
    from diffharness.pipeline import Run


def claims(run: Run, folder: Path, progress: Progress) -> None:
    """Try what the halves of each moved task's documents select, each on the other half.

    Raises:
        RunError: an intervention that changes nothing does not reproduce the models.
    """
    import pyarrow.parquet as pq

    from diffharness.assembly.claims import contributed
    from diffharness.assembly.scores import moved_tasks

    account = read_account(run)["tasks"]
    moved = moved_tasks(read_rows(run), run.config.smallest_effect)
    names = [name for name in account if name in moved]
    found: list[dict[str, Any]] = []
    n_looked_at = 0
    if names:
        table = pq.read_table(run.account().folder / "contributions.parquet")
        pair = model_pair(run, load_crosscoder(run, MAIN))
        evaluations = run.load_evaluation("baseline"), run.load_evaluation("candidate")
        for position, name in enumerate(names):
            parts = contributed(table, name)
            found += _task(run, name, parts, pair, evaluations)
            n_looked_at += len(parts.keys)
            progress(position + 1, len(names))
    write_json(folder / "claims.json", {"n_looked_at": n_looked_at, "claims": found})


def _task(
    run: Run, name: str, parts: Contributed, pair: ModelPair, evaluations: tuple[Evaluation, Evaluation]
) -> list[dict[str, Any]]:
    """One task's claims."""
    from diffharness.assembly.checks import SMALLEST_SHARE
    from diffharness.assembly.claims import clear_keys, not_selected, tried
    from diffharness.attribution.claims import judge, select, unseen

    forms = _forms(run, name, evaluations)
    scores = evaluations[0].of(name, primary(run, evaluations[0].task(name)).filter)
    documents = _documents(name, parts, forms, scores)
    rng = np.random.default_rng(run.config.seed)
    signs_2C = select(parts.values_NC, parts.gap_N, documents, SMALLEST_SHARE, rng)
    signs = {key: signs_2C[:, c] for c, key in enumerate(parts.keys) if signs_2C[:, c].any()}
    found = [not_selected(name, key) for key in sorted(clear_keys(read_account(run)["tasks"][name]) - set(signs))]
    for trial in _trials(run, parts, forms, pair, list(signs)):
        signs_2 = signs[trial.wanted.category, trial.wanted.origin]
        finding = judge(trial.effect_N, trial.random_SN, signs_2, documents, rng)
        if finding is not None:
            found.append(tried(name, trial, finding, documents, unseen(signs_2, documents)))
    return found


def _forms(run: Run, name: str, evaluations: tuple[Evaluation, Evaluation]) -> TaskForms:
    from diffharness.attribution.forms import task_forms
    from diffharness.evaluation.comparison import document_value

    metric = primary(run, evaluations[0].task(name))
    worth = document_value(run.session.tasks.aggregation(name, metric.metric))
    return task_forms(name, metric, *evaluations, document_value=worth)


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
    run: Run, parts: Contributed, forms: TaskForms, pair: ModelPair, keys: Sequence[tuple[str, Origin]]
) -> list[Trial]:
    """Every selected claim's arms, with zeros for documents whose score can not differ."""
    from dataclasses import replace

    from diffharness.attribution.claims import Wanted, try_claims
    from diffharness.attribution.spliced import SplicedScores

    chosen = [form for form in forms.forms if form.doc_id in set(parts.doc_ids)]
    if not keys or not chosen:
        return []
    category_of = {latent.index: latent.category for latent in read_latents(run, MAIN)}
    wanted: list[Wanted] = [
        Wanted(category, origin, np.array([j for j, own in category_of.items() if own == category]))
        for category, origin in keys
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
