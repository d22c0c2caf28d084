"""What every set of categories makes of a task's documents: by passes from stored states, or by generating anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffharness.stages.reading import MAIN, Progress

if TYPE_CHECKING:
    from jaxtyping import Bool

    from diffharness.activations.validity import Tolerance
    from diffharness.attribution.interventions import Arm
    from diffharness.attribution.real_metric import Answer, DocumentScorer
    from diffharness.attribution.states import ModelPair
    from diffharness.evaluation.ledger import Reading
    from diffharness.evaluation.scores import DocumentScore, MetricKey
    from diffharness.pipeline import Run


class NoShapleyError(Exception):
    """Why a task has no Shapley values; shown in the report in their place."""


def likelihood_values(
    run: Run,
    metric: MetricKey,
    documents: Sequence[DocumentScore],
    pair: ModelPair,
    players_PL: np.ndarray,
    member_SP: np.ndarray,
    progress: Progress,
) -> list[list[Any]]:
    """The documents' values (S, N) of a task that log-likelihoods score.

    Args:
        run: whose candidate.
        metric: whose values.
        documents: of one task, as the candidate answered them.
        pair: the models and their crosscoder.
        players_PL: which latents each player but the last, bias and error, is.
        member_SP: who is in each set; nobody in the first, all in the last.
        progress: called with (done, all).

    Raises:
        NoShapleyError: values do not follow from log-likelihoods, or replay does not give the recorded ones.
    """
    from diffharness.attribution.real_metric import DocumentScorer, SetScores

    candidate, name = run.load_evaluation(run.shared("candidate")), documents[0].task
    of_task = candidate.ledger.by_document(name)
    readings = {document.doc_id: of_task.get(document.doc_id, []) for document in documents}
    rolling = candidate.task(name).output_type == "loglikelihood_rolling"
    scorer = DocumentScorer(run.session.tasks.tasks[name], metric.metric, rolling=rolling)
    _check_scoring(scorer, readings, [document.values[metric.metric] for document in documents])
    scored = SetScores(pair, readings, players_PL).score(scorer, member_SP, progress)
    _check_replay(run, scored.whole_N, list(readings.values()))
    return scored.values_SN


def generated_values(
    run: Run,
    metric: MetricKey,
    documents: Sequence[DocumentScore],
    pair: ModelPair,
    players_PL: np.ndarray,
    member_SP: np.ndarray,
    progress: Progress,
) -> list[list[Any]]:
    """The same where answers are generated: lm-eval generates and scores them anew for every set.

    Raises:
        NoShapleyError: it was not asked for, answers are drawn at random, or the candidate does not give its own again.
    """
    from diffharness.attribution.interventions import CANDIDATE, intervene
    from diffharness.attribution.real_metric import is_same
    from diffharness.evaluation import harness

    candidate, name = run.load_evaluation(run.shared("candidate")), documents[0].task
    if run.config.shapley != "all":
        raise NoShapleyError("its answers are generated, anew for every set of categories; --shapley all does so")
    if candidate.task(name).sampled:
        raise NoShapleyError("its answers are drawn at random")
    doc_ids = [document.doc_id for document in documents]
    protocol = {**candidate.settings.get("protocol", {}), "samples": {name: doc_ids}}
    values_SN: list[list[Any]] = [[] for _ in member_SP]
    for n_done, s in enumerate([len(member_SP) - 1, *range(len(member_SP) - 1)]):  # the candidate itself first
        *chosen_P, bias_and_error = member_SP[s].tolist()
        latents_L = np.any(players_PL[np.array(chosen_P, dtype=bool)], axis=0)
        with intervene(pair.readers, pair.crosscoder, CANDIDATE, arm_of(latents_L, bias_and_error=bias_and_error)):
            found, _ = harness.evaluate(
                run.session.model(MAIN[1]), run.session.tasks, only=[name], protocol=protocol,
                progress=lambda done, total, n=n_done: progress(n * total + done, len(member_SP) * total),
            )  # fmt: skip
        own = found.of(name, metric.filter)
        values_SN[s] = [own[doc_id].values[metric.metric] for doc_id in doc_ids]
        if n_done == 0:
            same = [is_same(v, d.values[metric.metric]) for v, d in zip(values_SN[s], documents, strict=True)]
            _check_changed(run, same.count(False), len(same))
    return values_SN


def arm_of(latents_L: Bool[np.ndarray, " L"], *, bias_and_error: bool) -> Arm:
    """What the candidate's layers above read where some players are in: the baseline's state and their changes.

    With bias and error as well it is the candidate with the other latents put back; with everybody, itself to the byte.
    """
    from diffharness.attribution.interventions import Arm

    chosen, others = (tuple(np.flatnonzero(which_L).tolist()) for which_L in (latents_L, ~latents_L))
    if not bias_and_error:
        return Arm("add", chosen)
    return Arm("put_back", others) if others else Arm("nothing")


def _check_changed(run: Run, n_changed: int, n_documents: int) -> None:
    """Refuse a task on which generating again does not give the candidate's recorded values."""
    allowed = max(1.0, _tolerance(run).changed * n_documents)
    if n_changed > allowed:
        raise NoShapleyError(
            f"the candidate, run again, does not give its recorded values: {n_changed} of {n_documents} documents "
            "changed"
        )


def _tolerance(run: Run) -> Tolerance:
    from diffharness.activations.validity import tolerance_of

    model = run.session.model("candidate").hf_model
    quantised = getattr(model.config, "quantization_config", None) is not None
    return tolerance_of([str(model.dtype)], quantised=quantised)


def _check_scoring(scorer: DocumentScorer, readings: Mapping[int, Sequence[Reading]], recorded: Sequence[Any]) -> None:
    """Refuse a task whose values do not follow from its log-likelihoods by its own function."""
    from diffharness.attribution.real_metric import is_same

    for (doc_id, own), value in zip(readings.items(), recorded, strict=True):
        answers = [(r.log_likelihood, r.greedy is not False) for r in own if r.log_likelihood is not None]
        if len(answers) == len(own) and not is_same(scorer.value(doc_id, own, answers), value):
            raise NoShapleyError(
                f"the task's own function does not give document {doc_id}'s recorded {scorer.metric} again from its "
                "log-likelihoods"
            )


def _check_replay(run: Run, whole_N: Sequence[Sequence[Answer]], readings: Sequence[Sequence[Reading]]) -> None:
    """Refuse a task on which the candidate's own state does not give its recorded answers, as the validity gate does.

    Raises:
        NoShapleyError: log-likelihoods or decisions are further off than replay may be.
    """
    from diffharness.activations.validity import Agreement

    rows = [pair for own, answers in zip(readings, whole_N, strict=True) for pair in zip(own, answers, strict=True)]
    off = [abs(a[0] - r.log_likelihood) / len(r.targets) for r, a in rows if r.log_likelihood is not None]
    decisions = [r.greedy == a[1] for r, a in rows if r.greedy is not None]
    found = Agreement(
        n_sequences=len(rows),
        n_requests=len(off),
        median=float(np.median(off)) if off else None,
        maximum=max(off, default=None),
        n_decisions=len(decisions),
        n_changed=decisions.count(False),
        tolerance=_tolerance(run),
    )
    if not found.holds:
        raise NoShapleyError(
            f"the candidate's own state does not give its recorded answers: {found.n_changed} of {found.n_decisions} "
            f"decisions changed, log-likelihoods are off by up to {found.maximum or 0:.3g} nats a token"
        )
